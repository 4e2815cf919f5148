"""Numbered PNGs: what is missing is found, and old folders stay as they are."""

import os

import numpy as np
import pytest

from cdm.sampling import numbered_images, output_folder


@pytest.fixture(autouse=True)
def fours(monkeypatch):
  """Four images stand for a thousand."""
  monkeypatch.setattr(numbered_images.numbered_names, 'PER_FOLDER', 4)


def image(n):
  return np.full((2, 2, 3), n, np.uint8)


def opened(tmp_path):
  return numbered_images.NumberedImages([tmp_path / 'a', tmp_path / 'b'])


def write(images, numbers):
  for folder in images.folders:
    for n in numbers:
      images.write(folder, n, image(n))


def test_what_one_folder_lacks_is_missing_in_all(tmp_path, capsys):
  images = opened(tmp_path)
  assert images.missing(10) == list(range(10))
  write(images, range(10))
  assert (tmp_path / 'b' / '002' / '000009.png').exists()
  assert len(list((tmp_path / 'a').iterdir())) == 4 + 2
  assert images.missing(10) == [] and images.missing(12) == [10, 11]
  (tmp_path / 'a' / '001' / '000005.png').unlink()
  cut = tmp_path / 'b' / '002' / '000008.png'
  cut.write_bytes(cut.read_bytes()[:20])
  assert images.missing(10) == [5, 8]
  assert f'damaged: 1 image files; the first: {cut}.' in capsys.readouterr().out


def test_images_are_read_in_their_order(tmp_path):
  images = opened(tmp_path)
  write(images, range(10))
  found = list(images.read_all(tmp_path / 'a', 10))
  np.testing.assert_array_equal(found, [image(n) for n in range(10)])


def test_a_folder_of_an_earlier_version_is_continued_as_it_is(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'b').mkdir()
  for folder in ('a', 'b'):
    for n in range(6):
      path = tmp_path / folder / f'{n:06d}.png'
      numbered_images.image_files.write_png(path, image(n))
  images = opened(tmp_path)
  assert images.flat and images.missing(9) == [6, 7, 8]
  write(images, (6, 7, 8))
  assert images.missing(9) == []
  assert all(path.is_file() for path in (tmp_path / 'a').iterdir())
  found = list(images.read_all(tmp_path / 'b', 9))
  np.testing.assert_array_equal(found, [image(n) for n in range(9)])


def test_what_a_killed_process_left_is_removed_in_every_folder(tmp_path):
  images = opened(tmp_path)
  write(images, range(10))
  left = tmp_path / 'a' / '002' / '.000009.png.x-1-2.partial'
  left.write_bytes(b'')

  os.utime(left, (0, 0))
  assert images.missing(10) == [] and not left.exists()


def test_making_room_removes_the_images_of_all_folders_and_nothing_else(
  tmp_path,
):
  write(opened(tmp_path), range(10))
  mine = tmp_path / 'a' / '001' / 'mine.png'
  mine.write_bytes(b'')
  output_folder.make_room(
    tmp_path, {}, name='x.json', writes=('a', 'b'), overwrite=True
  )
  assert [p for p in tmp_path.rglob('*') if p.is_file()] == [mine]
