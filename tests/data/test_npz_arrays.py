"""No number in an archive asks for memory that its bytes do not cover."""

import io
import zipfile

import numpy as np
import pytest

from cdm.data import npz_arrays, npz_dataset, npz_images
from cdm.data.files import damaged_file


def npy(array, header=None):
  """-> bytes of an .npy, with another header of ours if one is given."""
  file = io.BytesIO()
  np.save(file, array)
  data = file.getvalue()
  if header is None:
    return data
  size = int.from_bytes(data[8:10], 'little')
  text = header.encode() + b'\n'
  return data[:8] + len(text).to_bytes(2, 'little') + text + data[10 + size :]


def write(path, members, compression=0):
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, data in members.items():
      archive.writestr(f'{name}.npy', data)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(tmp_path, save):
  arrays = {
    'a': np.arange(6.0).reshape(2, 3),
    'turned': np.asfortranarray(np.arange(6).reshape(2, 3)),
    'number': np.array(3),
    'text': np.array('{"a": 1}'),
    'empty': np.zeros((0, 2)),
  }
  save(tmp_path / 'x.npz', **arrays)
  found = npz_arrays.read(tmp_path / 'x.npz', leave_out=('empty',))
  assert found.keys() == arrays.keys() - {'empty'}
  for name, array in found.items():
    np.testing.assert_array_equal(array, arrays[name])
    assert array.dtype == arrays[name].dtype


HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"


@pytest.mark.parametrize(
  ('member', 'told'),
  [
    (npy(np.ones(3), HEADER % '2**40,'), 'malformed|cannot be'),
    (npy(np.ones(3), HEADER % '1099511627776,'), 'not as long as its shape'),
    (npy(np.ones(3), HEADER % '-1, -3'), r'has the shape \(-1, -3\)'),
    (npy(np.ones(3), '-' * 9000 + '1'), 'nested too deeply|recursion'),
    (npy(np.ones(3), '[' * 300), 'parenthes|EOF|multi-line'),
    (npy(np.ones(3), HEADER.replace('<f8', '|O') % '3,'), 'Python objects'),
    (
      npy(np.ones(3), HEADER.replace('<f8', '|S0') % '10**9,'),
      'malformed|cann',
    ),
    (npy(np.ones(3))[:20], 'EOF|expected'),
    (
      b'\x93NUMPY\x02\x00' + (2**32 - 1).to_bytes(4, 'little') + b' ' * 99,
      r'says that it has 4294967295 bytes',
    ),
  ],
)
def test_damage_is_refused_before_it_is_believed(tmp_path, member, told):
  write(tmp_path / 'x.npz', {'a': member})
  with pytest.raises(damaged_file.DamagedFile, match=told) as caught:
    npz_arrays.read(tmp_path / 'x.npz')
  assert caught.match('x.npz cannot be read as an .npz archive')


def test_a_bomb_is_not_unpacked_into_memory(tmp_path):
  """300 kB that unpack to 300 MB."""
  count = 300 << 20
  file = io.BytesIO()
  header = {'descr': '|u1', 'fortran_order': False, 'shape': (count,)}
  np.lib.format.write_array_header_1_0(file, header)
  path = tmp_path / 'x.npz'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    with archive.open('a.npy', 'w') as member:
      member.write(file.getvalue())
      for _ in range(300):
        member.write(bytes(1 << 20))
  with pytest.raises(damaged_file.DamagedFile, match='says that it has 314,'):
    npz_arrays.read(path)


def test_a_stream_does_not_choose_the_memory_it_is_unpacked_with(tmp_path):
  path = tmp_path / 'x.npz'
  write(path, {'a': npy(np.ones(100))}, zipfile.ZIP_LZMA)
  assert npz_arrays.read(path)['a'].sum() == 100
  data = bytearray(path.read_bytes())
  place = data.index(b'a.npy') + 5 + 4 + 1
  data[place : place + 4] = b'\xff\xff\xff\xff'
  path.write_bytes(bytes(data))
  with pytest.raises(damaged_file.DamagedFile, match='asks for 4,294,967,295'):
    npz_arrays.read(path)


def test_a_member_is_no_longer_than_the_file(tmp_path):
  path = tmp_path / 'x.npz'
  write(path, {'a': npy(np.ones(100))}, zipfile.ZIP_DEFLATED)
  data = bytearray(path.read_bytes())
  place = data.index(b'PK\x01\x02') + 20
  data[place : place + 4] = (1 << 31).to_bytes(4, 'little')
  path.write_bytes(bytes(data))
  with pytest.raises(damaged_file.DamagedFile, match='a.npy is cut off'):
    npz_arrays.read(path)


def test_images_larger_than_the_disk_are_not_unpacked(tmp_path, monkeypatch):
  np.savez_compressed(tmp_path / 'x.npz', np.zeros((3, 4, 4, 3), np.uint8))
  usage = npz_images.shutil.disk_usage(tmp_path)._replace(free=100)
  monkeypatch.setattr(npz_images.shutil, 'disk_usage', lambda _: usage)
  with pytest.raises(ValueError, match='takes 272 bytes of the 100 free'):
    npz_images.open_images(tmp_path / 'x.npz')


@pytest.mark.parametrize('read', [npz_images.open_images, npz_dataset.Archive])
def test_training_and_evaluation_verify_the_checksum_alike(tmp_path, read):
  path = tmp_path / 'x.npz'
  np.savez(path, np.full((3, 4, 4, 3), 77, np.uint8), np.arange(3))
  data = path.read_bytes()
  read(path)
  path.write_bytes(data.replace(b'M' * 48, b'M' * 47 + b'N', 1))
  with pytest.raises(damaged_file.DamagedFile, match='CRC-32'):
    read(path)
