"""Several averages of the parameters beside the main one; their snapshots."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run

from cdm.checkpointing import (
  background_save,
  model_check,
  reader,
  snapshot_reader,
)
from cdm.checkpointing.snapshot_writer import SnapshotWriter
from cdm.data.files import damaged_file
from cdm.ops import power_function
from cdm.training import (
  collaborators,
  ema,
  ema_section,
  optimizer,
)
from cdm.training import state as train_state
from cdm.training import step as train_step

WIDE, NARROW, FAST = 'std_0_1', 'std_0_05', 'decay_0_5'
AVERAGES = {
  NARROW: ema.PowerFunction(power_function.exponent(0.05)),
  WIDE: ema.PowerFunction(power_function.exponent(0.1)),
  FAST: ema.Exponential(0.5, False),
}
RULES = (('kernel$', (None, 'fsdp')),)


@functools.cache
def step(shape=(8, 1, 1), accumulation=1, rules=(), loss=tiny_run.loss):
  mesh = tiny_run.mesh(*shape)
  abstract = tiny_run.abstract_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(0),
    mesh=mesh,
    rules=rules,
    averages=[*AVERAGES],
  )
  return train_step.make_step(
    loss,
    tiny_run.adam(),
    mesh=mesh,
    ema_decay=0.99,
    averages=AVERAGES,
    accumulation=accumulation,
    shardings=train_state.shardings_of(abstract),
  )


def states(
  shape=(8, 1, 1), accumulation=1, rules=(), count=6, loss=tiny_run.loss
):
  """-> the states after 0, ..., count steps, in the host's memory."""
  mesh = tiny_run.mesh(*shape)
  state = tiny_run.init_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(0),
    mesh=mesh,
    rules=rules,
    averages=[*AVERAGES],
  )
  made = []
  for n in range(count + 1):
    made.append(jax.tree.map(np.asarray, state.replace(key=None)))
    if n < count:
      batch = tiny_run.batch_at(n)
      state, _ = step(shape, accumulation, rules, loss)(
        state,
        jax.device_put(
          batch,
          jax.sharding.NamedSharding(
            mesh, jax.sharding.PartitionSpec(('data', 'fsdp'))
          ),
        ),
      )
  return made, state


@pytest.fixture(scope='module')
def whole():
  return states()[0]


def test_each_average_is_the_formula_over_the_parameters(whole):
  start = whole[0].params['up']['kernel'].astype(np.float64)
  expected = {key: start for key in AVERAGES}
  for n, state in enumerate(whole[1:]):
    params = state.params['up']['kernel'].astype(np.float64)
    for key, average in AVERAGES.items():
      share = 0.5
      if key != FAST:
        share = power_function.beta(n + 1, average.exponent)
      expected[key] = share * expected[key] + (1 - share) * params
      np.testing.assert_allclose(
        state.averages[key]['up']['kernel'], expected[key], atol=2e-7
      )
  # What was there before the first step is forgotten by it.
  np.testing.assert_allclose(
    whole[1].averages[WIDE]['up']['kernel'],
    whole[1].params['up']['kernel'],
    atol=1e-7,
  )


def test_they_change_nothing_else(whole):
  mesh = tiny_run.mesh()
  state = tiny_run.init_state(
    tiny_run.init, tiny_run.adam(), key=jax.random.key(0), mesh=mesh
  )
  assert not hasattr(state, 'averages')
  place = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec(('data', 'fsdp'))
  )
  for n in range(6):
    batch = jax.device_put(tiny_run.batch_at(n), place)
    state, _ = tiny_run.step()(state, batch)
  for field in ('params', 'ema_params', 'opt_state'):
    tiny_run.assert_same(getattr(state, field), getattr(whole[6], field))


def test_they_are_split_as_the_parameters_are():
  expected, _ = states(count=4, loss=tiny_run.noiseless)
  made, last = states((2, 4, 1), 2, RULES, count=4, loss=tiny_run.noiseless)
  kernel = last.averages[WIDE]['down']['kernel']
  assert kernel.sharding == last.ema_params['down']['kernel'].sharding
  assert kernel.addressable_shards[0].data.shape == (48, 2)
  tiny_run.assert_same(made[4].averages, expected[4].averages, atol=2e-6)


def test_the_rate_is_exact_late_in_a_run():
  """1 - beta as a difference of float32 would be off by a part in 500."""
  gamma = power_function.exponent(0.05)
  average = ema.PowerFunction(gamma)
  for t in (2, 1000, 524_288, 2_000_000):
    moved = average.update(jnp.zeros(1), jnp.ones(1), t - 1)
    exact = -np.expm1((gamma + 1) * np.log1p(-1 / t))
    np.testing.assert_allclose(moved, [exact], rtol=2e-6)
  first = average.update(jnp.full(1, 7.0), jnp.full(1, 3.0), 0)
  assert float(first[0]) == 3.0


