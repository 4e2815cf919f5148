"""Snapshots of averages on a disk and in a bucket, and what a kill leaves."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import gcs_server

from cdm.checkpointing import (
  background_save,
  checksums,
  model_check,
  reader,
  snapshot_reader,
  writer,
)
from cdm.checkpointing.snapshot_writer import SnapshotWriter
from cdm.data.files import damaged_file
from cdm.distributed import bucket_folders
from cdm.reporting import bucket_mirror

KEYS = ('std_0_05', 'std_0_1')


@pytest.fixture(params=['a disk', 'a bucket'])
def workdir(request, tmp_path):
  if request.param == 'a disk':
    yield tmp_path / 'run'
    return
  with gcs_server.used(tmp_path / 'cache'):
    yield bucket_folders.mirror('gs://bucket/run', written=True)


def opened(workdir, **options):
  options = {'every_steps': 3, 'num_steps': 10, 'dtype': 'float16'} | options
  return SnapshotWriter(workdir, keys=KEYS, config='{}', **options)


def averages(step):
  return {
    key: {'w': jnp.full((4, 3), step + n / 8)} for n, key in enumerate(KEYS)
  } | {'decay_0_9': {'w': jnp.zeros((4, 3))}}


def read(workdir, step, std, shape=(4, 3)):
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  struct = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
  return snapshot_reader.read(workdir, {'w': struct}, step=step, std=std)['w']


def test_they_are_written_checked_and_read_back(workdir):
  snapshots = opened(workdir)
  due = [step for step in range(11) if snapshots.is_due(step)]
  assert due == [3, 6, 9, 10]
  for step in due:
    snapshots.write(step, averages(step))
  snapshots.wait()
  assert snapshot_reader.steps(workdir) == due
  assert checksums.check(snapshot_reader.folder(workdir) / '6')
  assert snapshot_reader.contents(workdir, 6) == ([0.05, 0.1], 'float16')
  for std, value in ((0.05, 6.0), (0.1, 6.125)):
    found = read(workdir, 6, std)
    assert found.dtype == jnp.float16
    np.testing.assert_array_equal(found, np.full((4, 3), value))


def test_one_of_another_model_is_told_from_a_damaged_one(tmp_path):
  """What is damaged need not be an array, which Orbax would find."""
  snapshots = opened(tmp_path)
  snapshots.write(3, averages(3))
  snapshots.wait()
  told = r'w is \[4, 3\] in the checkpoint and \[4, 2\] here'
  with pytest.raises(model_check.ModelMismatch, match=told):
    read(tmp_path, 3, 0.05, shape=(4, 2))
  config = snapshot_reader.folder(tmp_path) / '3' / 'config' / 'metadata'
  config.write_bytes(config.read_bytes() + b' ')
  with pytest.raises(damaged_file.DamagedFile, match='config/metadata'):
    read(tmp_path, 3, 0.05)


def test_one_that_is_there_is_not_written_again_and_later_ones_go(workdir):
  snapshots = opened(workdir)
  for step in (3, 6, 9):
    snapshots.write(step, averages(step))
  snapshots.wait()
  again = opened(workdir)
  again.write(6, averages(0))
  again.wait()
  np.testing.assert_array_equal(read(workdir, 6, 0.05), np.full((4, 3), 6))
  again.forget_after(3)
  assert snapshot_reader.steps(workdir) == [3]
  again.write(6, averages(7))
  again.wait()
  np.testing.assert_array_equal(read(workdir, 6, 0.05), np.full((4, 3), 7))


def test_half_of_one_is_removed_at_the_next_start(workdir):
  snapshots = opened(workdir)
  for step in (3, 6):
    snapshots.write(step, averages(step))
  snapshots.wait()
  whole = snapshot_reader.folder(workdir) / '6'
  if bucket_folders.url_of(workdir):
    (whole / reader.COMMITTED).unlink()
    (whole / 'config' / 'metadata').unlink()
  else:
    whole.rename(whole.with_name('6.orbax-checkpoint-tmp-3'))
  assert snapshot_reader.steps(workdir) == [3]
  opened(workdir)
  left = [path.name for path in snapshot_reader.folder(workdir).iterdir()]
  assert left == ['3']


def test_a_checkpoint_is_complete_only_after_the_snapshots_before_it(
  tmp_path, monkeypatch
):
  """Else a run that continues from it would never make them."""
  snapshots = opened(tmp_path)
  real = background_save.BackgroundSave._complete
  asked, written = threading.Event(), threading.Event()

  def complete(self, known):
    if self._folder.name == snapshot_reader.FOLDER:
      assert written.wait(60)
    return real(self, known)

  def before_commit():
    asked.set()
    snapshots.finish_writing()

  monkeypatch.setattr(background_save.BackgroundSave, '_complete', complete)
  with writer.Checkpointer(
    tmp_path, config='{}', before_commit=before_commit
  ) as checkpointer:
    snapshots.write(3, averages(3))
    checkpointer.save(3, averages(3), data_state=None)
    assert asked.wait(60)
    time.sleep(0.3)  # If it does not wait, it is complete by then.
    assert reader.complete_steps(tmp_path) == []
    written.set()
    checkpointer.wait()
    assert snapshot_reader.steps(tmp_path) == [3]
  assert reader.complete_steps(tmp_path) == [3]


def test_the_mirror_of_a_bucket_leaves_them_out():
  assert snapshot_reader.FOLDER in bucket_mirror.DIRECT


def test_two_kinds_of_saves_overlap_without_mixing(tmp_path):
  """Their threads run at once, and each is numbered by its own folder."""
  snapshots = opened(tmp_path, every_steps=1)
  with writer.Checkpointer(tmp_path, config='{}', keep=9) as checkpointer:
    for step in range(1, 7):
      snapshots.write(step, averages(step))
      state = {'ema_params': averages(step)}
      checkpointer.save(step, state, data_state=None)
  snapshots.wait()
  for step in range(1, 7):
    np.testing.assert_array_equal(
      read(tmp_path, step, 0.1), np.full((4, 3), step + 0.125)
    )
  assert reader.complete_steps(tmp_path) == [1, 2, 3, 4, 5, 6]
