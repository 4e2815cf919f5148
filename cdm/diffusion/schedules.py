"""Builds noise schedules and sampling grids, and draws noise levels.

  alpha_bar_t = prod_{i <= t} (1 - beta_i)                      [DDPM] sec. 2
  logsnr_t = log(alpha_bar_t / (1 - alpha_bar_t))
  cosine: alpha_bar(t) ~ cos^2((t / T + s) / (1 + s) * pi / 2)  [IDDPM] eq. 17
  SR3: t ~ U{1..T}, alpha_bar ~ U(alpha_bar_t, alpha_bar_{t-1}) [SR3] sec. 2.4

A schedule is a table of T log-SNRs in float64 on the host; code under jit
closes over it. A grid holds the log-SNRs that a sampler visits, in increasing
order from the noisiest level to the last, which is +inf (x_0 itself) unless the
grid is truncated.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion.process import alpha_sigma

# A table of more steps takes long to make and differs in no digit of float32.
MOST_STEPS = 1_000_000


class Schedule(NamedTuple):
  """A discrete chain of T noise levels.

  Attributes:
    logsnr: [T] float64, strictly decreasing; index 0 is the cleanest level.
  """

  logsnr: np.ndarray

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
  _check_num_steps(num_steps)
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
  _check_num_steps(num_steps)
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


def space_timesteps(num_steps: int, spacing: str | int) -> np.ndarray:
  """Returns the steps that a shorter chain keeps, as Improved DDPM's code does.

  Args:
    num_steps: T of the schedule.
    spacing: 'ddimN' keeps N steps with one integer stride from 0; 'A,B,C'
      splits the chain into three equal sections, the cleanest first, and keeps
      A, B and C steps of them, ends included; '250' is one section.

  Returns:
    int64 [N] increasing.

  Raises:
    ValueError: `spacing` cannot be parsed, or asks for more steps than a
      section has.
  """
  hint = "use 'ddim50', '250' or a list of section counts such as '10,15,20'."
  spacing = str(spacing)  # a plain count may come as a number
  ddim = spacing.startswith('ddim')
  try:
    counts = [int(c) for c in spacing.removeprefix('ddim').split(',')]
  except ValueError:
    counts = []
  if not counts or min(counts) < 1 or (ddim and len(counts) > 1):
    raise ValueError(f'spacing is {spacing!r}; {hint}')
  if ddim:
    return _fixed_stride(num_steps, counts[0])

  size, left_over = divmod(num_steps, len(counts))
  kept, start = [], 0
  for i, count in enumerate(counts):
    length = size + (i < left_over)
    if count > length:
      raise ValueError(
        f'spacing {spacing!r} keeps {count} steps in a section of {length} '
        f'(of {num_steps} in all); ask for at most {length}.'
      )
    stride = (length - 1) / max(count - 1, 1)
    kept.append(start + np.round(np.arange(count) * stride))
    start += length
  return np.concatenate(kept).astype(np.int64)


def _fixed_stride(num_steps, count):
  """Returns steps with the least integer stride that keeps exactly `count`."""
  for stride in range(1, num_steps + 1):
    kept = np.arange(0, num_steps, stride)
    if len(kept) == count:
      return kept
  raise ValueError(
    f'No integer stride keeps exactly {count} of {num_steps} steps; use '
    f"'{count}', or a count such as {len(kept)} that divides {num_steps}."
  )


def full_grid(schedule: Schedule) -> np.ndarray:
  """Returns the grid of all steps and then x_0, float64 [T + 1]."""
  return np.append(schedule.logsnr[::-1], np.inf)


def respaced(schedule: Schedule, *, spacing: str | int) -> np.ndarray:
  """Returns the grid of the steps that `space_timesteps` keeps, then x_0.

  It is float64 [N + 1].
  """
  kept = space_timesteps(schedule.num_steps, spacing)
  return np.append(schedule.logsnr[kept[::-1]], np.inf)


def uniform_logsnr(schedule: Schedule, *, num_steps: int) -> np.ndarray:
  """Returns a grid equally spaced in log-SNR over the schedule, then x_0.

  It is float64 [num_steps + 1]. It suits DPM-Solver++, whose steps are in
  lambda = logsnr / 2.
  """
  _check_num_steps(num_steps)
  if num_steps > 1 and schedule.num_steps < 2:
    raise ValueError(
      f'A schedule of one step has no log-SNR range to put {num_steps} steps '
      'in; use num_steps=1.'
    )
  ends = schedule.logsnr[-1], schedule.logsnr[0]
  return np.append(np.linspace(*ends, num_steps), np.inf)


def truncate(grid: np.ndarray, *, logsnr: float) -> np.ndarray:
  """Ends a grid early, for truncated conditioning, [CDM] sec. 3.2.

  Args:
    grid: float64 [N + 1] increasing.
    logsnr: the log-SNR to stop at; +inf changes nothing.

  Returns:
    float64: the points noisier than logsnr, then logsnr itself.

  Raises:
    ValueError: no point is noisier, so nothing would be sampled.
  """
  grid, logsnr = np.asarray(grid, np.float64), float(logsnr)
  noisier = grid[grid < logsnr]
  if not len(noisier):
    raise ValueError(
      f'Cannot stop sampling at log-SNR {logsnr}: the grid starts at '
      f'{grid[0]}, which is not noisier. Use a smaller augmentation level.'
    )
  return np.append(noisier, logsnr)


def shorten(grid: np.ndarray, *, num_steps: int) -> np.ndarray:
  """Returns a grid of fewer steps, spread evenly over the steps of a grid.

  Args:
    grid: float64 [N + 1] increasing.
    num_steps: M, from 1 to N.

  Returns:
    float64 [M + 1]: M of the first N points, the first and, if M > 1, the N-th
    among them; then the last point.
  """
  kept = space_timesteps(len(grid) - 1, num_steps)
  return np.append(np.asarray(grid, np.float64)[kept], grid[-1])


def _check_num_steps(num_steps):
  if num_steps < 1:
    raise ValueError(f'num_steps is {num_steps}; use at least 1.')
  if num_steps > MOST_STEPS:
    raise ValueError(f'num_steps is {num_steps}; use at most {MOST_STEPS}.')