def test_a_step_that_is_not_finite_leaves_every_average():
  tx = optimizer.make_optimizer(
    optimizer.AdamOptions(learning_rate=1e-2, skip_nonfinite=2)
  )
  mesh = tiny_run.mesh(1)

  def init(key):
    return {'w': jnp.ones(3)}

  def loss(params, batch, *, key, train):
    return (batch['x'] * params['w'][None] ** 2).mean(axis=1), {}

  run = train_step.make_step(
    loss, tx, mesh=mesh, ema_decay=0.9, averages=AVERAGES
  )
  state = tiny_run.init_state(
    init, tx, key=jax.random.key(0), mesh=mesh, averages=[*AVERAGES]
  )
  kept = []
  for x in (1.0, np.nan, 1.0):
    state, _ = run(state, {'x': np.full((4, 3), x, np.float32)})
    kept.append(jax.tree.map(np.asarray, state.averages))
  tiny_run.assert_same(kept[0], kept[1])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept[2]))
  assert (kept[2][FAST]['w'] != kept[1][FAST]['w']).all()
  assert int(state.step) == 3


def test_devices_compare_them_too(whole):
  assert [*collaborators.compared_part(whole[0])] == [
    'step', 'params', 'ema_params', 'averages'
  ]  # fmt: skip


# Saved and continued.


class Run(tiny_run.Run):
  """A run with the averages above and snapshots at every second step."""

  def __init__(self, workdir, **options):
    super().__init__(workdir, averages=[*AVERAGES], **options)

  def train(self, num_steps, **options):
    writer = SnapshotWriter(
      self.workdir,
      every_steps=2,
      num_steps=num_steps,
      keys=[NARROW, WIDE],
      dtype='float16',
      config=tiny_run.CONFIG,
    )
    given = {'step_fn': step(), 'snapshots': writer, 'save_every': 3} | options
    return super().train(num_steps, **given)


def snapshot(workdir, at, std):
  abstract = jax.eval_shape(tiny_run.init, jax.random.key(0))
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), abstract
  )
  return snapshot_reader.read(workdir, abstract, step=at, std=std)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  return workdir, Run(workdir, keep=9).train(7).state


def test_a_snapshot_holds_the_averages_of_its_step(run, whole):
  workdir, _ = run
  assert snapshot_reader.steps(workdir) == [2, 4, 6, 7]
  for at in (2, 6):
    for std, key in ((0.05, NARROW), (0.1, WIDE)):
      expected = jax.tree.map(
        lambda x: x.astype(np.float16), whole[at].averages[key]
      )
      tiny_run.assert_same(snapshot(workdir, at, std), expected)
  assert snapshot_reader.contents(workdir, 4) == ([0.05, 0.1], 'float16')
  assert snapshot_reader.read_config(workdir, 4) == tiny_run.CONFIG


def test_a_checkpoint_holds_every_average_and_gives_any(run, whole):
  workdir, state = run
  path = reader.folder(workdir) / '6'
  names = ['decay=0.5', 'std=0.05', 'std=0.1']
  assert reader.averages(path) == names
  abstract = jax.eval_shape(tiny_run.init, jax.random.key(0))
  for name, key in zip(names, (FAST, NARROW, WIDE), strict=True):
    read, _ = reader.restore_ema(workdir, abstract, step=6, average=name)
    tiny_run.assert_same(read, whole[6].averages[key])
  read, _ = reader.restore_ema(workdir, abstract, step=6)
  tiny_run.assert_same(read, whole[6].ema_params)
  with pytest.raises(ValueError, match='main, decay=0.5, std=0.05, std=0.1; g'):
    reader.restore_ema(workdir, abstract, step=6, average='std=0.2')


def test_a_run_that_was_killed_ends_the_same_with_the_same_snapshots(
  run, tmp_path
):
  workdir, state = run
  killed = tmp_path / 'run'
  Run(killed).train(5)
  # The checkpoint of step 5 never came to be, but the snapshot of step 4, and
  # that of step 5 as the last, did; another was half-written.
  shutil.rmtree(killed / 'checkpoints' / '5')
  half = killed / 'ema_snapshots' / '6.orbax-checkpoint-tmp-0'
  half.mkdir()
  assert snapshot_reader.steps(killed) == [2, 4, 5]
  ended = Run(killed).train(7).state
  tiny_run.assert_same(ended, state)
  assert snapshot_reader.steps(killed) == [2, 4, 6, 7]
  assert not half.exists()
  for at in (2, 4, 6, 7):
    for std in (0.05, 0.1):
      mine, other = (
        snapshot(at=at, std=std, workdir=w) for w in (killed, workdir)
      )
      tiny_run.assert_same(mine, other)


def test_a_snapshot_that_a_kill_took_is_made_from_the_checkpoint(run, tmp_path):
  workdir, _ = run
  killed = tmp_path / 'run'
  shutil.copytree(workdir, killed)
  shutil.rmtree(killed / 'checkpoints' / '7')
  shutil.rmtree(killed / 'ema_snapshots' / '6')
  Run(killed).train(7)
  tiny_run.assert_same(snapshot(killed, 6, 0.1), snapshot(workdir, 6, 0.1))


