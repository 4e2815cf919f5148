"""Folders of small image files for the tests of this room."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_folder():
  """The function below, for tests to call."""
  return _write_folder


def _write_folder(root, count, *, classes=('a', 'b'), bad=(), suffix='.png'):
  """Files numbered across the classes; pixel values tell which is which.

  Args:
    root: an existing folder.
    count: how many; image i is (8 + i % 5) x (9 + i % 3) pixels of red = i.
    classes: sub-folders, in turn; () for none.
    bad: the numbers whose files are cut off.
    suffix: of the files.

  Returns:
    The paths, in order of their numbers.
  """
  paths = []
  for i in range(count):
    folder = root / classes[i % len(classes)] if classes else root
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(i).integers(
      0, 256, (8 + i % 5, 9 + i % 3, 3), dtype=np.uint8
    )
    pixels[..., 0] = i
    path = folder / f'{i:04d}{suffix}'
    Image.fromarray(pixels).save(path)
    if i in bad:
      path.write_bytes(path.read_bytes()[:60])
    paths.append(path)
  return paths
