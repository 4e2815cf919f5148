"""Local copies continue a run that died, or are left alone."""

import logging
import os

import jax
import numpy as np
import pytest
from support import small_disks, tiny_run

from cdm.checkpointing import local_copies, reader, stored_format, writer


class Killed(BaseException):
  """Stands for the death of the process: nothing handles it."""


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  run = tiny_run.Run(tmp_path_factory.mktemp('uninterrupted'))
  return run, run.train(8, log_every=1, save_every=4)


def dying_at(step):
  """Returns the training step of a run that dies in place of this step."""
  count = iter(range(1, 100))

  def train(state, batch):
    if next(count) == step:
      raise Killed
    return tiny_run.step()(state, batch)

  return train


def trained(workdir, copies, steps=8, *, dies_in=None, log_every=1, **more):
  """Trains, or dies in the given step of this start. Returns the Run."""
  run = tiny_run.Run(workdir)
  step_fn = dying_at(dies_in) if dies_in else None
  run.outcome = run.train(
    steps,
    step_fn=step_fn,
    log_every=log_every,
    save_every=4,
    copies=copies,
    **more,
  )
  return run


def died(workdir, copies, *, dies_in, **more):
  """A run that died; what it was writing is complete."""
  with pytest.raises(Killed):
    trained(workdir, copies, dies_in=dies_in, **more)


def steps_of(copies):
  return sorted({int(p.name.split('-')[0]) for p in copies.rglob('*.npz')})


def test_a_run_that_died_continues_from_its_copy_and_ends_the_same(
  tmp_path, uninterrupted
):
  """It dies in step 7; the checkpoint is of step 4, the copy of step 6."""
  whole, expected = uninterrupted
  workdir, copies = tmp_path / 'run', tmp_path / 'local'
  died(workdir, copies, dies_in=7)
  assert reader.complete_steps(workdir) == [4]
  assert steps_of(copies) == [5, 6]
  again = trained(workdir, copies)
  assert again.batches.given[0] == 6  # the batch of step 7
  tiny_run.assert_same(again.outcome.state, expected.state)
  assert again.record() == whole.record()
  # What only the local disk had was saved, and a run that is complete has none.
  assert reader.complete_steps(workdir) == [4, 6, 8]
  assert steps_of(copies) == []


def test_a_copy_is_restored_to_the_places_of_the_arrays(tmp_path):
  """Split arrays come back part by part, the key as a key."""
  mesh, key = tiny_run.mesh(2, 4), jax.random.key(3)
  make = dict(key=key, mesh=mesh, rules=tiny_run.RULES)
  state = tiny_run.init_state(tiny_run.init, tiny_run.adam(), **make)
  copies = local_copies.LocalCopies(tmp_path / 'local', tmp_path / 'run')
  copies.write(3, state, data_state={'next': 3}, window={'a': [1.5]})
  copies.wait()
  abstract = tiny_run.abstract_state(tiny_run.init, tiny_run.adam(), **make)
  found = copies.restore_newer(abstract, than=None)
  tiny_run.assert_same(found.state, state)
  assert jax.tree.map(lambda x: x.sharding, found.state) == jax.tree.map(
    lambda x: x.sharding, state
  )
  assert (found.step, found.data_state) == (3, {'next': 3})
  assert found.window == {'a': [1.5]}
  # A part that several devices hold is written once.
  (file,) = tmp_path.rglob('*.npz')
  size = sum(leaf.size * leaf.dtype.itemsize for _, leaf in plain(state))
  assert size < file.stat().st_size < size + 40_000
  # Devices that need other parts than it has do not use it.
  other = tiny_run.abstract_state(
    *(tiny_run.init, tiny_run.adam()),
    key=key,
    mesh=tiny_run.mesh(4, 2),
    rules=tiny_run.RULES,
  )
  assert copies.restore_newer(other, than=None) is None


def plain(state):
  return tiny_run.as_numpy(state)


@pytest.fixture
def state():
  return tiny_run.init_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(0),
    mesh=tiny_run.mesh(8),
  )


def restored(copies, than=None):
  abstract = tiny_run.abstract_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(0),
    mesh=tiny_run.mesh(8),
  )
  found = copies.restore_newer(abstract, than=than)
  return None if found is None else found.step


def write(copies, state, *steps):
  for step in steps:
    copies.write(step, state, data_state={}, window={})
  copies.wait()


