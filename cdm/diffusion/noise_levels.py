"""Draws the noise levels of training, and tells how densely they lie.

  discrete     t ~ U{0..T-1}, logsnr_t of the table              [DDPM] alg. 1
  piecewise    see `schedules.piecewise_levels`                  [SR3] sec. 2.4
  continuous   t ~ U(0, 1), logsnr(t) of the closed form                [VDM]
  log_normal   ln s ~ N(mean, std^2), s = exp(-logsnr / 2)       [EDM] tab. 1

Every kind maps a uniform u to a level, by the inverse of its distribution
function, so stratified u give stratified levels.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import schedules
from cdm.diffusion.schedules import Schedule

NAMES = ('discrete', 'piecewise', 'continuous')


@dataclasses.dataclass(frozen=True)
class LogNormal:
  """[EDM]'s noise levels, clipped to the range of the schedule.

  Attributes:
    mean, std: of ln s, where s = sigma / alpha; -1.2 and 1.2 are [EDM]'s,
      [EDM2] takes -0.8 and 1.6 for 64x64 ImageNet.

  Raises:
    ValueError: std is not positive.
  """

  mean: float = -1.2
  std: float = 1.2

  def __post_init__(self):
    if not self.std > 0:
      raise ValueError(
        f'std is {self.std}; it is a standard deviation and must be above 0.'
      )


# One of `NAMES`, or a law with options of its own.
Levels = str | LogNormal


def draw(levels: Levels, schedule: Schedule, u: jax.Array) -> jax.Array:
  """Turns u [B] in [0, 1) into log-SNRs [B].

  Args:
    levels: how they are distributed.
    schedule: the noise schedule of training.
    u: [B].
  """
  if isinstance(levels, LogNormal):
    log_s = levels.mean + levels.std * jax.scipy.special.ndtri(u)
    # u = 0 is infinitely clean.
    noisiest, cleanest = float(schedule.logsnr[-1]), float(schedule.logsnr[0])
    return jnp.clip(-2 * log_s, noisiest, cleanest)
  if levels == 'piecewise':
    return schedules.piecewise_levels(schedule, u)
  if levels == 'continuous':
    assert schedule.closed_form is not None  # see `check`
    return schedule.closed_form.logsnr(u)
  t = schedules.discrete_levels(schedule, u)
  return schedules.logsnr_at(schedule, t)


def check(levels: Levels, schedule: Schedule) -> None:
  """Refuses levels that cannot be drawn with a schedule.

  Raises:
    ValueError: the message begins with 'method.levels'.
  """
  if isinstance(levels, LogNormal):
    share = share_beyond(levels, schedule)
    if share > 0.5:
      raise ValueError(
        f'method.levels: {share:.0%} of the levels of ln s ~ N({levels.mean:g},'
        f' {levels.std:g}^2) lie beyond those of the schedule, ln s from '
        f'{-schedule.logsnr[0] / 2:.3g} to {-schedule.logsnr[-1] / 2:.3g}; use '
        'a mean inside that range, or a schedule with other ends.'
      )
    return
  if levels not in NAMES:
    raise ValueError(
      f'method.levels is {levels!r}; use {", ".join(map(repr, NAMES))}, or '
      "dict(kind='log_normal', mean=-1.2, std=1.2)."
    )
  if levels == 'continuous' and schedule.closed_form is None:
    raise ValueError(
      "method.levels 'continuous' draws from the closed form of a schedule, "
      'and this one is a table alone; use --config.method.levels=discrete, or '
      "the schedule.kind 'shifted_cosine' or 'interpolated_cosine'."
    )


def share_beyond(levels: Levels, schedule: Schedule) -> float:
  """Returns the share of the levels that are clipped, 0 for all but log_normal.

  Args:
    levels: how they are distributed.
    schedule: the noise schedule of training.
  """
  if not isinstance(levels, LogNormal):
    return 0.0
  law = statistics.NormalDist(levels.mean, levels.std)
  cleanest, noisiest = -schedule.logsnr[[0, -1]] / 2
  return law.cdf(float(cleanest)) + law.cdf(2 * law.mean - float(noisiest))


def log_spread(
  levels: Levels, schedule: Schedule
) -> Callable[[jax.Array], jax.Array]:
  """Returns the logarithm of -d logsnr / du, as a function of log-SNR.

  It is minus the logarithm of the density of the levels. A mean over drawn
  levels of a loss times the spread is the integral of that loss over log-SNR.
  Of discrete levels it is the sum of the trapezoidal rule.

  Args:
    levels: how they are distributed; not 'piecewise'.
    schedule: the noise schedule of training.

  Returns:
    `(logsnr [B]) -> [B]`.

  Raises:
    ValueError: levels is 'piecewise'.
  """
  if isinstance(levels, LogNormal):
    # u = Phi(z), so du = phi(z) dz.
    scale = math.log(2 * levels.std) + 0.5 * math.log(2 * math.pi)

    def of_normal(logsnr):
      z = (-0.5 * logsnr - levels.mean) / levels.std
      return scale + 0.5 * jnp.square(z)

    return of_normal
  if levels == 'continuous':
    assert schedule.closed_form is not None  # see `check`
    # Equally spaced in log(t / (1 - t)), as densely as the ends need.
    t = 1 / (1 + np.exp(-np.linspace(-16.0, 16.0, 4097)))
    logsnr, spread = (
      schedule.closed_form.logsnr(t),
      schedule.closed_form.rate(t),
    )
  elif levels == 'discrete':
    logsnr, gaps = schedule.logsnr, -np.diff(schedule.logsnr)
    sides = np.concatenate([[0.0], gaps]) + np.concatenate([gaps, [0.0]])
    spread = 0.5 * len(logsnr) * sides
  else:
    raise ValueError(
      f'levels is {levels!r}, whose density is not known in closed form; use '
      "'discrete', 'continuous' or 'log_normal'."
    )
  if len(logsnr) < 2:
    raise ValueError('A schedule of one level has no integral over log-SNR.')

  def of_table(at):
    table = jnp.asarray(logsnr[::-1], at.dtype)
    return jnp.interp(at, table, jnp.asarray(np.log(spread[::-1]), at.dtype))

  return of_table
