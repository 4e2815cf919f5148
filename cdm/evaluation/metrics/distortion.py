"""Computes the distortion of an image against its original: MSE, PSNR, SSIM.

MSE, PSNR and SSIM are computed by `pair_scores`; here are MS-SSIM, luma, and
what `cdm evaluate` needs to know of each metric.

Published values differ by up to 2 dB because of conventions, so print every
result with its text in `CONVENTIONS`.
"""

import numpy as np
from scipy import ndimage

from cdm.evaluation.metrics.measure import PairMeasure
from cdm.ops.pair_scores import WINDOWS, psnr, ssim, to_levels

CONVENTIONS = {
  'psnr': 'dB; MSE over all RGB values of an image, peak 255; '
  'mean over the images whose PSNR is finite in all that is compared',
  'psnr_y': 'the same on the luma of ITU-R BT.601, '
  '16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded, peak 255',
  'ssim': 'scikit-image default: uniform 7x7 windows, sample covariance, '
  'data range 255, mean over RGB channels, 3-pixel border left out',
  'ssim_gaussian': 'Wang et al. 2004: Gaussian 11x11 windows of sigma 1.5, '
  'population covariance, data range 255, mean over RGB channels, '
  '5-pixel border left out',
  'ms_ssim': 'Wang et al. 2003: five scales, weights 0.0448, 0.2856, 0.3001, '
  '0.2363, 0.1333, Gaussian 11x11 windows that lie inside, 2x2 means with a '
  'border of zeros where a side is odd (as pytorch-msssim), mean over channels',
}
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SIDE = 10 * 2 ** (len(MS_WEIGHTS) - 1) + 1  # least side of an image


def ms_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Computes the multi-scale structural similarity, in [0, 1]; 1 for equality.

    MS-SSIM = prod over scales of CS_j^w_j, times SSIM^w of the coarsest

  Args:
    a, b: [..., H, W, C], see `mse`.

  Returns:
    float64 [...], one per image.

  Raises:
    ValueError: an error of `mse`, or the images are smaller than 161 pixels.
  """
  a, b = to_levels(a, b)
  if min(a.shape[-3:-1]) < MS_SIDE:
    raise ValueError(
      f'MS-SSIM needs images of at least {MS_SIDE}x{MS_SIDE} pixels; these are '
      f'{a.shape[-2]}x{a.shape[-3]}.'
    )
  product = np.ones(())
  for i, weight in enumerate(MS_WEIGHTS):
    similarity, contrast = _gaussian_ssim(a, b)
    last = i == len(MS_WEIGHTS) - 1
    # A negative correlation has no root; it counts as 0, as in
    # other implementations.
    factor = np.maximum(similarity if last else contrast, 0.0)
    product = product * factor**weight
    if not last:
      a, b = _halved(a), _halved(b)
  return product.mean(axis=-1)


def _gaussian_ssim(
  a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean SSIM and mean contrast term, [..., H, W, C] -> [..., C]."""
  offsets = np.arange(11) - 5.0
  window = np.exp(-(offsets**2) / (2 * 1.5**2))
  window /= window.sum()

  def blurred(x):
    for axis in (-3, -2):
      x = ndimage.correlate1d(x, window, axis=axis)
    return x[..., 5:-5, 5:-5, :]

  m_a, m_b = blurred(a), blurred(b)
  s_a, s_b = blurred(a * a) - m_a * m_a, blurred(b * b) - m_b * m_b
  s_ab = blurred(a * b) - m_a * m_b
  c_1, c_2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
  contrast = (2 * s_ab + c_2) / (s_a + s_b + c_2)
  similarity = contrast * (2 * m_a * m_b + c_1) / (m_a**2 + m_b**2 + c_1)
  return similarity.mean(axis=(-3, -2)), contrast.mean(axis=(-3, -2))


def _halved(x: np.ndarray) -> np.ndarray:
  """Averages blocks of 2x2 pixels; an odd side gets a border of zeros first."""
  odd = [(0, 0)] * (x.ndim - 3) + [(n % 2, n % 2) for n in x.shape[-3:-1]]
  x = np.pad(x, [*odd, (0, 0)])
  x = x[..., : x.shape[-3] // 2 * 2, : x.shape[-2] // 2 * 2, :]
  rows = x[..., ::2, :, :] + x[..., 1::2, :, :]
  return (rows[..., ::2, :] + rows[..., 1::2, :]) / 4.0


def luma(image: np.ndarray) -> np.ndarray:
  """Computes BT.601 studio-range luma, which MATLAB's rgb2ycbcr calls Y.

  Args:
    image: [..., H, W, 3], RGB, uint8 or levels in 0..255.

  Returns:
    float64 [..., H, W, 1] in 16..235, not rounded.
  """
  weights = np.array([65.481, 128.553, 24.966]) / 255.0
  return 16.0 + (np.asarray(image, np.float64) @ weights)[..., None]


PSNR = PairMeasure(
  lambda pair: float(psnr(pair.sample, pair.reference)), CONVENTIONS['psnr']
)
PSNR_Y = PairMeasure(
  lambda pair: float(psnr(luma(pair.sample), luma(pair.reference))),
  CONVENTIONS['psnr_y'],
)
SSIM = PairMeasure(
  lambda pair: float(ssim(pair.sample, pair.reference)),
  CONVENTIONS['ssim'],
  least_side=WINDOWS['uniform7'][1],
)
SSIM_GAUSSIAN = PairMeasure(
  lambda pair: float(ssim(pair.sample, pair.reference, window='gaussian11')),
  CONVENTIONS['ssim_gaussian'],
  least_side=WINDOWS['gaussian11'][1],
)
MS_SSIM = PairMeasure(
  lambda pair: float(ms_ssim(pair.sample, pair.reference)),
  CONVENTIONS['ms_ssim'],
  least_side=MS_SIDE,
)
