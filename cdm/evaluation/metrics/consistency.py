"""Measures how well super-resolved images agree with their low-res inputs.

  consistency = mean (downsample(sr) - lowres)^2, on the [0, 1] scale

[SR3] tab. 1 prints it in units of 1e-5 and does not state the range; on the
[0, 1] scale the paper's 2.68 is an error of 1.3 grey levels. 0 means that
shrinking the image gives back its input, byte for byte.
"""

import numpy as np

from cdm.evaluation.metrics.measure import Pair, PairMeasure
from cdm.ops import resize

CONVENTION = (
  'MSE on the [0, 1] scale between lowres and the image shrunk by {method} '
  'with antialiasing{rounding}; SR3 prints multiples of 1e-5'
)
ROUNDING = {
  True: ', rounded to uint8 as Pillow does',
  False: ', not rounded',
}


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
    ValueError: dtypes or shapes that do not fit, see `check`.
  """
  sr, lowres = np.asarray(sr), np.asarray(lowres)
  check(sr, lowres)
  if rounded:
    shrunk = resize.resize_uint8(sr, lowres.shape[1:3], method=method)
  else:
    shrunk = resize.resize(
      sr.astype(np.float32), lowres.shape[1:3], method=method
    )
  error = np.asarray(shrunk, np.float64) - lowres
  return np.mean((error / 255.0) ** 2, axis=(1, 2, 3))


def convention(method: str, rounded: bool = True) -> str:
  """Returns the sentence to print beside the number, see `consistency`."""
  return CONVENTION.format(method=method, rounding=ROUNDING[rounded])


def check(sr: np.ndarray, lowres: np.ndarray) -> None:
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


def _of_pair(pair: Pair) -> float:
  assert pair.lowres is not None  # the table says that it is needed
  sample, lowres = pair.sample[None], pair.lowres[None]
  return float(consistency(sample, lowres, method=pair.downsample)[0])


CONSISTENCY = PairMeasure(
  _of_pair, lambda downsample, perceptual: convention(downsample)
)
