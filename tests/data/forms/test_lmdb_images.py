"""LMDB in the layouts of BasicSR's and Janspiry's SR3's writers.

BasicSR: basicsr/utils/lmdb_util.py, `make_lmdb_from_imgs`, which writes
meta_info.txt. SR3: data/prepare_data.py, which puts `hr_{size}_{i:05d}`,
`sr_{small}_{size}_{i:05d}` and `length`.
"""

import concurrent.futures
import io
import os
import pickle
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from cdm.config import datasets
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import lmdb_images
from cdm.data.forms.lmdb_images import LmdbImages
from cdm.data.transforms import BadImage

lmdb = pytest.importorskip('lmdb')


def png(n, side=5):
  file = io.BytesIO()
  pixels = np.random.default_rng(n).integers(0, 256, (side, side, 3), np.uint8)
  Image.fromarray(pixels).save(file, 'PNG')
  return file.getvalue()


def write(folder, entries):
  with lmdb.open(str(folder), map_size=1 << 24) as environment:
    with environment.begin(write=True) as transaction:
      for key, value in entries.items():
        transaction.put(key.encode(), value)
  return folder


def basicsr(folder, keys=('0001_s001', '000/00000002', 'a.b')):
  """As `make_lmdb_from_imgs` lays it out."""
  write(folder, {key: png(n) for n, key in enumerate(keys)})
  lines = ''.join(f'{key}.png (5,5,3) 1\n' for key in keys)
  (folder / 'meta_info.txt').write_text(lines, encoding='utf-8')
  return folder


def sr3(folder, count=3, prefixes=('hr_128', 'sr_16_128')):
  """As `prepare_data.py` with --lmdb lays it out."""
  entries = {
    f'{prefix}_{n:05d}': png(100 * k + n)
    for k, prefix in enumerate(prefixes)
    for n in range(count)
  }
  return write(folder, {**entries, 'length': str(count).encode()})


def test_basicsr_images_are_read_in_the_order_of_their_list(tmp_path):
  folder = basicsr(tmp_path / 'faces.lmdb')
  source = datasets.open_source({'kind': 'lmdb', 'path': str(folder)})
  assert isinstance(source, LmdbImages) and source.num_classes == 0
  assert list(source.file_names()) == ['0001_s001', '000/00000002', 'a.b']
  assert [source.encoded(n).data for n in range(3)] == [png(0), png(1), png(2)]
  with Image.open(io.BytesIO(png(1))) as image:
    np.testing.assert_array_equal(source[1]['image'], np.asarray(image))
  assert sorted(os.listdir(folder)) == ['data.mdb', 'lock.mdb', 'meta_info.txt']


def test_the_high_resolution_images_of_sr3_are_taken(tmp_path):
  source = LmdbImages(sr3(tmp_path / 'a'))
  assert [source.encoded(n).data for n in range(3)] == [png(0), png(1), png(2)]
  assert LmdbImages(tmp_path / 'a' / 'data.mdb').encoded(2).data == png(2)
  enlarged = LmdbImages(tmp_path / 'a', prefix='sr_16_128')
  assert enlarged.encoded(2).data == png(102)
  assert enlarged.fingerprint != source.fingerprint


def test_one_of_several_sizes_must_be_chosen(tmp_path):
  sr3(tmp_path / 'a', prefixes=('hr_64', 'hr_128', 'lr_16'))
  with pytest.raises(ValueError, match=r"\('hr_128', 'hr_64', 'lr_16'\). Choo"):
    LmdbImages(tmp_path / 'a')
  with pytest.raises(ValueError, match=r'no keys hr_256_00000, ...; it has'):
    LmdbImages(tmp_path / 'a', prefix='hr_256')
  assert LmdbImages(tmp_path / 'a', prefix='hr_64').encoded(0).data == png(0)


