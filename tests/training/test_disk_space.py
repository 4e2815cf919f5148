"""Before it trains, a run tells whether its checkpoints will fit."""

import collections

import jax
import jax.numpy as jnp
import pytest
from support import tiny_run

from cdm.training import disk_space, run_config

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


def test_a_complete_run_needs_no_space(tmp_path, free):
  free(0)
  steps = [80, 90, 100]
  assert disk_space.shortage(tmp_path, STATE, schedule(), steps) is None


def test_the_estimate_is_the_size_of_a_checkpoint(tmp_path):
  run = tiny_run.Run(tmp_path)
  outcome = run.train(2)
  step = tmp_path / 'checkpoints' / '2'
  size = sum(p.stat().st_size for p in step.rglob('*') if p.is_file())
  estimate = disk_space.checkpoint_bytes(outcome.state)
  # Of so small a state, names and metadata are the most: under JAX 0.12
  # they take 81 kB, under 0.10 less than 60.
  assert estimate < size < estimate + 120_000
