"""Scores images against their originals or low-res inputs: PSNR, SSIM and such.

  PSNR = 10 log10(255^2 / MSE)
  SSIM = mean over windows of       (2 m_a m_b + C1) (2 s_ab + C2)
                              ---------------------------------------------
                              (m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2)
  consistency = mean (downsample(sr) - lowres)^2, on the [0, 1] scale

with m and s the mean and covariance in a window, C1 = (0.01 * 255)^2 and C2 =
(0.03 * 255)^2, [Wang et al. 2004].

The metrics of `cdm evaluate` and the evaluations in training both compute these
functions, so that their numbers cannot disagree.
"""

import numpy as np

from cdm.ops import resize

# Window -> (arguments of scikit-image, side in pixels).
WINDOWS = {
  'uniform7': (dict(win_size=7), 7),
  'gaussian11': (
    dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False),
    11,
  ),
}


def mse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Computes the mean squared error in squared grey levels.

  Args:
    a, b: [..., H, W, C] images of equal shape, uint8 or levels in 0..255.

  Returns:
    float64 [...], one per image.

  Raises:
    ValueError: the shapes differ, or the values cannot be grey levels.
  """
  a, b = to_levels(a, b)
  return np.mean((a - b) ** 2, axis=(-3, -2, -1))


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Computes the peak signal-to-noise ratio in dB, +inf for equal images.

  Args:
    a, b: [..., H, W, C], see `mse`.

  Returns:
    float64 [...], one per image.
  """
  with np.errstate(divide='ignore'):
    return 10.0 * np.log10(255.0**2 / mse(a, b))


def ssim(
  a: np.ndarray, b: np.ndarray, *, window: str = 'uniform7'
) -> np.ndarray:
  """Computes the structural similarity, in [-1, 1]; 1 for equal images.

  Args:
    a, b: [..., H, W, C], see `mse`.
    window: 'uniform7' or 'gaussian11', see `CONVENTIONS`.

  Returns:
    float64 [...], one per image.

  Raises:
    ValueError: an error of `mse`, or the window is unknown or larger than the
      images.
  """
  if window not in WINDOWS:
    raise ValueError(
      f'The SSIM window is {window!r}; known are {sorted(WINDOWS)}.'
    )
  # Imported here, because a run that scores no pairs need not wait for it.
  from skimage.metrics import structural_similarity

  options, side = WINDOWS[window]
  a, b = to_levels(a, b)
  if min(a.shape[-3:-1]) < side:
    raise ValueError(
      f'SSIM with window {window!r} needs images of at least {side}x{side} '
      f'pixels; these are {a.shape[-2]}x{a.shape[-3]}.'
    )
  pairs = zip(
    a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:]), strict=True
  )
  values = [
    structural_similarity(x, y, channel_axis=-1, data_range=255, **options)
    for x, y in pairs
  ]
  return np.reshape(values, a.shape[:-3])


def consistency(
  sr: np.ndarray,
  lowres: np.ndarray,
  *,
  method: str = 'bicubic',
  rounded: bool = True,
) -> np.ndarray:
  """Computes the mean squared error between shrunk images and their inputs.

  Args:
    sr: uint8 [N, H, W, C], super-resolved images.
    lowres: uint8 [N, h, w, C], the inputs that they were made from.
    method: filter of `resize.resize` that made the low-res images.
    rounded: round the shrunk images to uint8, as the low-res images were. With
      False the shrunk images stay floats, and even the original has the
      rounding error 1 / (12 * 255^2).

  Returns:
    float64 [N].

  Raises:
    ValueError: dtypes or shapes that do not fit, see `check_pair`.
  """
  sr, lowres = np.asarray(sr), np.asarray(lowres)
  check_pair(sr, lowres)
  if rounded:
    shrunk = resize.resize_uint8(sr, lowres.shape[1:3], method=method)
  else:
    shrunk = resize.resize(
      sr.astype(np.float32), lowres.shape[1:3], method=method
    )
  error = np.asarray(shrunk, np.float64) - lowres
  return np.mean((error / 255.0) ** 2, axis=(1, 2, 3))


def check_pair(sr: np.ndarray, lowres: np.ndarray) -> None:
  """Raises ValueError unless `lowres` can be inputs of the images `sr`."""
  if sr.dtype != np.uint8 or lowres.dtype != np.uint8:
    raise ValueError(
      f'consistency compares uint8 images, but these are {sr.dtype} '
      f'and {lowres.dtype}. Use pixels.to_uint8 first.'
    )
  if sr.ndim != 4 or lowres.ndim != 4 or sr.shape[::3] != lowres.shape[::3]:
    raise ValueError(
      'consistency takes sr [N, H, W, C] and lowres [N, h, w, C]; the shapes '
      f'are {sr.shape} and {lowres.shape}.'
    )
  (height, width), (h, w) = sr.shape[1:3], lowres.shape[1:3]
  if h > height or w > width or height * w != width * h:
    raise ValueError(
      f'An image of {width}x{height} pixels cannot come from a low-res one of '
      f'{w}x{h}; the low-res image has the same aspect ratio and is no larger.'
    )


def to_levels(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns both as float64; raises ValueError unless they are grey levels."""
  a, b = np.asarray(a), np.asarray(b)
  if a.shape != b.shape or a.ndim < 3:
    raise ValueError(
      f'Pairs of images [..., H, W, C] of one shape are compared; the shapes '
      f'are {a.shape} and {b.shape}.'
    )
  for x in (a, b):
    # So small a range is [0, 1] or [-1, 1], in which any two images would have
    # a PSNR of 48 dB or more.
    if x.dtype != np.uint8 and x.size and np.abs(x).max() <= 1.0 and x.any():
      raise ValueError(
        f'Images are compared in grey levels 0..255, but these are '
        f'{x.dtype} in {x.min():.3g}..{x.max():.3g}. Use pixels.to_uint8 first.'
      )
  return a.astype(np.float64), b.astype(np.float64)
