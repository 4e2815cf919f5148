"""Scores arrays of values in [-1, 1] as `pair_scores` scores images of 8 bits.

  PSNR = 10 log10(2^2 / MSE)

The peak is the range of the values, which are not rounded to levels.
"""

import numpy as np

from cdm.ops import pair_scores, resize

_LEVELS = 127.5  # grey levels of a half of the range


def of_pairs(
  drawn: np.ndarray,
  originals: np.ndarray,
  lowres: np.ndarray,
  *,
  method: str,
) -> dict[str, np.ndarray]:
  """Computes the scores of enlarged arrays.

  Args:
    drawn, originals: float32 [N, H, W, C] in [-1, 1].
    lowres: float32 [N, h, w, C], what was enlarged.
    method: filter of `resize.resize` that made `lowres`.

  Returns:
    {'psnr', 'ssim', 'consistency': float64 [N]}, on the scales of
    `pair_scores`; no SSIM of arrays that are smaller than its window.
  """
  scores = {'psnr': psnr(drawn, originals)}
  _, side = pair_scores.WINDOWS['uniform7']
  if min(drawn.shape[1:3]) >= side:
    scores['ssim'] = ssim(drawn, originals)
  small = resize.resize(drawn, lowres.shape[1:3], method=method)
  error = (np.asarray(small, np.float64) - lowres) / 2.0
  scores['consistency'] = np.mean(error**2, axis=(1, 2, 3))
  return scores


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Computes the peak signal-to-noise ratio in dB, +inf for equal arrays.

  Args:
    a, b: [N, H, W, C] in [-1, 1].

  Returns:
    float64 [N].
  """
  mse = np.mean((a.astype(np.float64) - b) ** 2, axis=(1, 2, 3))
  with np.errstate(divide='ignore'):
    return 10.0 * np.log10(4.0 / mse)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Computes the structural similarity, see `pair_scores.ssim`.

  Args:
    a, b: [N, H, W, C] in [-1, 1].

  Returns:
    float64 [N].
  """
  from skimage.metrics import structural_similarity

  options, _ = pair_scores.WINDOWS['uniform7']
  levels = [(x.astype(np.float64) + 1.0) * _LEVELS for x in (a, b)]
  return np.array(
    [
      structural_similarity(x, y, channel_axis=-1, data_range=255, **options)
      for x, y in zip(*levels, strict=True)
    ]
  )
