"""Cuts an image into overlapping tiles, and blends super-resolved tiles.

With tiles, a super-resolution stage can magnify images larger than its own
input. An image of exactly the input size is one tile. A larger image is cut
into overlapping tiles; each is super-resolved with its own noise, and the
overlaps are blended with linear ramps.
"""

from collections.abc import Sequence

import numpy as np


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
  """Returns the first pixel of each tile along one axis, in increasing order.

  The tiles cover [0, length) evenly.

  Args:
    length: of the image along the axis, in pixels; at least `tile`.
    tile: side of a tile, in pixels.
    overlap: least number of pixels that two neighbouring tiles share.
  """
  if length == tile:
    return [0]
  count = int(np.ceil((length - overlap) / (tile - overlap)))
  return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def cut(
  image: np.ndarray, tile: int, *, overlap: int | None = None
) -> tuple[np.ndarray, list[tuple[int, int]]]:
  """Cuts an image into overlapping square tiles.

  Args:
    image: uint8 [h, w, 3].
    tile: side of a tile, in pixels.
    overlap: least number of pixels that two neighbouring tiles share; None
      means tile // 4.

  Returns:
    (tiles, places): tiles uint8 [n, tile, tile, 3], and the (top, left) pixel
    of each tile in the image.

  Raises:
    ValueError: the image is smaller than one tile in either direction.
  """
  h, w = image.shape[:2]
  if min(h, w) < tile:
    raise ValueError(
      f'The image is {w}x{h} pixels, smaller than the {tile}x{tile} input of '
      'this stage; give an image at least that large, or a stage that takes '
      'smaller ones.'
    )
  overlap = tile // 4 if overlap is None else overlap
  places = [
    (top, left)
    for top in tile_starts(h, tile, overlap)
    for left in tile_starts(w, tile, overlap)
  ]
  tiles = [image[y : y + tile, x : x + tile] for y, x in places]
  return np.stack(tiles), places


def blend(
  tiles: np.ndarray,
  places: Sequence[tuple[int, int]],
  *,
  shape: Sequence[int],
  factor: int,
  margin: int = 0,
) -> np.ndarray:
  """Joins super-resolved tiles into one image.

  Args:
    tiles: uint8 [n, T, T, 3], the super-resolved tiles, T = tile * factor.
    places: (top, left) of each tile in low-res pixels, as `cut` returns them.
    shape: (h, w) of the low-res image.
    factor: magnification.
    margin: low-res pixels along the border of a tile that do not count where
      another tile covers them. If a pixel depends on no low-res pixel that is
      farther away, and tiles overlap by twice as many, the result is that of
      the whole image as one tile.

  Returns:
    uint8 [h * factor, w * factor, 3]. Where tiles overlap, each pixel is their
    average, weighted by its distance to the border of each tile.
  """
  h, w = shape[0] * factor, shape[1] * factor
  side = tiles.shape[1]
  # The ramp never reaches zero, because a pixel at the border of the image is
  # in one tile only, and its weights must not sum to zero.
  ramp = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1))
  rows, columns = (
    _counted(starts, side // factor, length, margin)
    for starts, length in zip(zip(*places, strict=True), shape, strict=True)
  )
  total = np.zeros((h, w, 3))
  weights = np.zeros((h, w, 1))
  for tile, (top, left) in zip(tiles, places, strict=True):
    y, x = top * factor, left * factor
    weight = np.outer(
      ramp * rows[top].repeat(factor), ramp * columns[left].repeat(factor)
    ).astype(np.float64)[..., None]
    total[y : y + side, x : x + side] += weight * tile
    weights[y : y + side, x : x + side] += weight
  return np.floor(total / weights + 0.5).astype(np.uint8)


def _counted(starts, tile, length, margin):
  """Returns {start: bool [tile]}, which low-res pixels of a tile count.

  Args:
    starts: the first pixels of the tiles along one axis.
    tile: side of a tile.
    length: of the image.
    margin: see `blend`.
  """
  starts = sorted(set(starts))
  counted = {}
  for i, start in enumerate(starts):
    counted[start] = np.ones(tile, bool)
    # Of an overlap of an odd number, both tiles keep the pixel in the middle.
    if start:
      overlap = starts[i - 1] + tile - start
      counted[start][: min(margin, overlap // 2)] = False
    if start + tile < length:
      overlap = start + tile - starts[i + 1]
      counted[start][tile - min(margin, overlap // 2) :] = False
  return counted
