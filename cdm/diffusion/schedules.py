"""Builds noise schedules, and draws noise levels.

  alpha_bar_t = prod_{i <= t} (1 - beta_i)                      [DDPM] sec. 2
  logsnr_t = log(alpha_bar_t / (1 - alpha_bar_t))
  cosine: alpha_bar(t) ~ cos^2((t / T + s) / (1 + s) * pi / 2)  [IDDPM] eq. 17
  SR3: t ~ U{1..T}, alpha_bar ~ U(alpha_bar_t, alpha_bar_{t-1}) [SR3] sec. 2.4

A schedule is a table of T log-SNRs in float64 on the host; code under jit
closes over it. Some schedules have a closed form as well (`cosine_logsnr`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion.process import alpha_sigma

# A table of more steps takes long to make and differs in no digit of float32.
MOST_STEPS = 1_000_000


class ClosedForm(NamedTuple):
  """A schedule as a function of continuous time.

  Attributes:
    logsnr: t in [0, 1] -> log-SNR, strictly decreasing, t = 0 is the cleanest
      level; NumPy gives float64, JAX its own dtype.
    rate: float64 t -> -d logsnr / dt > 0, on the host.
  """

  logsnr: Callable[[Any], Any]
  rate: Callable[[np.ndarray], np.ndarray]


class Schedule(NamedTuple):
  """A discrete chain of T noise levels.

  Attributes:
    logsnr: [T] float64, strictly decreasing; index 0 is the cleanest level.
    closed_form: the function of which the table holds the values at t = 1 / T,
      2 / T, ..., 1; None if there is none.
  """

  logsnr: np.ndarray
  closed_form: ClosedForm | None = None

  @property
  def num_steps(self) -> int:
    """T, the number of noise levels."""
    return len(self.logsnr)


def from_betas(betas: np.ndarray) -> Schedule:
  """Returns the schedule of the given variances of q(x_t | x_{t-1}).

  Args:
    betas: [T] variances in (0, 1).
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or not len(betas):
    raise ValueError(f'betas has shape {betas.shape}; give one [T], T >= 1.')
  if not (np.all(betas > 0) and np.all(betas < 1)):
    raise ValueError(
      f'betas span [{betas.min()}, {betas.max()}]; every one must lie strictly '
      'between 0 and 1.'
    )
  log_alpha_bar = np.cumsum(np.log1p(-betas))
  return Schedule(log_alpha_bar - np.log(-np.expm1(log_alpha_bar)))


def cosine(
  num_steps: int, *, offset: float = 0.008, max_beta: float = 0.999
) -> Schedule:
  """Returns the cosine schedule, [IDDPM] eq. 17, betas clipped at max_beta."""
  check_num_steps(num_steps)
  if not 0 <= offset <= 1:
    raise ValueError(f'offset is {offset}; use one from 0 to 1, e.g. 0.008.')
  if not 0 < max_beta < 1:
    raise ValueError(f'max_beta is {max_beta}; use one between 0 and 1.')
  time = np.arange(num_steps + 1) / num_steps
  signal = np.cos((time + offset) / (1 + offset) * np.pi / 2) ** 2
  return from_betas(np.minimum(1 - signal[1:] / signal[:-1], max_beta))


def linear(num_steps: int, *, beta_min: float, beta_max: float) -> Schedule:
  """Returns the linear schedule, with equally spaced betas, [DDPM] sec. 4.

  The betas are not rescaled with num_steps: [DDPM] uses 1e-4 to 0.02 at
  T = 1000, [IDDPM]'s code scales both ends by 1000 / T for another T.
  """
  check_num_steps(num_steps)
  if not 0 < beta_min < 1:
    raise ValueError(f'beta_min is {beta_min}; use one between 0 and 1.')
  if not beta_min <= beta_max < 1:
    raise ValueError(
      f'beta_max is {beta_max}; use one from beta_min = {beta_min} to below 1.'
    )
  return from_betas(np.linspace(beta_min, beta_max, num_steps))


