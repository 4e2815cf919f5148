"""Shows where samples of one picture disagree: a map on a fixed scale.

  map = blur(sqrt(sum_k (Y_k - mean Y)^2 / (K - 1)))

in grey levels of luma Y. The scale is never that of the map itself, so that
maps of two pictures can be compared, and a certain picture looks certain.
"""

from collections.abc import Sequence

import numpy as np

WHITE = 24.0  # grey levels at the end of the scale; what is above looks alike
BLUR = 3  # side of the box, in pixels: single pixels are noise of few samples
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
# The colours of the scale, from 0 to `WHITE`, evenly spaced; lightness grows
# all along, so that it reads without colour too. Ours.
SCALE = (
  (8, 10, 36),
  (84, 26, 110),
  (176, 50, 92),
  (240, 120, 48),
  (252, 244, 176),
)


def deviation(samples: Sequence[np.ndarray]) -> np.ndarray:
  """Returns the blurred standard deviation of luma, float32 [H, W].

  Args:
    samples: K >= 2 pictures uint8 or uint16 [H, W, C], of which the first
      channel alone is looked at if C is 1 or 2, and three otherwise.

  Returns:
    Values in levels of 8 bits.
  """
  assert len(samples) >= 2
  first = _luma(samples[0])
  # Of differences from the first one: nothing is lost to a large mean.
  total, squares = np.zeros_like(first), np.zeros_like(first)
  for one in samples[1:]:
    change = _luma(one) - first
    total += change
    squares += change * change
  count = len(samples)
  variance = (squares - total * total / count) / (count - 1)
  return _blurred(np.sqrt(np.maximum(variance, 0)))


def coloured(deviations: np.ndarray) -> np.ndarray:
  """Returns a map as a picture, uint8 [H, W, 3], on the fixed scale."""
  share = np.clip(deviations / WHITE, 0, 1) * (len(SCALE) - 1)
  steps, ends = np.arange(len(SCALE)), np.asarray(SCALE, np.float64)
  channels = [np.interp(share, steps, ends[:, c]) for c in range(3)]
  return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _luma(samples):
  white = np.iinfo(samples.dtype).max
  x = samples.astype(np.float32) * np.float32(255 / white)
  return x[..., 0] if x.shape[-1] < 3 else x[..., :3] @ _LUMA


def _blurred(x):
  """Returns the mean over squares of `BLUR` pixels; borders are repeated."""
  half = BLUR // 2
  padded = np.pad(x, half, 'edge')
  for axis in (0, 1):
    length = x.shape[axis]
    padded = sum(
      np.take(padded, range(k, k + length), axis) for k in range(BLUR)
    ) / np.float32(BLUR)
  return padded
