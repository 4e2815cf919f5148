import os
import resource

import pytest

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import byte_ranges


@pytest.mark.parametrize('has_pread', [True, False])
def test_any_part_of_a_file_is_read(tmp_path, monkeypatch, has_pread):
  if not has_pread:
    monkeypatch.delattr(os, 'pread')
  path = tmp_path / 'a'
  path.write_bytes(bytes(range(100)))
  assert byte_ranges.read(path, 10, 5) == bytes(range(10, 15))
  assert byte_ranges.read(path, 0, 0) == b''


def test_a_file_that_is_cut_short_is_named_with_the_place(tmp_path):
  path = tmp_path / 'cut.tar'
  path.write_bytes(bytes(100))
  with pytest.raises(DamagedFile, match=r'cut.tar ends at byte 100, inside of'):
    byte_ranges.read(path, 90, 20)


def test_files_are_closed_when_others_are_read(tmp_path):
  def count():
    return len(os.listdir('/dev/fd'))

  before, limits = count(), resource.getrlimit(resource.RLIMIT_NOFILE)
  for n in range(600):
    (tmp_path / str(n)).write_bytes(b'x')
    assert byte_ranges.read(tmp_path / str(n), 0, 1) == b'x'
  assert count() <= before + 256 < limits[0]
