"""Builds the cosine schedules of simple diffusion, given by their log-SNR.

  cosine(t) = -2 log tan(a_0 + t (a_1 - a_0)),   tan a_0 = exp(-logsnr_max / 2),
                                                 tan a_1 = exp(-logsnr_min / 2)
  shifted:       cosine(t) + 2 log(noise_size / d)
  interpolated:  t (shifted by noise_size_low)
                 + (1 - t) (shifted by noise_size_high)

[SiD] sec. 3.1 and the code of its appendix. d is the side of the images. A
picture of d pixels at the shifted log-SNR, averaged down to noise_size pixels,
is as noisy as one of that size is on the plain cosine schedule. The bounds hold
before the shift. Without bounds they are 0 and pi / 2 and the cosine is
-2 log tan(pi t / 2), whose ends are infinite.

A schedule holds both forms: the closed one in t from 0 (clean) to 1, for
`levels='continuous'`, and the table at t = 1 / T, 2 / T, ..., 1 for a chain of
T steps, for grids and for all that asks for the ends of a schedule.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from cdm.diffusion.schedules import ClosedForm, Schedule, check_num_steps

LOGSNR_MIN, LOGSNR_MAX = -15.0, 15.0


@dataclasses.dataclass(frozen=True)
class _Cosine:
  """The closed form; NumPy gives float64 and JAX its own dtype.

  Attributes:
    clean, noisy: the angles a_0 and pi / 2 - a_1.
    high, low: the shift of log-SNR at t = 0 and at t = 1.
  """

  clean: float
  noisy: float
  high: float
  low: float

  def logsnr(self, t: Any) -> Any:
    """Returns the log-SNR of t in [0, 1]."""
    xp = np if isinstance(t, np.ndarray | np.generic | float) else jnp
    # Each half of the range is measured from its own end, because an angle near
    # pi / 2 has lost the digits of its tangent.
    range_ = np.pi / 2 - self.noisy - self.clean
    early = t < 0.5
    angle = xp.where(early, self.clean, self.noisy) + range_ * xp.where(
      early, t, 1 - t
    )
    cosine = xp.where(early, -2.0, 2.0) * xp.log(xp.tan(angle))
    return cosine + t * self.low + (1 - t) * self.high

  def rate(self, t: np.ndarray) -> np.ndarray:
    """Returns -d logsnr / dt of t in [0, 1], float64."""
    range_ = np.pi / 2 - self.noisy - self.clean
    return 4 * range_ / np.sin(2 * (self.clean + t * range_)) + (
      self.high - self.low
    )


def shifted_cosine(
  num_steps: int,
  *,
  image_size: int,
  noise_size: int,
  logsnr_min: float = LOGSNR_MIN,
  logsnr_max: float = LOGSNR_MAX,
) -> Schedule:
  """Returns the cosine schedule shifted for larger images, [SiD].

  Args:
    num_steps: T.
    image_size: d, the side of the images.
    noise_size: side of the images for which the plain cosine is right, 64 or 32
      in the paper; image_size shifts nothing.
    logsnr_min, logsnr_max: the ends before the shift.
  """
  return interpolated_cosine(
    num_steps,
    image_size=image_size,
    noise_size_low=noise_size,
    noise_size_high=noise_size,
    logsnr_min=logsnr_min,
    logsnr_max=logsnr_max,
  )


def interpolated_cosine(
  num_steps: int,
  *,
  image_size: int,
  noise_size_low: int,
  noise_size_high: int,
  logsnr_min: float = LOGSNR_MIN,
  logsnr_max: float = LOGSNR_MAX,
) -> Schedule:
  """Returns the cosine schedule between two shifts, [SiD] sec. 3.1.

  Args:
    num_steps, image_size, logsnr_min, logsnr_max: as in `shifted_cosine`.
    noise_size_low: of the noisiest level.
    noise_size_high: of the cleanest level.

  Raises:
    ValueError: a size is not positive, or one pair is in the wrong order.
  """
  check_num_steps(num_steps)
  # The first is first where both are the one size of `shifted_cosine`.
  if noise_size_low < 1:
    raise ValueError(
      f'A noise size is {noise_size_low}; it is the side of an image, at '
      'least 1.'
    )
  if noise_size_high < noise_size_low:
    raise ValueError(
      f'noise_size_high is {noise_size_high}, below noise_size_low = '
      f'{noise_size_low}; the cleaner end has the larger size.'
    )
  if not logsnr_min < logsnr_max:
    raise ValueError(
      f'logsnr_min is {logsnr_min}; it must be below logsnr_max = {logsnr_max}.'
    )
  form = _Cosine(
    clean=float(np.arctan(np.exp(-logsnr_max / 2))),
    noisy=float(np.arctan(np.exp(logsnr_min / 2))),
    high=2 * float(np.log(noise_size_high / image_size)),
    low=2 * float(np.log(noise_size_low / image_size)),
  )
  t = np.arange(1, num_steps + 1) / num_steps
  return Schedule(form.logsnr(t), ClosedForm(form.logsnr, form.rate))
