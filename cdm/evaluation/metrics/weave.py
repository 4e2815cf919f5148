"""Measures the weave that a network of p x p squares leaves on flat areas.

  weave = P(1/p) / mean P(f), f beside 1/p

P is the power spectrum along rows and columns of flat areas, at the frequency f
in cycles per pixel. A pattern that repeats with every square stands out at 1/p;
a photograph has nothing there that it has not beside it, and its weave is 1.
"""

import numpy as np

SEGMENT = 64  # pixels of a row or column whose spectrum is taken
FLAT_RANGE = 12.0  # grey levels between the darkest and the lightest of them
# Hann's window spreads a line over one frequency on either side; the next three
# are the neighbours.
_NEIGHBOURS = (-4, -3, -2, 2, 3, 4)


def spectrum(
  images: list[np.ndarray], flat_in: list[np.ndarray]
) -> tuple[np.ndarray, int]:
  """Sums the power spectra of flat segments of rows and columns.

  Args:
    images: each [H, W], grey levels, not rounded.
    flat_in: the originals, each [H, W], which tell where it is flat.

  Returns:
    (float64 [SEGMENT / 2 + 1], the mean power at k / SEGMENT cycles per pixel,
    number of segments); the power is 0 if there are none.
  """
  total, count = np.zeros(SEGMENT // 2 + 1), 0
  window = np.hanning(SEGMENT + 1)[:-1]
  for image, original in zip(images, flat_in, strict=True):
    for x, y in ((image, original), (image.T, original.T)):
      segments, truth = _segments(x), _segments(y)
      segments = segments[np.ptp(truth, axis=1) <= FLAT_RANGE]
      if len(segments):
        power = np.abs(np.fft.rfft(_without_slope(segments) * window)) ** 2
        total, count = total + power.sum(axis=0), count + len(segments)
  return total / max(count, 1), count


def weave(power: np.ndarray, patch_size: int = 4) -> float:
  """Returns how far a pattern of squares stands out of a spectrum; 1 if not.

  Args:
    power: of `spectrum`.
    patch_size: p, pixels; it divides SEGMENT, and is at least 3.
  """
  k = SEGMENT // patch_size
  beside = np.mean([power[k + offset] for offset in _NEIGHBOURS])
  return float(power[k] / beside) if beside else float('nan')


def _segments(x):
  """Cuts rows into segments: [H, W] -> float64 [N, SEGMENT]."""
  whole = x.shape[1] // SEGMENT * SEGMENT
  return np.asarray(x[:, :whole], np.float64).reshape(-1, SEGMENT)


def _without_slope(segments):
  """Takes the mean and the slope out of each segment, by least squares."""
  t = np.arange(SEGMENT) - (SEGMENT - 1) / 2
  segments = segments - segments.mean(axis=1, keepdims=True)
  slope = segments @ t / (t @ t)
  return segments - slope[:, None] * t
