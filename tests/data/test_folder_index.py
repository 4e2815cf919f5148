"""A long list of pictures is kept, and used while the folder is the same."""

import gzip
import os
import pathlib

import pytest

from cdm.config import datasets
from cdm.data import folder, folder_index, picture_files
from cdm.distributed import collectives

HOUR_AGO = 1_700_000_000


@pytest.fixture
def pictures(tmp_path, monkeypatch):
  """Six files in two folders, all left alone for long."""
  monkeypatch.setattr(folder_index, 'LEAST_FILES', 5)
  root = tmp_path / 'pictures'
  for name in (
    'a/0.png',
    'a/1.png',
    'a/2.png',
    'b/3.png',
    'b/4.png',
    'b/5.png',
  ):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'')
  (root / 'b' / 'notes.txt').write_bytes(b'')
  settle(root)
  return root


def settle(root):
  for path in (root / 'a', root / 'b', root):
    os.utime(path, (HOUR_AGO, HOUR_AGO))


@pytest.fixture
def walks(monkeypatch):
  """-> the folders that are read, in turn."""
  seen, entries = [], picture_files._entries

  def count(path):
    seen.append(os.path.basename(path))
    return entries(path)

  monkeypatch.setattr(picture_files, '_entries', count)
  return seen


def kept(root, walks):
  """Lists twice, after which the list is kept; -> that list."""
  folder_index.list_pictures(root)
  settle(root)
  listing, _ = folder_index.list_pictures(root)
  walks.clear()
  return listing


def test_a_second_start_reads_no_folder(pictures, walks):
  listing = kept(pictures, walks)
  assert folder_index.list_pictures(pictures)[0] == listing
  assert walks == []
  assert listing == picture_files.list_pictures(pictures)
  assert len(listing.files) == 6 and listing.left_out == {'.txt': 1}
  assert folder.Folder(pictures).class_names == ('a', 'b')


@pytest.mark.parametrize('where', ['', 'a', 'b'])
@pytest.mark.parametrize('what', ['new.png', 'new/deep.png'])
def test_a_file_that_came_is_seen(pictures, walks, where, what):
  before = kept(pictures, walks)
  path = pictures / where / what
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(b'')
  listing, _ = folder_index.list_pictures(pictures)
  assert set(listing.files) - set(before.files) == {
    path.relative_to(pictures).as_posix()
  }


def test_a_file_that_went_is_not_read_and_another_folder_neither(
  pictures, walks
):
  kept(pictures, walks)
  (pictures / 'a' / '1.png').unlink()
  assert len(folder_index.list_pictures(pictures)[0].files) == 5
  (pictures / 'b').rename(pictures / 'c')
  files = folder_index.list_pictures(pictures)[0].files
  assert files[-1] == 'c/5.png'


def test_a_folder_that_changed_while_it_was_read_is_read_again(pictures, walks):
  """Its time would not tell of a second change within the same tick."""
  kept(pictures, walks)
  (pictures / 'a' / 'new.png').write_bytes(b'')
  for _ in range(2):
    walks.clear()
    folder_index.list_pictures(pictures)
    assert walks == ['pictures', 'a', 'b']


@pytest.mark.parametrize(
  'damage',
  [
    lambda text: b'no gzip',
    lambda text: gzip.compress(text[:-1]),
    lambda text: gzip.compress(b'[]'),
    lambda text: gzip.compress(text.replace(b'a/0.png', b'../outside.png')),
    lambda text: gzip.compress(text.replace(b'a/0.png', b'/etc/a.png')),
  ],
)
def test_a_damaged_list_is_made_again(pictures, walks, damage):
  listing = kept(pictures, walks)
  path = pictures / folder_index.FOLDER / 'pictures.json.gz'
  path.write_bytes(damage(gzip.decompress(path.read_bytes())))
  assert folder_index.list_pictures(pictures)[0] == listing
  assert walks == ['pictures', 'a', 'b']


def test_a_small_folder_is_left_as_it_is(pictures, monkeypatch):
  monkeypatch.setattr(folder_index, 'LEAST_FILES', 7)
  listing, digest = folder_index.list_pictures(pictures)
  assert digest is None and len(listing.files) == 6
  assert sorted(os.listdir(pictures)) == ['a', 'b']


def refuse(*_, **__):
  raise PermissionError('read-only')


def test_the_list_of_a_read_only_folder_is_kept_elsewhere(
  pictures, walks, tmp_path, monkeypatch
):
  """Tests may run as root, whom permissions do not stop."""
  mkdir = pathlib.Path.mkdir

  def refused(path, *args, **kwargs):
    make = refuse if pictures in path.parents else mkdir
    return make(path, *args, **kwargs)

  monkeypatch.setattr(os, 'access', lambda path, mode: False)
  monkeypatch.setattr(pathlib.Path, 'mkdir', refused)
  places = folder_index.Places(elsewhere=lambda: tmp_path / 'cache')
  with folder_index.using(places):
    listing, _ = folder_index.list_pictures(pictures)
    walks.clear()
    assert folder_index.list_pictures(pictures)[0] == listing
  assert walks == []
  folder_index.list_pictures(pictures)  # without a place
  assert walks == ['pictures', 'a', 'b']


@pytest.mark.parametrize('settled', [True, False])
def test_of_a_run_one_process_walks_and_the_others_take_its_list(
  pictures, walks, tmp_path, monkeypatch, settled
):
  """Also where the times of folders tell nothing, as on a mounted bucket."""
  if not settled:
    for path in (pictures, pictures / 'a'):
      os.utime(path)
  section = {'kind': 'folder', 'path': str(pictures)}
  sent = []

  def gather(value):
    sent.append(value)
    return [sent[0]]

  monkeypatch.setattr(collectives, 'gather_objects', gather)
  monkeypatch.setattr(collectives, 'process_count', lambda: 3)
  sources = []
  for process in range(3):
    monkeypatch.setattr(collectives, 'is_first', lambda p=process: p == 0)
    sources.append(datasets.open_in_all(section, workdir=tmp_path / 'run'))
  assert walks == ['pictures', 'a', 'b']
  assert sources[0].files == sources[1].files == sources[2].files
  assert sources[0].listing_digest == sent[0] is not None