def test_numbers_of_more_than_five_digits_are_found(tmp_path):
  write(tmp_path / 'a', {'hr_8_00000': png(0), 'length': b'1'})
  with lmdb.open(str(tmp_path / 'a'), map_size=1 << 24) as environment:
    with environment.begin(write=True) as transaction:
      transaction.put(b'hr_8_100000', png(1))
  assert len(LmdbImages(tmp_path / 'a')) == 1  # and it is said, see below


def test_images_that_no_list_tells_of_are_said(tmp_path, caplog):
  folder = basicsr(tmp_path / 'a')
  meta = folder / 'meta_info.txt'
  meta.write_text('a.b.png (5, 5, 3) 1\n', encoding='utf-8')
  assert LmdbImages(folder).encoded(0).data == png(2)
  assert 'has 2 entries more than the 1 that' in caplog.text


def test_images_that_are_missing_are_noticed(tmp_path):
  folder = basicsr(tmp_path / 'a')
  with open(folder / 'meta_info.txt', 'a', encoding='utf-8') as file:
    file.write('more.png (5,5,3) 1\n')
  with pytest.raises(DamagedFile, match='has 3 entries of the 4 that it sho'):
    LmdbImages(folder)
  write(sr3(tmp_path / 'b'), {'length': b'4'})
  with pytest.raises(DamagedFile, match='has 7 entries of the 9 that it sho'):
    LmdbImages(tmp_path / 'b')
  write(tmp_path / 'b', {'length': b'9' * 12})
  with pytest.raises(DamagedFile, match='of the 1,999,999,999,999 that'):
    LmdbImages(tmp_path / 'b')


def test_a_missing_key_loses_one_image(tmp_path):
  folder = basicsr(tmp_path / 'a')
  meta = folder / 'meta_info.txt'
  text = meta.read_text(encoding='utf-8').replace('a.b', 'other')
  meta.write_text(text, encoding='utf-8')
  source = LmdbImages(folder)
  with pytest.raises(BadImage, match=r'a\[2\] other: the database has no such'):
    source[2]
  assert source[1]['image'].shape == (5, 5, 3)


@pytest.mark.parametrize(
  'damage, message',
  [
    (b'version https://git-lfs.github.com/spec/v1\n', 'a pointer of Git LFS'),
    (b'<html>Log in</html>' * 500, 'It is a web page'),
    (b'', 'The file is empty'),
    (bytes(9000), 'cannot be read as an LMDB'),
    (None, 'bytes of the .* that its first page tells of: it is cut short'),
  ],
)
def test_what_is_no_whole_lmdb_is_refused(tmp_path, damage, message):
  file = basicsr(tmp_path / 'a') / 'data.mdb'
  whole = file.read_bytes()
  file.write_bytes(whole[:-4096] if damage is None else damage)
  with pytest.raises(DamagedFile, match=f'{file}.*{message}'):
    LmdbImages(tmp_path / 'a')


def test_a_damaged_page_loses_its_own_images_only(tmp_path):
  # Values of more than half a page have pages of their own.
  keys = [f'{n:04d}' for n in range(200)]
  large = {key: png(n) + bytes(3000) for n, key in enumerate(keys)}
  folder = write(tmp_path / 'a', large)
  lines = ''.join(f'{key}.png (5,5,3) 1\n' for key in keys)
  (folder / 'meta_info.txt').write_text(lines, encoding='utf-8')
  file = folder / 'data.mdb'
  data = file.read_bytes()
  begin = data.index(b'0000', 8192) // 4096 * 4096  # the leaf of key 0000
  file.write_bytes(data[:begin] + b'\xff' * 4096 + data[begin + 4096 :])
  source, lost = LmdbImages(folder), 0
  for n in range(200):
    try:
      assert source.encoded(n).data == png(n) + bytes(3000)
    except BadImage as error:
      assert 'damaged' in str(error) or 'no such key' in str(error)
      lost += 1
  assert 0 < lost < 200


def test_an_entry_larger_than_the_file_is_not_copied(tmp_path, monkeypatch):
  source = LmdbImages(basicsr(tmp_path / 'a'))
  source._bytes = 10
  with pytest.raises(BadImage, match='an entry says that it has'):
    source[0]


