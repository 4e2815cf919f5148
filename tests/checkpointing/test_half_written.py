"""In a bucket a checkpoint is complete when it is committed, as on a disk."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import gcs_server

from cdm.checkpointing import checksums, reader, verification, writer
from cdm.data.files import damaged_file
from cdm.distributed import bucket_folders

URL = 'gs://bucket/run'


@pytest.fixture
def cloud(tmp_path):
  with gcs_server.used(tmp_path / 'cache') as server:
    yield server


@pytest.fixture(params=['a disk', 'a bucket'])
def workdir(request, tmp_path):
  if request.param == 'a bucket':
    request.getfixturevalue('cloud')
    return bucket_folders.mirror(URL, written=True)
  return tmp_path / 'run'


def state(step):
  return {'ema_params': {'w': jnp.full((4, 3), float(step))}}


def abstract():
  return jax.eval_shape(lambda: state(0))


def save(workdir, *steps, **options):
  """Saves checkpoints; -> the steps that are kept."""
  with writer.Checkpointer(workdir, config='{}', **options) as checkpointer:
    for step in steps:
      checkpointer.save(step, state(step), data_state={'next': step})
    checkpointer.wait()
    return checkpointer.steps()


def test_checkpoints_are_kept_verified_and_read_back(workdir):
  committing = []
  steps = save(
    workdir,
    *(1, 2, 3),
    keep=2,
    before_commit=lambda: committing.append(reader.complete_steps(workdir)),
  )
  assert steps == reader.complete_steps(workdir) == [2, 3]
  # None counted as complete when it was about to.
  assert [step for step, done in enumerate(committing, 1) if step in done] == []
  assert reader.read_config(workdir) == '{}'
  assert verification.verify(reader.folder(workdir) / '3')
  with writer.Checkpointer(workdir) as checkpointer:
    restored = checkpointer.restore_latest(abstract())
    checkpointer.keep_best({'step': 2, 'metric': 'm', 'value': 1.0})
  assert (restored.step, restored.data_state) == (3, {'next': 3})
  np.testing.assert_array_equal(restored.state['ema_params']['w'], 3.0)
  assert reader.resolve(workdir, 'best') == 2


def test_a_damaged_checkpoint_is_set_aside(workdir, caplog):
  save(workdir, 1, 2)
  (reader.folder(workdir) / '2' / 'config' / 'metadata').write_text(
    '{', encoding='utf-8'
  )
  with pytest.raises(
    damaged_file.DamagedFile, match='2 is damaged: config/meta'
  ):
    reader.read_config(workdir, step=2)
  with writer.Checkpointer(workdir) as checkpointer:
    assert checkpointer.restore_latest(abstract()).step == 1
    assert checkpointer.steps() == [1]
  assert 'was moved to' in caplog.text
  damaged = bucket_folders.storage(workdir) / writer.DAMAGED / '2'
  assert (damaged / checksums.FILE).exists()


def test_half_of_a_checkpoint_in_a_bucket_is_removed(cloud, caplog):
  workdir = bucket_folders.mirror(URL, written=True)
  save(workdir, 1)
  cloud.put('bucket', 'run/checkpoints/2/state/d/x', b'half')
  assert reader.complete_steps(workdir) == [1]
  assert save(workdir) == [1]
  assert not cloud.names('bucket', 'run/checkpoints/2')
  assert 'checkpoints/2: the run was killed' in caplog.text


def test_a_checkpoint_copied_from_a_disk_is_whole(cloud, tmp_path):
  """And one copied to a disk too."""
  save(tmp_path / 'run', 1)
  folder = tmp_path / 'run' / reader.CHECKPOINTS
  for path in folder.rglob('*'):
    if path.is_file():
      name = path.relative_to(tmp_path).as_posix()
      cloud.put('bucket', name, path.read_bytes())
  workdir = bucket_folders.mirror(URL, written=True)
  assert save(workdir) == [1]
  restored, _ = reader.restore_ema(workdir, abstract()['ema_params'])
  np.testing.assert_array_equal(restored['w'], 1.0)
  shutil.rmtree(folder)
  for name in cloud.names('bucket', 'run/checkpoints'):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cloud.read('bucket', name))
  restored, _ = reader.restore_ema(tmp_path / 'run', abstract()['ema_params'])
  np.testing.assert_array_equal(restored['w'], 1.0)


def test_a_bucket_that_fails_a_save_is_one_sentence(cloud):
  workdir = bucket_folders.mirror(URL, written=True)
  cloud.buckets.remove('bucket')
  try:
    with pytest.raises(OSError, match=f'Cannot write .* in {URL}: .*network,'):
      save(workdir, 1)
  finally:
    cloud.buckets.add('bucket')
