"""Serves an image through a super-resolution stage, tile by tile.

An image of the stage's own input size is one tile. A larger one is cut into
overlapping tiles, every tile is super-resolved with noise of its own, and the
overlaps are blended with linear ramps.
"""

import numpy as np


def tile_starts(length, tile, overlap):
  """-> increasing starts of tiles that cover [0, length) evenly.

  Neighbours share at least `overlap` pixels.

  Raises:
    ValueError: the image is smaller than one tile.
  """
  if length == tile:
    return [0]
  count = int(np.ceil((length - overlap) / (tile - overlap)))
  return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def cut(image, tile, *, overlap=None):
  """Cuts an image into square tiles.

  Args:
    image: uint8 [h, w, 3].
    tile: side of a tile, in pixels.
    overlap: least number of pixels that neighbours share; tile // 4 if None.

  Returns:
    (tiles uint8 [n, tile, tile, 3], [(top, left), ...]).

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


def blend(tiles, places, *, shape, factor):
  """Puts super-resolved tiles together again.

  Args:
    tiles: uint8 [n, T, T, 3], the super-resolved tiles, T = tile * factor.
    places: [(top, left), ...] in low-res pixels, as `cut` gave them.
    shape: (h, w) of the low-res image.
    factor: magnification.

  Returns:
    uint8 [h * factor, w * factor, 3]; where tiles overlap, their average
    weighted by the distance to the tile's border.
  """
  h, w = shape[0] * factor, shape[1] * factor
  side = tiles.shape[1]
  # A ramp that never reaches zero: the image's own border has one tile only.
  ramp = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1))
  weight = np.outer(ramp, ramp).astype(np.float64)[..., None]
  total = np.zeros((h, w, 3))
  weights = np.zeros((h, w, 1))
  for tile, (top, left) in zip(tiles, places, strict=True):
    y, x = top * factor, left * factor
    total[y : y + side, x : x + side] += weight * tile
    weights[y : y + side, x : x + side] += weight
  return np.floor(total / weights + 0.5).astype(np.uint8)
