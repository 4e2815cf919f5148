"""Turns the planes of a video's frames into RGB, and RGB into planes.

  Y = Kr R + Kg G + Kb B
  Cb = (B - Y) / (2 (1 - Kb)),  Cr = (R - Y) / (2 (1 - Kr))

See ITU-T H.273, 8.3. Colours are those that the transfer function of the file
has made, as in pictures; it and the primaries are carried, not applied. Chroma
of half the width lies on the even columns, and of half the height between two
rows, as MPEG-2 and its successors have it; in JPEG files both lie between.
Linear interpolation doubles it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Code points of H.273.
UNSPECIFIED, LIMITED, FULL = 0, 1, 2  # ranges, in FFmpeg's numbers
UNKNOWN = 2  # of primaries, transfer and matrix
IDENTITY = 0  # the matrix of planes that are green, blue and red
PQ, HLG = 16, 18  # transfer functions of high dynamic range
BT_709, SD = 1, 6  # matrices that players assume, by the height
_HD_ROWS = 577  # from here on, BT.709
# Kr and Kb of each matrix.
_WEIGHTS = {
  1: (0.2126, 0.0722),
  4: (0.30, 0.11),
  5: (0.299, 0.114),
  6: (0.299, 0.114),
  7: (0.212, 0.087),
  9: (0.2627, 0.0593),
}
MATRICES = (IDENTITY, UNKNOWN, *_WEIGHTS)


class Colours(NamedTuple):
  """What the numbers of a video's planes mean.

  Attributes:
    range: `LIMITED`, `FULL` or `UNSPECIFIED`.
    primaries, transfer, matrix: code points of H.273.
  """

  range: int = UNSPECIFIED
  primaries: int = UNKNOWN
  transfer: int = UNKNOWN
  matrix: int = UNKNOWN

  def assumed(self, height: int) -> 'Colours':
    """Returns the same with a matrix, that which players assume.

    Args:
      height: of a frame, in pixels.
    """
    if self.matrix not in (UNKNOWN, IDENTITY):
      return self
    matrix = BT_709 if height >= _HD_ROWS else SD
    return self._replace(matrix=matrix)


def to_rgb(
  planes: Sequence[np.ndarray],
  colours: Colours,
  *,
  bits: int,
  is_centred: bool = False,
) -> np.ndarray:
  """Returns a frame as float32 [H, W, 3] in [-1, 1].

  Args:
    planes: whole numbers: luma [H, W], alone for grey, or with Cb and Cr
      [h, w], of the same size or half of it, rounded up.
    colours: what they mean; `matrix` is one that has weights.
    bits: of a number.
    is_centred: whether chroma lies between two columns.
  """
  y, *chroma = planes
  low, luma, mid, span = _scale(colours, bits)
  light = (y.astype(np.float32) - low) * np.float32(1 / luma)
  if not chroma:
    return np.repeat(_signed(light)[..., None], 3, axis=-1)
  blue, red = (
    _enlarged((c.astype(np.float32) - mid) / np.float32(span), y, is_centred)
    for c in chroma
  )
  kr, kb = _WEIGHTS[colours.matrix]
  rgb = np.empty((*y.shape, 3), np.float32)
  rgb[..., 0] = light + np.float32(2 * (1 - kr)) * red
  rgb[..., 2] = light + np.float32(2 * (1 - kb)) * blue
  rgb[..., 1] = light
  rgb[..., 1] -= np.float32(2 * (1 - kr) * kr / (1 - kr - kb)) * red
  rgb[..., 1] -= np.float32(2 * (1 - kb) * kb / (1 - kr - kb)) * blue
  return _signed(rgb)


def to_planes(
  rgb: np.ndarray, colours: Colours, *, bits: int, is_grey: bool = False
) -> list[np.ndarray]:
  """Returns Y [H, W], Cb and Cr [H/2, W/2] of rows, uint8 or uint16.

  Args:
    rgb: float32 [H, W, 3], clipped to [-1, 1]; H and W are even.
    colours: what the numbers mean.
    bits: of a number, 8 or more.
    is_grey: whether the frame stays grey: the mean of its colours.
  """
  x = (np.clip(rgb, -1.0, 1.0) + np.float32(1)) * np.float32(0.5)
  low, luma, mid, span = _scale(colours, bits)
  dtype = np.uint8 if bits == 8 else np.uint16
  kr, kb = _WEIGHTS[colours.matrix]
  weights = np.array([kr, 1 - kr - kb, kb], np.float32)
  light = x.mean(axis=-1) if is_grey else x @ weights
  found = [light * np.float32(luma) + np.float32(low)]
  for channel, weight in ((2, kb), (0, kr)):
    if is_grey:
      half = [side // 2 for side in light.shape]
      found.append(np.full(half, mid, np.float32))
      continue
    full = (x[..., channel] - light) * np.float32(span / (2 * (1 - weight)))
    found.append(_halved(full) + np.float32(mid))
  return [
    np.clip(np.floor(plane + np.float32(0.5)), 0, 2**bits - 1).astype(dtype)
    for plane in found
  ]


def _scale(colours, bits):
  """Returns (black, white - black, zero of chroma, its span)."""
  unit = 2.0 ** (bits - 8)
  if colours.range == FULL:
    return 0.0, 2.0**bits - 1, 128 * unit, 2.0**bits - 1
  return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def _signed(x):
  return np.clip(2 * x - np.float32(1), -1.0, 1.0)


def _enlarged(c, y, is_centred):
  """Returns chroma of the size of luma."""
  for axis in (0, 1):
    if c.shape[axis] != y.shape[axis]:
      between = axis == 0 or is_centred
      c = _doubled(c, axis, between).take(np.arange(y.shape[axis]), axis)
  return c


def _doubled(c, axis, between):
  """Doubles an axis; its samples lie between two pixels, or on the first."""
  c = np.moveaxis(c, axis, 0)
  after = np.concatenate([c[1:], c[-1:]])
  pairs = np.empty((len(c), 2, *c.shape[1:]), np.float32)
  if between:
    before = np.concatenate([c[:1], c[:-1]])
    pairs[:, 0] = 0.75 * c + 0.25 * before
    pairs[:, 1] = 0.75 * c + 0.25 * after
  else:
    pairs[:, 0] = c
    pairs[:, 1] = 0.5 * c + 0.5 * after
  return np.moveaxis(pairs.reshape(-1, *c.shape[1:]), 0, axis)


def _halved(x):
  """Returns [H, W] on the even columns, between two rows: [H/2, W/2]."""
  rows = 0.5 * (x[0::2] + x[1::2])
  before = np.concatenate([rows[:, :1], rows[:, 1:-1:2]], axis=1)
  return 0.25 * (before + rows[:, 1::2]) + 0.5 * rows[:, 0::2]
