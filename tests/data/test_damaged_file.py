"""A file that cannot be opened for want of descriptors is not a damaged one."""

import contextlib
import errno
import os

import numpy as np
import pytest
from PIL import Image

from cdm.data import (
  array_record,
  image_decoder,
  npz_images,
  picture_files,
  shard_writer,
)

resource = pytest.importorskip('resource')  # Windows has none.


@contextlib.contextmanager
def no_more_files():
  """Context manager in which this process opens no further file."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  lowest = os.open(os.devnull, os.O_RDONLY)
  os.close(lowest)
  resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def list_pictures(folder):
  picture_files.list_pictures(folder)


def read_picture(folder):
  image_decoder.read_file(folder / '0.png')


def read_archive(folder):
  npz_images.open_images(folder / 'a.npz')


def read_shard(folder):
  array_record.open_shards([str(folder / 'a.array_record')])


def write_shard(folder):
  with shard_writer.new_shard(folder / 'b.array_record'):
    pass


@pytest.mark.parametrize(
  'act', [list_pictures, read_picture, read_archive, read_shard, write_shard]
)
def test_the_limit_of_open_files_says_nothing_about_a_file(tmp_path, act):
  """Nothing is skipped or called damaged, as nobody has seen it."""
  pytest.importorskip('array_record')
  pixels = np.zeros((1, 4, 4, 3), np.uint8)
  Image.fromarray(pixels[0]).save(tmp_path / '0.png')
  np.savez(tmp_path / 'a.npz', arr_0=pixels)
  with shard_writer.new_shard(tmp_path / 'a.array_record') as write:
    write(b'x')
  act(tmp_path)  # What it imports is open from now on.
  before = sorted(tmp_path.iterdir())
  with pytest.raises((OSError, RuntimeError)) as caught, no_more_files():
    act(tmp_path)
  assert os.strerror(errno.EMFILE) in str(caught.value)
  assert sorted(tmp_path.iterdir()) == before
