"""Sets of images on disk: what differs in size is named, wherever it stands."""

import os

import numpy as np
import pytest
from PIL import Image

from cdm.data import image_set, npz_dataset, prepare


@pytest.mark.parametrize('odd', [1, 2, 3])  # the batches are [0, 1], [2, 3]
def test_an_image_of_another_size_is_named_in_any_batch(odd, tmp_path):
  for i in range(4):
    side = 6 if i == odd else 4
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(
      tmp_path / f'{i}.png'
    )
  images = image_set.load_images(tmp_path)
  message = rf"'{odd}' of .* has 6x6 pixels but '0' of .* has 4x4"
  with pytest.raises(ValueError, match=message):
    list(image_set.stream(images, batch_size=2))


def test_the_images_of_a_set_come_in_the_order_asked_for(tmp_path):
  for i in range(3):
    Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f'{i}.png')
  images = image_set.load_images(tmp_path)
  batches = list(image_set.stream(images, [2, 0, 1], batch_size=2))
  assert [len(batch) for batch in batches] == [2, 1]
  assert np.concatenate(batches)[:, 0, 0, 0].tolist() == [2, 0, 1]


def test_a_damaged_image_is_named_with_what_to_do(tmp_path):
  path = tmp_path / 'a.png'
  Image.new('RGB', (64, 64), 'red').save(path)
  path.write_bytes(path.read_bytes()[:70])
  with pytest.raises(ValueError, match='a.png: the PNG file is cut off. Write'):
    image_set.load_images(tmp_path).read(0)


def test_sizes_are_given_width_by_height():
  assert image_set.size_of(np.zeros((48, 64, 3))) == '64x48'


def test_white_of_deep_images_can_be_stated(tmp_path):
  Image.fromarray(np.full((8, 8), 1023, np.uint16)).save(tmp_path / 'a.png')
  assert image_set.load_images(tmp_path, max_value=1023).read(0).min() == 255


def stack(count=3):
  return np.random.default_rng(0).integers(
    0, 256, (count, 4, 4, 3), dtype=np.uint8
  )


def shards_of(folder, images):
  """Writes the images as `cdm prepare` does, two in a shard."""
  pytest.importorskip('array_record')
  np.savez(
    folder / 'x.npz', arr_0=images, arr_1=np.zeros(len(images), np.int64)
  )
  prepare.prepare(
    npz_dataset.Archive(folder / 'x.npz'),
    size=4,
    out=folder / 'shards',
    records_per_shard=2,
  )
  return folder / 'shards'


def test_a_set_is_the_same_from_a_folder_an_npz_and_shards(tmp_path):
  images = stack()
  folder = tmp_path / 'folder'
  folder.mkdir()
  for i, image in enumerate(images):
    Image.fromarray(image).save(folder / f'{i}.png')
  shards = shards_of(tmp_path, images)
  for path, names, suffixes in (
    (folder, ('0', '1', '2'), ['.png']),
    (tmp_path / 'x.npz', None, ['.npz']),
    (shards, None, ['.array_record']),
  ):
    found = image_set.load_images(path)
    assert found.count == 3 and found.names == names
    read = np.stack([found.read(i) for i in range(3)])
    np.testing.assert_array_equal(read, images)
    assert image_set.suffixes_of(path) == suffixes
  unnamed = image_set.load_images(shards)
  assert image_set.name_of(unnamed, 1) == f'image 1 of {shards}'


@pytest.mark.parametrize('kind', ['file', 'folder', 'shards'])
def test_the_fingerprint_changes_with_any_file_and_only_then(kind, tmp_path):
  path = changed = tmp_path / 'a.png'
  Image.fromarray(stack()[0]).save(path)
  if kind == 'folder':
    path = tmp_path
  elif kind == 'shards':
    path = shards_of(tmp_path, stack())
    changed = max(path.glob('images-*'))
    (path / 'other.txt').write_text('not of the set', encoding='utf-8')
  before = image_set.fingerprint_of(path)
  assert image_set.fingerprint_of(path) == before
  state = changed.stat()
  os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
  assert image_set.fingerprint_of(path) != before
  if kind == 'shards':
    before = image_set.fingerprint_of(path)
    (path / 'other.txt').write_text('still not of it', encoding='utf-8')
    assert image_set.fingerprint_of(path) == before


def test_a_set_of_one_file_has_its_name_and_one_suffix(tmp_path):
  Image.fromarray(stack()[0]).save(tmp_path / 'cat.PNG')
  found = image_set.load_images(tmp_path / 'cat.PNG')
  assert found.count == 1 and found.names == ('cat',)
  assert image_set.suffixes_of(tmp_path / 'cat.PNG') == ['.png']
  Image.fromarray(stack()[0]).save(tmp_path / 'dog.jpg')
  assert image_set.suffixes_of(tmp_path) == ['.jpg', '.png']


def test_an_npz_holds_images_where_it_has_the_array_of_images(tmp_path):
  np.savez(tmp_path / 'a.npz', mu=np.zeros(3), arr_0=stack())
  np.savez(tmp_path / 'b.npz', mu=np.zeros(3))
  assert image_set.holds_images(tmp_path / 'a.npz')
  assert not image_set.holds_images(tmp_path / 'b.npz')


def test_only_a_set_with_two_files_of_one_name_cannot_be_paired(tmp_path):
  Image.fromarray(stack()[0]).save(tmp_path / 'a.png')
  Image.fromarray(stack()[1]).save(tmp_path / 'b.png')
  image_set.check_names(image_set.load_images(tmp_path))
  np.savez(tmp_path / 'x.npz', arr_0=stack())
  image_set.check_names(image_set.load_images(tmp_path / 'x.npz'))
  Image.fromarray(stack()[1]).save(tmp_path / 'b.bmp')
  with pytest.raises(ValueError, match='both b.bmp and b.png; images are'):
    image_set.check_names(image_set.load_images(tmp_path))


def test_batches_are_of_16_images_unless_told(tmp_path):
  np.savez(tmp_path / 'x.npz', arr_0=stack(17))
  found = image_set.load_images(tmp_path / 'x.npz')
  assert [len(b) for b in image_set.stream(found)] == [16, 1]
  assert [len(b) for b in image_set.stream(found, [3, 4])] == [2]


def test_splits_side_by_side_are_no_set(tmp_path):
  """A reference set would mix held-out pictures into those of training."""
  for name in ('train', 'val'):
    (tmp_path / name).mkdir()
    Image.new('RGB', (4, 4)).save(tmp_path / name / '0.png')
  with pytest.raises(ValueError, match='holds splits .* Give .*/train for'):
    image_set.load_images(tmp_path)
  assert image_set.load_images(tmp_path / 'train').count == 1
