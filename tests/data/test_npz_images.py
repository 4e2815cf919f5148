"""Bytes that are no archive of images are one sentence, for both readers."""

import io
import zipfile

import numpy as np
import pytest

from cdm.data import npz_dataset, npz_images

READERS = pytest.mark.parametrize(
  'read', [npz_images.open_images, npz_dataset.Archive, npz_images.count]
)
HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 4, 4, 3), }"


def images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


def npy(header=HEADER, version=1):
  """-> bytes of an .npy file of `images`, with a header of ours."""
  text = header.encode().ljust(117) + b'\n'
  begin = b'\x93NUMPY' + bytes([version, 0, len(text), 0])
  return begin + text + images().tobytes()


def write(path, member=None, *, count=6, compression=0, change=None):
  """Writes an archive; change(bytes) -> bytes of the whole file."""
  labels = io.BytesIO()
  np.save(labels, np.arange(count))
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('arr_0.npy', npy() if member is None else member)
    archive.writestr('arr_1.npy', labels.getvalue())
  if change:
    path.write_bytes(change(path.read_bytes()))


@READERS
@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
def test_what_is_whole_is_read(tmp_path, read, compression):
  write(tmp_path / 'x.npz', compression=compression)
  found = read(tmp_path / 'x.npz')
  if read is npz_images.open_images:
    for i in (5, -1):
      np.testing.assert_array_equal(found.read(i), images()[i])
    with pytest.raises(IndexError):
      found.read(6)
    np.testing.assert_array_equal(found.labels, np.arange(6))
    assert (found.count, found.shape) == (6, (4, 4, 3))
  elif read is npz_dataset.Archive:
    np.testing.assert_array_equal(found[5]['image'], images()[5])
  else:
    assert found == 6


def in_directory(offset, value):
  """-> change(bytes): sets bytes of the first entry of the zip's directory."""

  def change(data):
    place = data.index(b'PK\x01\x02') + offset
    return data[:place] + value + data[place + len(value) :]

  return change


@READERS
@pytest.mark.parametrize(
  ('kind', 'told'),
  [
    ({'change': in_directory(8, b'\x01')}, 'encrypted'),
    ({'change': in_directory(10, b'\x63')}, 'compression'),
    ({'change': in_directory(24, b'\xff\xff')}, 'not as long as its shape'),
    ({'change': in_directory(42, b'\xff')}, r'Bad magic|seek'),
    ({'change': lambda data: data[:300]}, 'not a zip file'),
    ({'change': lambda data: b''}, 'not a zip file'),
    ({'member': npy('(' + HEADER)}, 'multi-line statement'),
    ({'member': npy('-' * 100 + '1')}, 'malformed'),
    ({'member': npy(version=7)}, r'version|header'),
    ({'member': npy(HEADER.replace('6', '7'))}, r'not as long .* \(7, 4'),
    ({'member': b'none'}, 'magic string'),
  ],
)
def test_damage_of_any_kind_is_one_sentence(tmp_path, read, kind, told):
  write(tmp_path / 'x.npz', **kind)
  with pytest.raises(ValueError, match='x.npz cannot be read as an') as caught:
    read(tmp_path / 'x.npz')
  assert caught.match(told)


def test_an_archive_that_promises_more_than_the_file_has_is_refused(tmp_path):
  """Also where its bytes are not all read once."""
  header = HEADER.replace('6', '6000')
  size = (len(npy(header)) - 6 * 48 + 6000 * 48).to_bytes(4, 'little')
  change = in_directory(20, size + size)
  write(tmp_path / 'x.npz', npy(header), count=6000, change=change)
  for read in (npz_images.open_images, npz_dataset.Archive):
    with pytest.raises(ValueError, match='x.npz cannot be read as an .npz'):
      read(tmp_path / 'x.npz')


@READERS
@pytest.mark.parametrize(
  ('arrays', 'told'),
  [
    ({'arr_0': np.array([{}, {}])}, r'is object \(2,\); uint8'),
    ({'arr_0': images()[0]}, r'is uint8 \(4, 4, 3\); uint8'),
    ({'arr_0': images()[:0]}, 'holds no images'),
    ({'arr_1': images()}, r"has the arrays \['arr_1'\] but no arr_0"),
  ],
)
def test_other_arrays_are_refused(tmp_path, read, arrays, told):
  """Python objects too, and nothing of them is unpickled."""
  np.savez(tmp_path / 'x.npz', **arrays)
  with pytest.raises(ValueError, match=told):
    read(tmp_path / 'x.npz')


def test_labels_that_are_objects_are_refused(tmp_path):
  np.savez(tmp_path / 'x.npz', images(), np.array([{}] * 6))
  for read in (npz_images.open_images, npz_dataset.Archive):
    with pytest.raises(ValueError, match='arr_1 .* is object .* int .6. from'):
      read(tmp_path / 'x.npz')


def test_an_archive_in_fortrans_order_is_not_held(tmp_path, monkeypatch):
  """Nor unpacked into memory, where it is compressed."""
  real = np.lib.format.read_array

  def labels_only(*args, **kwargs):
    array = real(*args, **kwargs)
    assert array.ndim == 1
    return array

  monkeypatch.setattr(np.lib.format, 'read_array', labels_only)
  for save in (np.savez, np.savez_compressed):
    save(tmp_path / 'x.npz', np.asfortranarray(images()), np.arange(6))
    source = npz_dataset.Archive(tmp_path / 'x.npz')
    for i in (5, 0, -1):
      np.testing.assert_array_equal(source[i]['image'], images()[i])
