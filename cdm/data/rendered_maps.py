"""Renders landmarks and parts of a face as maps, as large as a network's.

  heat map of a point p:  exp(-|c - p|^2 / (2 sigma^2)) at the centre c of each
                          pixel of the map
  map of a part:          the share of the pixel that the part covers

Both are stored in steps of 1/255, because a batch carries them: for each image,
a byte for every map and pixel.
"""

import functools
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from cdm.data.transforms import Region

# Standard deviation of a heat map, in its pixels. Ours: what [FSRNet] has was
# not read (UNVERIFIED); stacked hourglass networks, which its prior network is
# made of, were trained with 1 pixel at 64 x 64.
SIGMA = 1.0


def heat_maps(points: np.ndarray, region: Region, *, side: int) -> np.ndarray:
  """Renders the points that a square of a picture shows.

  Args:
    points: [K, 2] (x, y), in pixels of the picture; (0, 0) is the centre of its
      first pixel. A point outside of the square leaves its map empty, but for
      what reaches into it.
    region: the part of the picture that became the square.
    side: H = W of the maps.

  Returns:
    uint8 [side, side, K], 255 where a point is.
  """
  begin = np.array([region.left, region.top])
  extent = np.array([region.width, region.height])
  x, y = (side * (points + 0.5 - begin) / extent).T[..., None]  # [K, 1] each
  centres = np.arange(side) + 0.5
  across = np.exp(-((centres - x) ** 2) / (2 * SIGMA**2))  # [K, side]
  down = np.exp(-((centres - y) ** 2) / (2 * SIGMA**2))
  return _as_bytes(np.einsum('kh,kw->hwk', down, across))


def shares(
  parts: np.ndarray, count: int, region: Region, *, side: int
) -> np.ndarray:
  """Renders what share of each pixel every part covers.

  Args:
    parts: uint8 [H, W], the number of the part that a pixel shows.
    count: P, of parts.
    region: the rectangle of `parts` that becomes the square.
    side: H = W of the maps.

  Returns:
    uint8 [side, side, P]; the parts of a pixel add up to 255, but for rounding.
  """
  height, width = parts.shape
  rows = _covered(height, region.top, region.height, side)
  columns = _covered(width, region.left, region.width, side)
  maps = np.zeros((side, side, count), np.uint8)
  for part in np.flatnonzero(np.bincount(parts.ravel(), minlength=count)):
    mask = (parts == part).astype(np.float32)
    maps[:, :, part] = _as_bytes((columns @ (rows @ mask).T).T)
  return maps


def mirror(maps: np.ndarray, order: Sequence[int]) -> np.ndarray:
  """Returns the maps of a mirrored picture.

  Args:
    maps: [H, W, N].
    order: the N maps of which each takes the place, see `mirrored_names.order`.
  """
  return maps[:, ::-1, list(order)]


def _as_bytes(values):
  return np.rint(255 * values).astype(np.uint8)


@functools.lru_cache(64)
def _covered(old, start, extent, new):
  """Returns how much of a new pixel each of the old ones covers, [new, old].

  Args:
    old: number of old pixels.
    start, extent: the stretch of them that the new pixels divide.
    new: number of new pixels.
  """
  edges = start + extent * np.arange(new + 1) / new
  pixel = np.arange(old)
  first = np.maximum(edges[:-1, None], pixel)
  last = np.minimum(edges[1:, None], pixel + 1)
  overlap = np.maximum(last - first, 0) * new / extent
  return sparse.csr_array(overlap.astype(np.float32))
