"""Opens the images that a base model begins at, in the place of noise.

Image n of a run begins at the n-th image of the set, whatever the batch that it
is drawn in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np

from cdm.config import datasets, evaluated_images, instantiate, loader
from cdm.data import image_set

READERS = 8  # threads that decode images


class Manifest(TypedDict):
  """The images in the manifest of what was drawn from them.

  Attributes:
    set: the name of the set, as it was given.
    count: number of images of the set.
    fingerprint: a text that changes when the images change.
  """

  set: str
  count: int
  fingerprint: NotRequired[str]


class StartImages(NamedTuple):
  """Images that drawing begins at.

  Attributes:
    read: the function from n to its image, uint8 [S, S, 3].
    manifest: which images they are.
  """

  read: Callable[[int], np.ndarray]
  manifest: Manifest

  def rows(self, indices: np.ndarray) -> np.ndarray:
    """Returns the images uint8 [B, S, S, 3] of indices int [B]."""
    with futures.ThreadPoolExecutor(READERS) as pool:
      return np.stack(list(pool.map(self.read, map(int, indices))))


def open_images(
  what: str | os.PathLike, split: str | None, *, num: int, size: int
) -> StartImages:
  """Opens a set, and reads every image that is used to check its size.

  Args:
    what: path of a folder, an .npz or a picture file; or of a config.
    split: 'train' or 'eval', the data of a config to use; None for files.
    num: number of images that are drawn.
    size: S, their side.

  Raises:
    ValueError: there is no such set, it has fewer than `num` images, or one
      that is used has another size or cannot be read.
  """
  name = str(what) if split is None else f'{what}:{split}'
  if split is None:
    images = image_set.load_images(what)
    count, read = images.count, images.read
    stamp = image_set.fingerprint_of(what)
  else:
    count, read, stamp = _of_config(what, split)
  if num > count:
    raise ValueError(
      f'--num={num}, but --start_images={name} has {count}, and image n begins '
      f'at the n-th of them; use --num={count}, or more images.'
    )

  def check(n):
    image = read(n)
    if image is None:
      raise ValueError(f'--start_images={name}: image {n} cannot be read.')
    if image.shape != (size, size, 3):
      raise ValueError(
        f'--start_images={name}: image {n} has {image_set.size_of(image)} '
        f'pixels, but the base model draws {size}x{size}; resize them with '
        '`cdm prepare`.'
      )

  with futures.ThreadPoolExecutor(READERS) as pool:
    for _ in pool.map(check, range(num)):
      pass
  return StartImages(
    read, {'set': name, 'count': count, 'fingerprint': str(stamp)}
  )


def _of_config(path, split):
  """Returns (count, read, fingerprint) of the data of a config."""
  loaded = loader.load(path).copy_and_resolve_references()
  instantiate.require(loaded, 'pipeline', f'{split}_data')
  if split == 'train':
    loaded.eval_data = loaded.train_data
  source = datasets.open_source(
    loaded.eval_data, f'{split}_data', remedy=f'Set it in {path}.'
  )
  count = len(source)
  read, stamp = evaluated_images.open_evaluated(loaded, count)

  def read_image(n):
    example = read(n)  # (image, label), or None if it is skipped
    return None if example is None else example[0]

  return count, read_image, stamp
