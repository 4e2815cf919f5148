"""Before it trains, a run tells whether its checkpoints will fit."""

import collections

import jax
import jax.numpy as jnp
import pytest
from support import tiny_run

from cdm.checkpointing import writer
from cdm.training import (
  averaged_state,
  disk_space,
  ema_section,
  run_config,
)
from cdm.training import state as train_state

STATE = {'params': jax.ShapeDtypeStruct((1000, 250), jnp.float32)}  # 1 MB
Usage = collections.namedtuple('Usage', 'total used free')


@pytest.fixture
def free(monkeypatch):
  def arrange(megabytes):
    usage = Usage(10**12, 0, int(megabytes * 1e6))
    monkeypatch.setattr(disk_space.shutil, 'disk_usage', lambda _: usage)

  return arrange


def schedule(**fields):
  fields = {'num_steps': 100, 'save_every_steps': 10} | fields
  return run_config.Run(batch_size=8, log_every_steps=1, **fields)


@pytest.mark.parametrize(
  ('fields', 'steps', 'needed'),
  [
    ({}, [], 4),  # Three are kept, and one more while it is written.
    ({}, [10, 20], 2),
    ({}, [10, 20, 30, 40], 1),  # The next is complete before the oldest goes.
    ({}, [80, 90], 1),  # Only one more is saved.
    ({'keep_checkpoints': 1}, [], 2),
    ({'keep_every_steps': 20}, [], 9),
    ({'num_steps': 10}, [], 1),
    ({'num_steps': 10, 'save_every_minutes': 5.0}, [], 4),
  ],
)
def test_the_space_is_that_of_all_checkpoints_to_come(
  tmp_path, free, fields, steps, needed
):
  free(needed)
  assert disk_space.shortage(tmp_path, STATE, schedule(**fields), steps) is None
  free(needed - 0.1)
  text = disk_space.shortage(tmp_path, STATE, schedule(**fields), steps)
  assert text.startswith(f'warning: {needed} more checkpoints of about 1 MB')
  assert 'config.train.keep_checkpoints' in text


def test_the_best_checkpoint_needs_space_too(tmp_path, free):
  free(4.5)
  given = (tmp_path, STATE, schedule(), [])
  assert disk_space.shortage(*given) is None
  text = disk_space.shortage(*given, keeps_best=True)
  assert text.startswith('warning: 5 more checkpoints')


def test_snapshots_are_all_kept_and_need_space_too(tmp_path, free):
  """One of two averages in float16 is as large as one in float32."""
  params = STATE['params']
  state = averaged_state.add(
    train_state.TrainState(None, params, params, None, None),
    {'std_0_05': params, 'std_0_1': params, 'decay_0_9': params},
  )
  snapshots = ema_section.Snapshots(8, 'float16', ('std_0_05', 'std_0_1'))
  given = (tmp_path, state, schedule(keep_checkpoints=1), [80, 90])
  free(5 + 2)  # a checkpoint of five copies, and two snapshots
  assert disk_space.shortage(*given, snapshots=snapshots) is None
  free(6.9)
  text = disk_space.shortage(*given, snapshots=snapshots)
  assert '1 more checkpoints of about 5 MB' in text
  assert 'and 2 more snapshots of 1 MB, 7 MB in all, and 6.9 MB are fr' in text
  assert 'raise config.ema.snapshot_every_steps' in text


def test_a_complete_run_needs_no_space(tmp_path, free):
  free(0)
  steps = [80, 90, 100]
  assert disk_space.shortage(tmp_path, STATE, schedule(), steps) is None


def test_the_estimate_is_the_size_of_a_checkpoint(tmp_path):
  """Of 4 MB of random bits, which cannot be compressed."""

  def random_bits(leaf):
    if jnp.shape(leaf) != (512, 512):
      return leaf
    bits = jax.random.bits(jax.random.key(1), leaf.shape)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)

  state = tiny_run.init_state(
    lambda key: {'w': jnp.zeros((512, 512))},
    tiny_run.adam(),
    key=jax.random.key(0),
    mesh=tiny_run.mesh(1),
  )
  state = jax.tree.map(random_bits, state)
  with writer.Checkpointer(tmp_path, config=tiny_run.CONFIG) as saver:
    saver.save(1, state, data_state={}, window={})
  step = tmp_path / 'checkpoints' / '1'
  size = sum(p.stat().st_size for p in step.rglob('*') if p.is_file())
  estimate = disk_space.checkpoint_bytes(state)
  assert estimate >= 4 * 4 * 512**2
  assert estimate < size < estimate + 60_000


@pytest.mark.parametrize(
  ('count', 'text'),
  [
    (0, '0 bytes'),
    (999, '999 bytes'),
    (1000, '1 kB'),
    (1e6, '1 MB'),
    (2.346e8, '235 MB'),
    (1e9, '1 GB'),
    (4.56e12, '4.56e+03 GB'),
  ],
)
def test_bytes_are_told_in_the_largest_unit_that_leaves_one(count, text):
  assert disk_space._bytes(count) == text
