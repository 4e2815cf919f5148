"""A run is refused where its checkpoints could get no name."""

import errno
import os

import pytest
from support import failing_disks

from cdm.checkpointing import folder_rename
from cdm.data.files import damaged_file
from cdm.distributed import bucket_folders


def test_a_folder_that_can_be_renamed_leaves_no_trace(tmp_path):
  folder_rename.check(tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_flat_bucket_is_refused_by_one_sentence(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'rename', failing_disks.rename_in_a_flat_bucket)
  with pytest.raises(ValueError, match='cannot rename a folder') as caught:
    folder_rename.check(tmp_path)
  said = str(caught.value)
  assert said.startswith(f'--workdir={tmp_path}: ')
  assert 'as gcsfuse has it in a bucket with flat namespace' in said
  # The command line would advise to raise the limit of open files.
  assert damaged_file.too_many_open(caught.value) is None
  assert '--workdir=gs://BUCKET/FOLDER' in said
  assert 'hierarchical namespace' in said
  assert '\n' not in said and said.count('. ') == 0 and said.endswith('.')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'code', [errno.ENOTSUP, errno.EPERM, errno.ENOSYS, errno.EXDEV]
)
def test_other_mounts_refuse_it_in_their_own_words(tmp_path, monkeypatch, code):
  def rename(source, target):
    raise OSError(code, os.strerror(code), source, None, target)

  monkeypatch.setattr(os, 'rename', rename)
  with pytest.raises(ValueError, match='cannot rename') as caught:
    folder_rename.check(tmp_path / 'new')
  assert os.strerror(code) in str(caught.value)
  assert not (tmp_path / 'new').exists()


def test_a_rename_that_loses_files_is_none(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'rename', lambda source, target: os.mkdir(target))
  with pytest.raises(ValueError, match='it lost what the folder held'):
    folder_rename.check(tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_storage_that_is_away_is_no_wrong_file_system(tmp_path, monkeypatch):
  def rename(source, target):
    raise OSError(errno.EIO, os.strerror(errno.EIO), source, None, target)

  monkeypatch.setattr(os, 'rename', rename)
  with pytest.raises(OSError, match='Input/output error'):
    folder_rename.check(tmp_path)


def test_what_a_killed_start_has_left_is_removed(tmp_path):
  (tmp_path / '.rename-check-0.aa-renamed/state').mkdir(parents=True)
  (tmp_path / 'checkpoints').mkdir()
  folder_rename.check(tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['checkpoints']


def test_nothing_is_renamed_in_a_bucket_itself(tmp_path, monkeypatch):
  monkeypatch.setattr(bucket_folders, '_mirrors', {tmp_path: 'gs://b/run'})
  monkeypatch.setattr(os, 'rename', failing_disks.rename_in_a_flat_bucket)
  folder_rename.check(tmp_path)


@pytest.mark.parametrize(
  ('table', 'below', 'url'),
  [
    ('lab-runs {} fuse.gcsfuse rw 0 0', 'a/b', 'gs://lab-runs/a/b'),
    ('lab-runs {} fuse.gcsfuse rw 0 0', '', 'gs://lab-runs'),
    # All buckets in one mount.
    ('gcsfuse {} fuse.gcsfuse rw 0 0', 'lab-runs/a', 'gs://lab-runs/a'),
    ('lab-runs {}/a\\040b fuse.gcsfuse rw 0 0', 'a b/c', 'gs://lab-runs/c'),
    # The innermost mount counts, and at one point the last.
    ('lab-runs {} fuse.gcsfuse rw 0 0\nnfs:/x {}/a nfs rw 0 0', 'a/b', None),
    (
      'lab {} fuse.gcsfuse rw 0 0\nruns {} fuse.gcsfuse 0 0',
      'a',
      'gs://runs/a',
    ),
    ('lab-runs {}/other fuse.gcsfuse rw 0 0', 'a', None),
    ('/dev/sda1 / ext4 rw 0 0\n\ntmpfs', 'a', None),
  ],
)
def test_the_bucket_of_a_mount_is_named(
  tmp_path, monkeypatch, table, below, url
):
  mounts = tmp_path / 'mounts'
  mounts.write_text(table.replace('{}', str(tmp_path)), encoding='utf-8')
  monkeypatch.setattr(folder_rename, '_MOUNTS', mounts)
  assert folder_rename.bucket_url(tmp_path / below) == url
  monkeypatch.setattr(folder_rename, '_MOUNTS', tmp_path / 'none')
  assert folder_rename.bucket_url(tmp_path / below) is None
