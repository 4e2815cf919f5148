"""The mesh changes the speed, not the numbers.

Through the front door on one device and on eight, where the batch is cut in
eight and the large arrays of the state in two (`fsdp`); and the program itself
in every layout of the three axes over 1, 2, 4 and 8 devices.
"""

import functools
import re

import jax
import numpy as np
import pytest
from PIL import Image
from support import smoke_runs
from support.smoke_runs import record, state

from cdm.config import datasets, loader
from cdm.distributed import device_mesh
from cdm.models import attention_kernels, unet
from cdm.planning import hlo, lowering
from cdm.sampling import cascade
from cdm.training import program
from cdm.training import state as states

# Sums over the batch are taken in another order; four steps of Adam at a high
# rate carry that on, furthest where the gradient is rounding alone (the bias
# of a key, which softmax does not feel). Measured against the largest weight
# of an array: 4e-4 in the biases of qkv, 7e-5 elsewhere.
RTOL = 2e-3


@pytest.fixture(scope='module')
def one():
  return smoke_runs.trained() / 'base'


@pytest.fixture(scope='module')
def eight(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('mesh') / 'eight'
  smoke_runs.train(
    'smoke',
    workdir,
    devices=8,
    mesh__fsdp=2,
    train__save_every_steps=4,
    eval__every_steps=4,
  )
  return workdir


def test_losses_are_the_same(one, eight):
  assert 'held_out/ema_loss' in record(one)[-1]
  for mine, expected in zip(record(eight), record(one), strict=True):
    assert mine == pytest.approx(expected, rel=1e-4)


def test_weights_are_the_same(one, eight):
  expected, mine = state(one, 4), state(eight, 4)
  assert mine.keys() == expected.keys()
  for name, value in expected.items():
    if name.startswith(('params/', 'ema_params/')):
      error = np.abs(mine[name] - value).max() / np.abs(value).max()
      assert error < RTOL, name


def test_samples_are_the_same(one, eight):
  a, b = (
    np.asarray(Image.open(workdir / 'grids' / 'samples_00000004.png'), int)
    for workdir in (one, eight)
  )
  assert np.abs(a - b).max() <= 1
  assert (a != b).mean() < 0.01


# --- Every layout

TINY = smoke_runs.SMALL | {
  'model.features': 4,
  'model.patch_size': 2,
  'model.num_heads': 1,
  'model.dropout': 0.1,
  'optimizer.warmup_steps': 0,
  # Away from zero: where a gradient is rounding alone, Adam makes a step of
  # its sign.
  'optimizer.eps': 1e-3,
  'sampler.grid.spacing': '2',
  'train.batch_size': 8,
}
# Every layout of two devices and of eight; four add no combination of axes.
LAYOUTS = [
  (data, fsdp, tensor)
  for data in (1, 2, 4, 8)
  for fsdp in (1, 2, 4, 8)
  for tensor in (1, 2, 4, 8)
  if data * fsdp * tensor in (2, 8)
]


def tiny(data, fsdp, tensor, **overrides):
  """-> (config, its Program on data * fsdp * tensor devices)."""
  axes = {'mesh.data': data, 'mesh.fsdp': fsdp, 'mesh.tensor': tensor}
  num_slices = overrides.pop('num_slices', 1)
  overrides = {k.replace('__', '.'): v for k, v in overrides.items()}
  values = (TINY | axes | overrides).items()
  c = loader.load(
    smoke_runs.CONFIGS / 'smoke.py',
    [(key, str(value)) for key, value in values],
  )
  devices = jax.devices()[: data * fsdp * tensor]
  return c, program.assemble(c, devices=devices, num_slices=num_slices)


@functools.cache
def ran(data, fsdp, tensor, accumulation=1):
  """-> (batches, losses, parameters, samples) of two steps in a layout."""
  c, made = tiny(data, fsdp, tensor, train__accumulation=accumulation)
  rows = device_mesh.local_rows(made.mesh, c.train.batch_size)
  batches = datasets.training_batches(
    c, datasets.open_source(c.train_data), seed=1, rows=rows
  )
  state = states.make_state(
    made.built.method.init, made.tx, key=made.key, abstract=made.state
  )
  seen, losses = [], []
  for _ in range(2):
    batch = device_mesh.shard_batch(next(batches), made.mesh)
    seen.append(np.asarray(batch['image']))
    state, scalars = made.step(state, batch)
    losses.append(float(scalars['loss']))
  batches.close()
  stage = cascade.Stage.of(made.built, state.ema_params, made.mesh, name='base')
  drawn = cascade.sampler([stage])(7, np.arange(8), np.arange(8) % 4)[0]
  params = jax.tree.map(np.asarray, state.params)
  return seen, losses, params, device_mesh.fetch(drawn).astype(int)


@pytest.mark.parametrize(
  'layout', [*LAYOUTS, (2, 1, 1, 4), (2, 2, 2, 2)], ids=str
)
def test_every_layout_gives_the_numbers_of_one_device(layout):
  """Losses to 1e-5, parameters to 1e-4 of their largest, grey levels to 1.

  The last two are of four and of two microbatches as well.
  """
  expected, mine = ran(1, 1, 1), ran(*layout)
  np.testing.assert_array_equal(mine[0], expected[0])
  np.testing.assert_allclose(mine[1], expected[1], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=0, atol=max(1e-4 * np.abs(b).max(), 1e-7)
    ),
    mine[2],
    expected[2],
  )
  assert np.abs(mine[3] - expected[3]).max() <= 1


