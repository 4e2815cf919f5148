"""The power-function average of [EDM2] sec. 3.1, and its fit afterwards.

  average_t = beta_t average_{t-1} + (1 - beta_t) theta_t
  beta_t    = (1 - 1 / t)^(gamma + 1)
  response  = (gamma + 1) tau^gamma / t^(gamma + 1),  0 <= tau <= t
  std       = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))

The response is the density with which the parameters of time tau are in the
average of time t. Its standard deviation, as a share of t, is the width `std`,
which stays the same however long a run is. An average of another width is a sum
of averages that were kept at some times: the one whose response is nearest to
the wanted response, by least squares ([EDM2] sec. 3.2).

Everything here is float64 on the host.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# The width of gamma = 0, the plain mean of all parameters. Wider ones would
# weigh the first parameters most.
MOST_STD = 12**-0.5


class Fit(NamedTuple):
  """A response as a sum of others.

  Attributes:
    coefficients: [N], which sum to 1.
    residual: norm of what the sum lacks of the wanted response, divided by the
      norm of that.
    gain: norm of the coefficients, by which independent errors of the averages
      grow.
    condition: condition number of the linear system.
  """

  coefficients: np.ndarray
  residual: float
  gain: float
  condition: float


def exponent(std: float) -> float:
  """Returns gamma, at least 0, of a width.

  It is the largest root of g^3 + 7 g^2 + (16 - std^-2) g + (12 - std^-2).

  Args:
    std: the relative standard deviation, above 0 and at most `MOST_STD`.

  Raises:
    ValueError: there is no such average.
  """
  if not 0.0 < std <= MOST_STD:
    raise ValueError(
      f'the width {std} of an average must be above 0 and at most '
      f'{MOST_STD:.4f}, for example 0.05'
    )
  t = float(std) ** -2
  roots = np.roots([1.0, 7.0, 16.0 - t, 12.0 - t])
  return float(max(roots.real[np.abs(roots.imag) < 1e-6 * np.abs(roots)]))


def width(gamma: float | np.ndarray) -> float | np.ndarray:
  """Returns the width `std` of an exponent."""
  return np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def beta(
  t: float | np.ndarray, gamma: float | np.ndarray, delta: float = 1.0
) -> float | np.ndarray:
  """Returns the share of the old average at an update.

  Args:
    t: time after the update, in steps or in images.
    gamma: the exponent.
    delta: time since the update before, in the same unit.
  """
  return (1 - delta / np.asarray(t, np.float64)) ** (gamma + 1)


def correlation(
  a: float | np.ndarray,
  a_gamma: float | np.ndarray,
  b: float | np.ndarray,
  b_gamma: float | np.ndarray,
) -> np.ndarray:
  """Returns the inner product of two responses, the integral of their product.

  (g_a + 1) (g_b + 1) / (g_a + g_b + 1) min(a, b)^(g_a + g_b + 1) /
  (a^(g_a + 1) b^(g_b + 1)), without a power that overflows.

  Args:
    a, b: times of the averages.
    a_gamma, b_gamma: their exponents; everything is broadcast.
  """
  early, late = np.minimum(a, b), np.maximum(a, b)
  of_later = np.where(a <= b, b_gamma, a_gamma)
  ratio = (early / late) ** of_later / late
  return (a_gamma + 1) * (b_gamma + 1) / (a_gamma + b_gamma + 1) * ratio


def fits(
  times: Sequence[float],
  stds: Sequence[float],
  *,
  time: float,
  wanted: Sequence[float],
) -> list[Fit]:
  """Returns how to sum averages to those of other widths.

  Args:
    times: [N], when the averages were kept.
    stds: [N], their widths.
    time: that of the wanted averages.
    wanted: [M], their widths.

  Returns:
    [M] Fits.

  Raises:
    ValueError: there is no average of such a width.
  """
  t = np.asarray(times, np.float64)
  gamma = np.array([exponent(s) for s in stds])
  aims = np.array([exponent(s) for s in wanted])
  system = correlation(t[:, None], gamma[:, None], t[None], gamma[None])
  right = correlation(t[:, None], gamma[:, None], time, aims[None])  # [N, M]
  found = np.linalg.solve(system, right)
  found /= found.sum(axis=0)
  squares = correlation(time, aims, time, aims)
  lacking = squares - 2 * (found * right).sum(axis=0)
  lacking += (found * (system @ found)).sum(axis=0)
  residuals = np.sqrt(np.maximum(lacking, 0.0) / squares)
  gains = np.linalg.norm(found, axis=0)
  condition = float(np.linalg.cond(system))
  return [
    Fit(found[:, m], float(residuals[m]), float(gains[m]), condition)
    for m in range(len(aims))
  ]


def fit(
  times: Sequence[float], stds: Sequence[float], *, time: float, std: float
) -> Fit:
  """Returns how to sum averages to that of one other width; see `fits`."""
  return fits(times, stds, time=time, wanted=[std])[0]