@pytest.mark.parametrize(
  'line', ['<html>', '0001.png', '0001 (5,5,3) 1', '1.png (5,5) 1']
)
def test_a_list_of_another_kind_is_refused(tmp_path, line):
  folder = basicsr(tmp_path / 'a')
  with open(folder / 'meta_info.txt', 'a', encoding='utf-8') as file:
    file.write(f'\n{line}\n')
  with pytest.raises(DamagedFile, match='Line 5 of .*meta_info.txt is '):
    LmdbImages(folder)


def test_another_layout_is_refused_with_its_keys(tmp_path):
  folder = write(tmp_path / 'a', {'cat-1': png(0), 'dog-2': png(1)})
  with pytest.raises(
    ValueError, match=r"neither .*keys are \('cat-1', 'dog-2'"
  ):
    LmdbImages(folder)
  write(folder, {'hr_8_00000': png(0), 'length': b'many'})
  with pytest.raises(DamagedFile, match='key length of .* holds .*many'):
    LmdbImages(folder)
  with pytest.raises(ValueError, match='none.*does not exist; give the folder'):
    LmdbImages(tmp_path / 'none')


def test_labels_may_be_in_a_file(tmp_path):
  file = tmp_path / 'labels.txt'
  file.write_text(
    'a.b dog\n0001_s001 cat\n000/00000002 dog\n', encoding='utf-8'
  )
  source = LmdbImages(basicsr(tmp_path / 'a'), labels=file)
  assert source.class_names == ('cat', 'dog')
  assert source.labels.tolist() == [0, 1, 1]


def test_classes_that_it_has_not_are_refused(tmp_path):
  assert not LmdbImages(basicsr(tmp_path / 'a'), class_names=()).num_classes
  with pytest.raises(ValueError, match='has no labels, but 2 classes'):
    LmdbImages(tmp_path / 'a', class_names=('a', 'b'))


def test_it_is_shared_pickled_and_read_by_many_threads(tmp_path):
  first = LmdbImages(basicsr(tmp_path / 'a'))
  (tmp_path / 'b').symlink_to(tmp_path / 'a')
  source = pickle.loads(pickle.dumps(LmdbImages(tmp_path / 'b')))
  order = np.random.default_rng(0).permutation(300) % 3
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    found = list(threads.map(lambda n: source.encoded(int(n)).data, order))
  assert found == [png(n) for n in order]
  assert source.fingerprint == first.fingerprint


def test_a_forked_process_reads_on(tmp_path):
  source = LmdbImages(basicsr(tmp_path / 'a'))
  source[0]
  with lmdb_images._lock:  # held by another thread at the fork
    child = os.fork()
    if not child:
      signal.alarm(20)  # ends a child that waits for the lock
      same = pickle.loads(pickle.dumps(source)).encoded(1).data == png(1)
      os._exit(0 if same else 1)
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_is_closed_with_its_last_source(tmp_path):
  source = LmdbImages(basicsr(tmp_path / 'a'))
  source[0]
  del source
  # LMDB refuses a file that is still open in this process.
  lmdb.open(str(tmp_path / 'a')).close()


def test_what_a_path_holds_is_told_by_names(tmp_path):
  assert not LmdbImages.holds(str(tmp_path))
  folder = basicsr(tmp_path / 'a')
  assert LmdbImages.holds(str(folder))
  assert LmdbImages.holds(str(folder / 'data.mdb'))
  assert not LmdbImages.holds(str(tmp_path / 'b.lmdb'))


def test_without_lmdb_the_command_that_installs_it_is_named(
  tmp_path, monkeypatch
):
  folder = basicsr(tmp_path / 'a')
  monkeypatch.setitem(sys.modules, 'lmdb', None)
  with pytest.raises(ValueError, match=r'needs the package lmdb .*install'):
    LmdbImages(folder)