def test_every_layout_begins_at_the_same_images():
  """A split batch gets its own start images, whatever splits the parameters."""
  images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
  drawn = []
  for layout in ((1, 1, 1), (2, 4, 1)):
    _, made = tiny(*layout)
    state = states.make_state(
      made.built.method.init, made.tx, key=made.key, abstract=made.state
    )
    stage = cascade.Stage.of(
      made.built, state.ema_params, made.mesh, name='base'
    )
    stage = stage._replace(start_level=0.02, starts=lambda n: images[n])
    result = cascade.sampler([stage])(7, np.arange(8), np.arange(8) % 4)[0]
    drawn.append(device_mesh.fetch(result).astype(int))
  assert np.abs(drawn[0] - drawn[1]).max() <= 1
  apart = np.abs(drawn[1] - images).mean((1, 2, 3))
  assert (apart < 20).all(), apart


# --- What the compiler makes of it


def lowered(**overrides):
  """-> (Program, its step as the compiler is given it) on eight devices."""
  layout = [overrides.pop(axis, 1) for axis in ('data', 'fsdp', 'tensor')]
  _, made = tiny(*layout, **overrides)
  return made, made.step.lower(made.state, made.batch)


@functools.cache
def compiled(**overrides):
  """-> (Program, its collectives, bytes of temporaries) on eight devices."""
  made, program = lowered(**overrides)
  done = program.compile()
  found = hlo.collectives(
    done.as_text(), devices=8, num_slices=overrides.get('num_slices', 1)
  )
  return made, found, done.memory_analysis().temp_size_in_bytes


def size_of(tree):
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_copies_reduce_their_gradients_once_and_gather_nothing():
  made, found, _ = compiled(data=8)
  sent = hlo.summary(found)
  params = size_of(made.state.params)
  assert set(sent) == {'all-reduce'}
  # What is more are the sums of the scalars.
  assert params <= sent['all-reduce']['payload_bytes'] < params + 512


def test_microbatches_are_reduced_together():
  made, found, _ = compiled(data=8, train__batch_size=32, train__accumulation=4)
  sent = hlo.summary(found)
  params = size_of(made.state.params)
  assert set(sent) == {'all-reduce'}
  assert params <= sent['all-reduce']['payload_bytes'] < params + 512


def test_a_split_state_gathers_its_parameters_and_no_activation():
  made, found, _ = compiled(fsdp=8, train__batch_size=128)
  split = [
    leaf.size * 4
    for leaf in jax.tree.leaves(made.state.params)
    if any(leaf.sharding.spec)
  ]
  sent = hlo.summary(found)
  assert set(sent) == {'all-gather', 'reduce-scatter', 'all-reduce'}
  # One gradient is reduced into its part for each parameter that is split;
  # gradients of the others are reduced whole, with the scalars.
  assert sent['reduce-scatter']['payload_bytes'] == sum(split)
  rest = size_of(made.state.params) - sum(split)
  assert rest <= sent['all-reduce']['payload_bytes'] < rest + 512
  gathered = [one.payload_bytes for one in found if one.kind == 'all-gather']
  assert max(gathered) <= max(split)
  assert sum(split) <= sum(gathered) <= 2 * sum(split)


