"""Distortion of a picture against its original: MSE, PSNR, SSIM.

  PSNR = 10 log10(255^2 / MSE)
  SSIM = mean over windows of       (2 m_a m_b + C1) (2 s_ab + C2)
                              ---------------------------------------------
                              (m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2)

with m and s the mean and covariance in a window, C1 = (0.01 * 255)^2 and C2 =
(0.03 * 255)^2, [Wang et al. 2004].

Published values differ by up to 2 dB because of conventions, so every result
is to be printed with the text in `CONVENTIONS`.
"""

import numpy as np
from skimage.metrics import structural_similarity

CONVENTIONS = {
  'psnr': 'dB; MSE over all RGB values of an image, peak 255; '
  'mean over images of each PSNR',
  'psnr_y': 'the same on the luma of ITU-R BT.601, '
  '16 + (65.481 R + 128.553 G + 24.966 B) / 255, not rounded, peak 255',
  'ssim': 'scikit-image default: uniform 7x7 windows, sample covariance, '
  'data range 255, mean over RGB channels, 3-pixel border left out',
  'ssim_gaussian': 'Wang et al. 2004: Gaussian 11x11 windows of sigma 1.5, '
  'population covariance, data range 255, mean over RGB channels, '
  '5-pixel border left out',
}
# Window -> (arguments of scikit-image, pixels a side).
WINDOWS = {
  'uniform7': (dict(win_size=7), 7),
  'gaussian11': (
    dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
    11,
  ),
}


def mse(a, b):
  """Mean squared error in squared grey levels.

  Args:
    a, b: [..., H, W, C] images of equal shape, uint8 or levels in 0..255.

  Returns:
    float64 [...], one per image.

  Raises:
    ValueError: shapes differ, or floats that cannot be grey levels.
  """
  a, b = _levels(a, b)
  return np.mean((a - b) ** 2, axis=(-3, -2, -1))


def psnr(a, b):
  """Peak signal-to-noise ratio in dB, +inf for equal images.

  Args:
    a, b: [..., H, W, C], as `mse`.

  Returns:
    float64 [...], one per image.
  """
  with np.errstate(divide='ignore'):
    return 10.0 * np.log10(255.0**2 / mse(a, b))


def ssim(a, b, *, window='uniform7'):
  """Structural similarity, in [-1, 1]; 1 for equal images.

  Args:
    a, b: [..., H, W, C], as `mse`.
    window: 'uniform7' or 'gaussian11', see `CONVENTIONS`.

  Returns:
    float64 [...], one per image.

  Raises:
    ValueError: as `mse`, an unknown window, or images smaller than one.
  """
  if window not in WINDOWS:
    raise ValueError(
      f'The SSIM window is {window!r}; known are {sorted(WINDOWS)}.'
    )
  options, side = WINDOWS[window]
  a, b = _levels(a, b)
  if min(a.shape[-3:-1]) < side:
    raise ValueError(
      f'SSIM with window {window!r} needs images of at least {side}x{side} '
      f'pixels; these are {a.shape[-3]}x{a.shape[-2]}.'
    )
  pairs = zip(
    a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:]), strict=True
  )
  values = [
    structural_similarity(x, y, channel_axis=-1, data_range=255, **options)
    for x, y in pairs
  ]
  return np.reshape(values, a.shape[:-3])


def luma(image):
  """BT.601 studio-range luma as float64, what MATLAB's rgb2ycbcr calls Y.

  Args:
    image: [..., H, W, 3] RGB, uint8 or levels in 0..255.

  Returns:
    float64 [..., H, W, 1] in 16..235, not rounded.
  """
  weights = np.array([65.481, 128.553, 24.966]) / 255.0
  return 16.0 + (np.asarray(image, np.float64) @ weights)[..., None]


def _levels(a, b):
  """-> both as float64 grey levels, or ValueError."""
  a, b = np.asarray(a), np.asarray(b)
  if a.shape != b.shape or a.ndim < 3:
    raise ValueError(
      f'Pairs of images [..., H, W, C] of one shape are compared; given were '
      f'{a.shape} and {b.shape}.'
    )
  for x in (a, b):
    # A range this small is [0, 1] or [-1, 1], which would give a PSNR of 48 dB
    # or more for anything.
    if x.dtype != np.uint8 and x.size and np.abs(x).max() <= 1.0 and x.any():
      raise ValueError(
        f'Images are compared in grey levels 0..255; given was {x.dtype} in '
        f'{x.min():.3g}..{x.max():.3g}. Use images.to_uint8 first.'
      )
  return a.astype(np.float64), b.astype(np.float64)