def test_copies_older_than_the_checkpoint_are_left_alone(tmp_path, state):
  copies = local_copies.LocalCopies(tmp_path / 'local', tmp_path / 'run')
  write(copies, state, 3, 5)
  assert restored(copies, than=5) is None
  assert restored(copies, than=4) == 5


@pytest.mark.parametrize('damage', ['cut off', 'one bit', 'empty', 'garbage'])
def test_a_damaged_copy_gives_way_to_the_one_before(
  tmp_path, state, damage, caplog
):
  copies = local_copies.LocalCopies(tmp_path / 'local', tmp_path / 'run')
  write(copies, state, 3, 5)
  (newest,) = tmp_path.rglob('5-*.npz')
  data = bytearray(newest.read_bytes())
  if damage == 'one bit':
    values = np.asarray(state.params['up']['kernel']).tobytes()
    data[data.index(values) + 100] ^= 1
  new = {'cut off': data[:-50], 'empty': b'', 'garbage': b'x' * 500}
  newest.write_bytes(new.get(damage, data))
  with caplog.at_level(logging.WARNING):
    assert restored(copies) == 3
  if damage == 'one bit':
    assert '5-0.npz is not used: BadZipFile: Bad CRC-32' in caplog.text


def test_a_copy_of_another_format_gives_way_to_the_checkpoint(
  tmp_path, state, monkeypatch
):
  copies = local_copies.LocalCopies(tmp_path / 'local', tmp_path / 'run')
  write(copies, state, 3)
  assert restored(copies) == 3
  monkeypatch.setattr(stored_format, 'FORMAT', stored_format.FORMAT + 1)
  assert restored(copies) is None


def test_another_run_in_the_same_place_has_other_copies(tmp_path, state):
  """The checkpoints were removed, and with them what identifies the run."""
  workdir = tmp_path / 'run'
  copies = local_copies.LocalCopies(tmp_path / 'local', workdir)
  write(copies, state, 3)
  same = local_copies.LocalCopies(tmp_path / 'local', workdir)
  assert restored(same) == 3
  os.rename(workdir, tmp_path / 'moved')
  moved = local_copies.LocalCopies(tmp_path / 'local', tmp_path / 'moved')
  new = local_copies.LocalCopies(tmp_path / 'local', workdir)
  assert restored(moved) is None and restored(new) is None


def test_a_copy_is_not_used_after_its_checkpoint_was_removed(tmp_path, state):
  """Whoever removes a checkpoint wants the run to go back."""
  workdir = tmp_path / 'run'
  with writer.Checkpointer(workdir) as saver:
    saver.save(2, state, data_state={})
    saver.save(4, state, data_state={})
    saver.wait()
    copies = local_copies.LocalCopies(tmp_path / 'local', workdir)
    write(copies, state, 5)
  assert restored(copies, than=4) == 5
  assert restored(copies, than=2) is None


def test_a_rollback_forgets_the_copies_of_the_steps_it_redoes(tmp_path, state):
  copies = local_copies.LocalCopies(tmp_path / 'local', tmp_path / 'run')
  write(copies, state, 3, 5)
  copies.forget_after(4)
  assert steps_of(tmp_path / 'local') == [3]


def test_a_full_local_disk_is_said_once_and_ends_nothing(
  tmp_path, state, caplog
):
  copies = local_copies.LocalCopies(tmp_path / 'local', tmp_path / 'run')
  write(copies, state, 2)
  with caplog.at_level(logging.WARNING), small_disks.files_of_at_most(1000):
    write(copies, state, 3, 5)
  assert caplog.text.count('No local copy of step') == 1
  assert 'config.train.local_copy_dir' in caplog.text
  assert steps_of(tmp_path / 'local') == [2]
  assert not list((tmp_path / 'local').rglob('*.partial'))
  assert restored(copies) == 2


def test_only_steps_that_all_hosts_can_restore_are_used(
  tmp_path, state, monkeypatch
):
  """The other host has steps 3 and 4, and cannot read that of 4."""
  copies = local_copies.LocalCopies(tmp_path / 'local', tmp_path / 'run')
  write(copies, state, 3)
  write(copies, state, 4)
  answers = iter([[3, 4, 5], False, True])

  def gather(mine):
    return [mine, next(answers)]

  monkeypatch.setattr(local_copies.collectives, 'gather_objects', gather)
  assert restored(copies) == 3