def test_accumulation_needs_no_more_memory():
  """Each microbatch gathers layers and scatters gradients in the loop."""
  _, _, whole = compiled(fsdp=8, train__batch_size=128)
  _, found, parts = compiled(
    fsdp=8, train__batch_size=128, train__accumulation=4
  )
  assert parts <= whole
  assert {one.turns for one in found if one.kind != 'all-reduce'} == {4}


def test_only_parts_of_one_gradient_leave_a_slice():
  """Two slices of four devices, each of which splits the state in four."""
  small = {'model__multipliers': '(1,)', 'model__attention_resolutions': '()'}
  made, found, _ = compiled(data=2, fsdp=4, num_slices=2, **small)
  leaving = [one for one in found if one.slices > 1]
  assert {one.kind for one in leaving} == {'all-reduce'}
  inside = {one.kind for one in found if one.slices == 1}
  assert {'all-gather', 'reduce-scatter'} <= inside
  sent = hlo.summary(found)['all-reduce' + hlo.BETWEEN]
  part = size_of(made.state.params) / 4  # 1 / fsdp of the gradient
  # What is more are the sums of the scalars. A ring of two sends all once.
  assert part <= sent['payload_bytes'] < part + 512
  assert sent['wire_bytes'] == sent['payload_bytes']


def test_sampling_gathers_layers_again_in_every_step():
  c, _ = tiny(1, 8, 1)
  planned = lowering.sample_step(c, jax.devices(), batch_size=8)
  text = planned.lowered.compile().as_text()
  gathered = hlo.collectives(text, devices=8)
  assert planned.turns > 1
  assert {one.kind for one in gathered} == {'all-gather'}
  assert {one.turns for one in gathered} == {planned.turns}


@pytest.mark.parametrize(
  ('axes', 'accumulation'),
  [((8, 1, 1), 1), ((2, 2, 2), 1), ((2, 2, 2), 2)],
)
def test_a_network_knows_the_mesh_that_it_is_trained_and_drawn_on(
  monkeypatch, axes, accumulation
):
  """By it attention finds the kernel of its devices, and splits it."""
  known = []

  def kernel_for(q):
    mesh = jax.sharding.get_abstract_mesh()
    known.append(not mesh.empty and mesh.abstract_device.platform == 'cpu')

  monkeypatch.setattr(attention_kernels, 'kernel_for', kernel_for)
  given = {'model.attention': 'fused', 'train.accumulation': accumulation}
  c, made = tiny(*axes, **given)
  known.clear()
  made.step.lower(made.state, made.batch)
  assert known and all(known)
  known.clear()  # The FLOPs of a planned sampler are counted without a mesh.
  lowering.sample_step(c, jax.devices(), batch_size=8)
  assert any(known)


GATHER = re.compile(r'stablehlo\.all_gather"[^\n]*-> tensor<([\dx]+)x(\w+)>')
SCATTER = re.compile(
  r'stablehlo\.reduce_scatter"(?s:.*?)-> tensor<[\dx]+x(\w+)>'
)


def test_kernels_are_gathered_in_the_dtype_of_computation():
  """Embeddings and the last layer in float32; all gradients in float32.

  This is what the compiler is given. A CPU has no collectives in bfloat16, so
  its compiler makes them float32.
  """
  overrides = dict(fsdp=8, model__dtype='bfloat16', model__features=8)
  made, program = lowered(**overrides)
  split = [
    (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(made.state.params)
    if any(leaf.sharding.spec)
  ]
  expected = sorted(
    (
      'x'.join(map(str, leaf.shape)),
      'f32' if name.split('/')[0] in unet.FLOAT32 else 'bf16',
    )
    for name, leaf in split
  )
  text = program.as_text()
  assert sorted(GATHER.findall(text)) == expected
  assert {'bf16', 'f32'} == {dtype for _, dtype in expected}
  assert SCATTER.findall(text) == ['f32'] * len(split)
  _, program = lowered(**overrides, model__remat='full')
  again = GATHER.findall(program.as_text())
  in_blocks = sum('block' in name or 'attention' in name for name, _ in split)
  assert len(again) == len(split) + in_blocks
