"""EDM2's network and recipe in a whole run: split, stopped, drawn from.

Two devices that split the parameters, microbatches and recomputed activations
against one device with none of it.
"""

import functools
import shutil
import types

import jax
import numpy as np
import pytest
from support import edm2_weights, smoke_runs
from support.smoke_runs import state

from cdm.config import datasets, loader, stage
from cdm.distributed import device_mesh
from cdm.training import program
from cdm.training import state as states

WORDS = {
  'model.multipliers': '(1,)',
  'optimizer.eps': 1e-6,  # where a gradient is rounding, its sign decides
  'train.batch_size': 4,
  'train.num_steps': 4,
  'train.save_every_steps': 2,
  'train.sample_every_steps': 4,
  'eval.every_steps': 0,
}
SPLIT = {
  'mesh.fsdp': 2,
  'train.accumulation': 2,
  'model.remat': 'full',
}
SMOKE = smoke_runs.CONFIGS / 'smoke_edm2.py'


def words(more=types.MappingProxyType({})):
  """-> overrides of the config: `WORDS` and more."""
  return [(k, str(v)) for k, v in (WORDS | {**more}).items()]


def train(workdir):
  given = [f'--config.{k}={v}' for k, v in words(SPLIT)]
  with smoke_runs.on(2):
    code = smoke_runs.cdm(
      *('train', f'--config={SMOKE}', f'--workdir={workdir}'), *given
    )
  assert code == 0


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('edm2') / 'whole'
  train(workdir)
  return workdir


def magnitudes(found):
  """-> {name: magnitude of the weights of every output}."""
  return {
    name: np.sqrt((value**2).mean(tuple(range(max(value.ndim - 1, 1)))))
    for name, value in found.items()
    if name.startswith('params/') and name.endswith('/kernel')
  }


def test_weights_turn_and_do_not_grow(whole):
  """At every step; their average is inside the sphere, as a mean of it is."""
  first, last = state(whole, 2), state(whole, 4)
  for found in (first, last):
    sizes = magnitudes(found)
    assert len(sizes) == 24 and 'params/loss_uncertainty/kernel' in sizes
    for name, size in sizes.items():
      np.testing.assert_allclose(size, 1.0, atol=1e-3, err_msg=name)
  for name in magnitudes(first):
    assert np.abs(last[name] - first[name]).max() > 1e-3, name
    mean = last[name.replace('params/', 'ema_params/', 1)]
    assert 0.5 < np.sqrt((mean**2).mean()) < 1.0, name
  gains = [n for n in last if n.startswith('params/') and n.endswith('gain')]
  assert len(gains) == 6 and all(last[name] for name in gains)


def test_magnitudes_of_what_layers_give_stay_near_one(whole):
  """After steps at a high rate, as at the start; of noise and of an image."""
  net = stage.stage(loader.load(SMOKE, words())).net
  params = {}
  for name, value in state(whole, 4).items():
    if name.startswith('params/') and 'uncertainty' not in name:
      node, (_, *modules, last) = params, name.split('/')
      for module in modules:
        node = node.setdefault(module, {})
      node[last] = value
  x = np.random.default_rng(0).standard_normal((16, 8, 8, 3))
  run = jax.jit(functools.partial(edm2_weights.with_outputs, net))
  given = np.linspace(-8, 8, 16, dtype=np.float32)
  _, found = run(params, x.astype(np.float32), given, label=np.arange(16) % 4)
  sizes = {k: float(np.sqrt((v**2).mean())) for k, v in found.items()}
  assert len(sizes) == 6
  assert all(0.7 < size < 1.4 for size in sizes.values()), sizes


def test_resuming_changes_no_bit(whole, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(whole, workdir)
  shutil.rmtree(workdir / 'checkpoints' / '4')
  train(workdir)
  expected, mine = state(whole, 4), state(workdir, 4)
  assert mine.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(mine[name], value, err_msg=name)
  name = 'grids/samples_00000004.png'
  assert (workdir / name).read_bytes() == (whole / name).read_bytes()


def test_one_device_gives_the_same_numbers(whole):
  c = loader.load(SMOKE, words({'ema.power_stds': '()'}))
  made = program.assemble(c, devices=jax.devices()[:1])
  batches = datasets.training_batches(
    c,
    datasets.open_source(c.train_data),
    seed=program.seed_of(c, program.DATA_SEED),
    rows=device_mesh.local_rows(made.mesh, c.train.batch_size),
  )
  mine = states.make_state(
    made.built.method.init, made.tx, key=made.key, abstract=made.state
  )
  for _ in range(2):
    batch = device_mesh.shard_batch(next(batches), made.mesh)
    mine, _ = made.step(mine, batch)
  batches.close()
  expected = state(whole, 2)
  for path, value in jax.tree_util.tree_leaves_with_path(mine.params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    np.testing.assert_allclose(
      value, expected[f'params/{name}'], atol=1e-4, err_msg=name
    )