def logsnr_at(schedule: Schedule, t: jax.Array) -> jax.Array:
  """Returns the log-SNR [B] of t [B] int32 in 0..T-1, in JAX's float dtype."""
  return jnp.asarray(schedule.logsnr)[t]


def t_from_logsnr(schedule: Schedule, logsnr: jax.Array) -> jax.Array:
  """Inverts the table, for a network that was trained on an integer t.

  Args:
    schedule: a chain of T steps.
    logsnr: [B].

  Returns:
    [B] float32 in [0, T - 1]: exactly t where logsnr is entry t rounded to
    logsnr's dtype, interpolated linearly between entries, and the nearest end
    outside the table.
  """
  table = jnp.asarray(schedule.logsnr, logsnr.dtype)  # [T]
  last = schedule.num_steps - 1
  below = jnp.searchsorted(-table, -logsnr, side='right') - 1
  below = jnp.clip(below, 0, last)
  above = jnp.minimum(below + 1, last)
  gap = table[below] - table[above]
  fraction = (table[below] - logsnr) / jnp.where(gap > 0, gap, 1)
  fraction = jnp.clip(jnp.where(gap > 0, fraction, 0), 0, 1)
  return below.astype(jnp.float32) + fraction.astype(jnp.float32)


def stratified(key: jax.Array, n: int) -> jax.Array:
  """Draws low-discrepancy uniform numbers, one per example of a batch.

  All examples share one offset, as in [VDM], and the n intervals of width 1/n
  are assigned to them at random. Each number alone is uniform, and two
  quantities drawn this way for one batch (time and augmentation level) are
  uncorrelated.

  Args:
    key: JAX random key.
    n: size of the global batch.

  Returns:
    u: [n] in [0, 1), exactly one in each [k / n, (k + 1) / n).
  """
  offset_key, order_key = jax.random.split(key)
  offset = jax.random.uniform(offset_key)
  k = jax.random.permutation(order_key, n).astype(offset.dtype)
  # A sum that rounds up would leave its interval, and the last would become 1.
  return jnp.minimum((k + offset) / n, jnp.nextafter((k + 1) / n, 0.0))


def discrete_levels(schedule: Schedule, u: jax.Array) -> jax.Array:
  """Turns u [B] in [0, 1) into t [B] int32, uniform over 0..T-1."""
  # No u below 1 is rounded up to T: the next float below T is nearer.
  return (u * schedule.num_steps).astype(jnp.int32)


def piecewise_levels(schedule: Schedule, u: jax.Array) -> jax.Array:
  """Turns u into a noise level as SR3 draws it in training, [SR3] sec. 2.4.

  t is uniform over the steps, then gamma = alpha_bar is uniform between
  alpha_bar_t and alpha_bar_{t-1}, where alpha_bar before step 0 is 1.
  Sampling feeds the network alpha_bar_t, the noisy end of the interval.

  Args:
    schedule: a chain of T steps.
    u: [B] in [0, 1). The integer part of T u is the step and its fraction the
      position in that step's interval, so stratified u give stratified levels.

  Returns:
    logsnr: [B]; at u = t / T it is that of step t, up to rounding.
  """
  t = discrete_levels(schedule, u)
  # The position is never 1, so the noise never vanishes and log-SNR is finite.
  position = u * schedule.num_steps - t
  # Signal and noise power are interpolated separately, because 1 - gamma has no
  # digits left near gamma = 1.
  signal, noise = (power**2 for power in alpha_sigma(schedule.logsnr))

  def between(noisy, clean):
    noisy, clean = jnp.asarray(noisy)[t], jnp.asarray(clean)[t]
    return noisy + position * (clean - noisy)

  signal = between(signal, np.concatenate([[1.0], signal[:-1]]))
  noise = between(noise, np.concatenate([[0.0], noise[:-1]]))
  return jnp.log(signal) - jnp.log(noise)


def check_num_steps(num_steps: int) -> None:
  """Raises ValueError unless a table of so many steps can be made."""
  if num_steps < 1:
    raise ValueError(f'num_steps is {num_steps}; use at least 1.')
  if num_steps > MOST_STEPS:
    raise ValueError(f'num_steps is {num_steps}; use at most {MOST_STEPS}.')
