import os

import numpy as np
import pytest

from cdm.data import folder_index
from cdm.data.forms import kept_scan

TYPES = {'file': np.int64}


class Scans:
  """Scans a file, and counts how often."""

  def __init__(self, files):
    self.files, self.count = files, 0

  def __call__(self, what='tar 1', types=None):
    def scan():
      self.count += 1
      return {'file': np.arange(3)}

    types = TYPES if types is None else types
    return kept_scan.scanned(what, self.files, scan, types)['file'].tolist()


@pytest.fixture
def files(tmp_path, monkeypatch):
  """Two files that were written a while ago, and any scan takes long."""
  monkeypatch.setattr(kept_scan, 'LEAST_SECONDS', 0.0)
  (tmp_path / 'data').mkdir()
  paths = [str(tmp_path / 'data' / name) for name in 'ab']
  for path in paths:
    with open(path, 'wb') as file:
      file.write(b'12')
    os.utime(path, (1e9, 1e9))
  return paths


def kept_in(folder):
  return sorted((folder / folder_index.FOLDER).glob('*'))


def test_a_scan_is_made_once_while_the_files_stay(files, tmp_path):
  scan = Scans(files)
  assert scan() == scan() == [0, 1, 2] and scan.count == 1
  assert [p.name[:4] for p in kept_in(tmp_path / 'data')] == ['tar-']
  scan('tar 2')
  assert scan.count == 2
  os.utime(files[1], (1e9 + 1, 1e9 + 1))
  assert scan() == [0, 1, 2] and scan.count == 3


def test_a_scan_of_files_that_just_changed_is_not_kept(files, tmp_path):
  os.utime(files[0])
  scan = Scans(files)
  scan()
  assert not kept_in(tmp_path / 'data')


def test_a_short_scan_leaves_nothing(files, tmp_path, monkeypatch):
  monkeypatch.setattr(kept_scan, 'LEAST_SECONDS', 60.0)
  Scans(files)()
  assert not kept_in(tmp_path / 'data')


@pytest.mark.parametrize('damage', ['cut', 'zeros', 'other', 'types'])
def test_a_damaged_scan_is_made_again(files, tmp_path, damage):
  scan = Scans(files)
  scan()
  (path,) = kept_in(tmp_path / 'data')
  data = path.read_bytes()
  if damage == 'other':
    np.savez(
      path, found_made_from=np.zeros(32, np.uint8), found_file=np.zeros(9)
    )
  elif damage != 'types':
    path.write_bytes(data[:99] if damage == 'cut' else bytes(len(data)))
  types = {'file': np.int32} if damage == 'types' else TYPES
  assert scan(types=types) == [0, 1, 2] and scan.count == 2


def test_a_scan_is_kept_elsewhere_if_the_folder_cannot_be_written(
  files, tmp_path
):
  # A file where the folder would be stands for one that cannot be written.
  (tmp_path / 'data' / folder_index.FOLDER).write_bytes(b'')
  scan = Scans(files)
  with folder_index.using(folder_index.Places(lambda: tmp_path / 'cache')):
    scan()
    scan()
  assert scan.count == 1 and len(list((tmp_path / 'cache').iterdir())) == 1
