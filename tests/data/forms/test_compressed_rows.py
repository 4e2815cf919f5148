import concurrent.futures
import tracemalloc

import numpy as np
import pytest

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import compressed_rows
from cdm.data.forms.compressed_rows import CompressedRows


@pytest.fixture
def path(tmp_path):
  path = tmp_path / 'a.npz'
  rows = np.random.default_rng(0).integers(0, 256, (500, 64), dtype=np.uint8)
  np.savez_compressed(path, data=rows)
  return path


def expected(path):
  with np.load(path) as file:
    return file['data']


def test_rows_are_read_by_threads_and_backwards(path, monkeypatch):
  monkeypatch.setattr(compressed_rows, '_BLOCK_BYTES', 640)
  rows, whole = CompressedRows(path, 'data', 64), expected(path)
  with concurrent.futures.ThreadPoolExecutor(4) as threads:
    found = list(threads.map(rows.read, range(500)))
  np.testing.assert_array_equal(np.frombuffer(b''.join(found), np.uint8), (
    whole.ravel()
  ))  # fmt: skip
  assert rows.read(3) == whole[3].tobytes()


def test_one_pass_opens_the_array_once_and_takes_little_memory(
  path, monkeypatch
):
  monkeypatch.setattr(compressed_rows, '_BLOCK_BYTES', 1 << 16)
  np.savez_compressed(path, data=np.zeros((1 << 18, 64), np.uint8))  # 16 MB
  rows, opened = CompressedRows(path, 'data', 64), []
  open_one = rows._open
  monkeypatch.setattr(rows, '_open', lambda: opened.append(open_one()))
  tracemalloc.start()
  for n in range(0, 1 << 18, 1000):
    rows.read(n)
  assert tracemalloc.get_traced_memory()[1] < 2 << 20
  tracemalloc.stop()
  assert len(opened) == 1


def test_damage_is_found_where_it_is(path, monkeypatch):
  monkeypatch.setattr(compressed_rows, '_BLOCK_BYTES', 640)
  data = bytearray(path.read_bytes())
  data[20_000] ^= 255
  path.write_bytes(data)
  rows = CompressedRows(path, 'data', 64)
  rows.read(0)
  with pytest.raises(DamagedFile, match='a.npz is damaged in data, behind row'):
    for n in range(500):
      rows.read(n)