def test_a_rollback_makes_the_snapshots_after_it_once_more(tmp_path, whole):
  spoilt = []

  def diverge(state, batch):
    state, scalars = step()(state, batch)
    if int(state.step) == 5 and not spoilt:
      spoilt.append(5)
      scalars = scalars | {'loss': jnp.float32(np.nan)}
    return state, scalars

  Run(tmp_path).train(6, step_fn=diverge, rollbacks=1, log_every=1)
  assert spoilt and snapshot_reader.steps(tmp_path) == [2, 4, 6]
  before = jax.tree.map(lambda x: x.astype(np.float16), whole[4].averages[WIDE])
  # Step 4 was made again with the data after the batch of step 5.
  again = snapshot(tmp_path, 4, 0.1)['up']['kernel']
  assert (np.asarray(again) != before['up']['kernel']).any()


def test_other_averages_than_those_so_far_are_refused(run):
  workdir, _ = run
  for mine, asked in (([], 'no average'), ([WIDE], 'asks for std=0.1')):
    other = tiny_run.Run(workdir)
    other.averages = mine
    with pytest.raises(model_check.ModelMismatch, match=asked) as caught:
      other.train(8)
    assert 'keeps decay=0.5, std=0.05, std=0.1 beside' in str(caught.value)


def test_a_run_without_averages_cannot_begin_them_later(tmp_path):
  tiny_run.Run(tmp_path).train(2)
  assert reader.averages(reader.folder(tmp_path) / '2') == []
  with pytest.raises(model_check.ModelMismatch, match='keeps no average besid'):
    Run(tmp_path).train(4)


def test_a_snapshot_that_cannot_be_written_ends_no_run(
  tmp_path, caplog, monkeypatch, run
):
  begin = background_save.state_arrays.begin_to_write

  class Full:
    def result(self, timeout):
      raise OSError(28, 'No space left on device')

  def write(path, state):
    return [Full()] if 'ema_snapshots' in str(path) else begin(path, state)

  monkeypatch.setattr(background_save.state_arrays, 'begin_to_write', write)
  ended = Run(tmp_path).train(7)
  assert ended.step == 7 and snapshot_reader.steps(tmp_path) == []
  tiny_run.assert_same(ended.state, run[1])
  assert 'averages of step 2 could not be written' in caplog.text


def test_a_damaged_snapshot_is_named(run, tmp_path):
  workdir, _ = run
  damaged = tmp_path / 'run'
  shutil.copytree(workdir, damaged)
  for file in (damaged / 'ema_snapshots' / '4').rglob('d/*'):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
  with pytest.raises(
    damaged_file.DamagedFile, match='ema_snapshots/4 is damag'
  ):
    snapshot(damaged, 4, 0.1)


# The section of a config.


def read(**section):
  section = {'decay': 0.9999} | section
  return ema_section.read_tracks(section, batch_size=512)


def test_tracks_are_decays_or_half_lives():
  found = read(tracks=('decay=0.999', 'half_life_images=5e5'), warmup=False)
  assert found == {
    'decay_0_999': ema.Exponential(0.999, False),
    'half_life_images_500000': ema.Exponential(0.5 ** (512 / 5e5), False),
  }


def test_widths_become_exponents():
  found = read(power_stds=(0.05, 0.10))
  assert [*found] == [NARROW, WIDE]
  assert found[WIDE].exponent == pytest.approx(6.937203937601809, rel=1e-9)


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({'tracks': ('0.9999x',)}, "tracks: '0.9999x' names no average; give "),
    ({'tracks': ('beta=0.9',)}, "tracks: 'beta=0.9' names no average"),
    ({'tracks': ('0.05',)}, 'a width; widths belong into --config.ema.power'),
    ({'tracks': ('decay=1.0',)}, "has 'decay=1.0'; a decay must be above 0"),
    ({'tracks': ('half_life_images=-1',)}, 'and a half-life above 0'),
    ({'power_stds': (0.3,)}, 'power_stds: the width 0.3 of an average must be'),
    ({'power_stds': (0.1, 0.10)}, 'name each average once'),
  ],
)
def test_what_is_no_average_is_refused(section, message):
  with pytest.raises(ValueError, match=message):
    read(**section)


@pytest.mark.parametrize(
  ('section', 'message'),
  [
    ({'snapshot_every_steps': 5}, 'so there is nothing to write'),
    ({'snapshot_every_steps': -1}, 'must be at least 0'),
    ({'snapshot_dtype': 'bfloat16'}, 'known are float16, float32'),
  ],
)
def test_snapshots_that_cannot_be_are_refused(section, message):
  with pytest.raises(ValueError, match=message):
    ema_section.read_snapshots({'decay': 0.9, **section})
  assert ema_section.read_snapshots({'decay': 0.9}) is None
