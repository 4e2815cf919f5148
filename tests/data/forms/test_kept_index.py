"""The list of an archive's images is kept, and used while it is the same."""

import collections
import os
import pathlib

import numpy as np
import pytest

from cdm.data import folder_index
from cdm.data.forms import kept_index
from cdm.data.forms.kept_index import Records
from cdm.data.forms.packed_names import PackedNames

HOUR_AGO = 1_700_000_000


@pytest.fixture
def archive(tmp_path, monkeypatch):
  monkeypatch.setattr(kept_index, 'LEAST_RECORDS', 2)
  path = tmp_path / 'data' / 'set.tar'
  path.parent.mkdir()
  path.write_bytes(bytes(100))
  os.utime(path, (HOUR_AGO, HOUR_AGO))
  return path


scans = collections.Counter()


def read(path, kind='k'):
  """-> (the records, whether the archive was scanned)."""
  scanned = []

  def scan():
    scanned.append(path)
    return Records(
      PackedNames.of(['a', 'ü.png']),
      np.array([0, 50], np.int64),
      np.array([50, 50], np.int64),
      np.array([1, -1], np.int32),
      {'hidden': 2},
    )

  return kept_index.records_of(path, scan, kind=kind), bool(scanned)


def test_a_second_start_scans_nothing(archive):
  first, scanned = read(archive)
  again, scanned_again = read(archive)
  assert (scanned, scanned_again) == (True, False)
  assert list(again.names) == ['a', 'ü.png'] and again.left_out == {'hidden': 2}
  for kept, found in zip(again[1:4], first[1:4], strict=True):
    np.testing.assert_array_equal(kept, found)
  assert read(archive, 'other')[1]


def test_another_archive_in_its_place_is_scanned(archive):
  read(archive)
  archive.write_bytes(bytes(101))
  os.utime(archive, (HOUR_AGO, HOUR_AGO))
  assert read(archive)[1]
  os.utime(archive, (HOUR_AGO + 1, HOUR_AGO + 1))
  assert read(archive)[1]


def test_an_archive_that_was_just_written_is_scanned_again(archive):
  os.utime(archive)
  read(archive)
  assert read(archive)[1]


def kept(archive):
  return archive.parent / folder_index.FOLDER / 'set.tar.npz'


def rewritten(archive, **arrays):
  with np.load(kept(archive)) as file:
    np.savez(kept(archive), **(dict(file) | arrays))


@pytest.mark.parametrize(
  'arrays',
  [
    {'offsets': np.array([0, 51])},  # ends behind the end
    {'offsets': np.array([0, 2**63 - 1])},
    {'offsets': np.array([-1, 50])},
    {'sizes': np.array([50])},
    {'ends': np.array([9, 1])},
    {'ends': np.array([1, 99])},
    {'labels': np.array([0.5, 1])},
    {'left_out': np.array('[]')},
    {'names': np.array([None], object)},
  ],
)
def test_a_damaged_list_is_made_again(archive, arrays):
  read(archive)
  rewritten(archive, **arrays)
  assert read(archive)[1]
  assert not read(archive)[1]
  kept(archive).write_bytes(b'')
  assert read(archive)[1]


def test_the_list_of_a_read_only_folder_is_kept_elsewhere(
  archive, tmp_path, monkeypatch
):
  """Tests may run as root, whom permissions do not stop."""
  mkdir = pathlib.Path.mkdir

  def refused(path, *args, **kwargs):
    if path.parent == archive.parent:
      raise PermissionError('read-only')
    return mkdir(path, *args, **kwargs)

  monkeypatch.setattr(pathlib.Path, 'mkdir', refused)
  assert read(archive)[1] and read(archive)[1]
  cache = tmp_path / 'cache'
  with folder_index.using(folder_index.Places(lambda: cache)):
    assert [read(archive)[1], read(archive)[1]] == [True, False]
