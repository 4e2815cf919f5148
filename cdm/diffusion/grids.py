"""Builds the grids of noise levels that samplers visit.

A grid holds log-SNRs in increasing order, float64 on the host, from the
noisiest level to the last, which is +inf (x_0 itself) unless the grid is
truncated.
"""

from collections.abc import Sequence

import numpy as np

from cdm.diffusion.schedules import Schedule, check_num_steps


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
  strides = np.arange(1, num_steps + 1)
  counts = -(-num_steps // strides)
  if count in counts:
    stride = strides[np.argmax(counts == count)]
    return np.arange(0, num_steps, stride)
  nearest = [
    str(counts[counts < count].max(initial=1)),
    *map(str, counts[counts > count][-1:]),
  ]
  raise ValueError(
    f'No integer stride keeps exactly {count} of {num_steps} steps; use '
    f"'{count}', or a count that one keeps, such as {' or '.join(nearest)}."
  )


def full_grid(schedule: Schedule) -> np.ndarray:
  """Returns the grid of all steps and then x_0, float64 [T + 1]."""
  return np.append(schedule.logsnr[::-1], np.inf)


def respaced(schedule: Schedule, *, spacing: str | int) -> np.ndarray:
  """Returns the grid of the steps that `space_timesteps` keeps, then x_0.

  A single step is the noisiest one, because sampling starts from noise alone.
  ([IDDPM]'s code keeps the cleanest one.) 'ddimN' is the code's grid for every
  N; with few steps its first level is far from noise alone.

  Returns:
    float64 [N + 1].
  """
  kept = space_timesteps(schedule.num_steps, spacing)
  if str(spacing) == '1':
    kept = np.array([schedule.num_steps - 1])
  return np.append(schedule.logsnr[kept[::-1]], np.inf)


def uniform_logsnr(schedule: Schedule, *, num_steps: int) -> np.ndarray:
  """Returns a grid equally spaced in log-SNR over the schedule, then x_0.

  It is float64 [num_steps + 1]. It suits DPM-Solver++, whose steps are in
  lambda = logsnr / 2.
  """
  check_num_steps(num_steps)
  if num_steps > 1 and schedule.num_steps < 2:
    raise ValueError(
      f'A schedule of one step has no log-SNR range to put {num_steps} steps '
      'in; use num_steps=1.'
    )
  ends = schedule.logsnr[-1], schedule.logsnr[0]
  return np.append(np.linspace(*ends, num_steps), np.inf)


def uniform_t(schedule: Schedule, *, num_steps: int) -> np.ndarray:
  """Returns a grid equally spaced in t from T - 1 to 0, then x_0.

  Levels between two steps of the schedule are interpolated in log-SNR, as
  `schedules.t_from_logsnr` reads them. It is float64 [num_steps + 1].
  """
  check_num_steps(num_steps)
  return _at(schedule, np.linspace(schedule.num_steps - 1, 0, num_steps))


def trailing(schedule: Schedule, *, num_steps: int) -> np.ndarray:
  """Returns a grid equally spaced in t that ends one stride before 0, then x_0.

  With few steps none of them is spent on an image that is clean already
  ([Lin] sec. 3.3, "trailing"). It is float64 [num_steps + 1].
  """
  check_num_steps(num_steps)
  last = schedule.num_steps
  if num_steps > last:
    raise ValueError(
      f'num_steps is {num_steps}, more than the {last} steps of the schedule.'
    )
  t = last - np.arange(num_steps) * (last / num_steps) - 1
  return _at(schedule, t)


def _at(schedule: Schedule, t: np.ndarray) -> np.ndarray:
  """Returns the grid of fractional steps t, falling, then x_0."""
  if len(t) > 1 and schedule.num_steps < 2:
    raise ValueError(
      f'A schedule of one step has no room for {len(t)}; use num_steps=1.'
    )
  table = np.arange(schedule.num_steps)
  return np.append(np.interp(t, table, schedule.logsnr), np.inf)


def rho(
  schedule: Schedule,
  *,
  num_steps: int,
  power: float = 7.0,
  sigma_min: float | None = None,
  sigma_max: float | None = None,
) -> np.ndarray:
  """Returns the grid of [EDM] eq. 5, equally spaced in sigma^(1 / rho).

  Args:
    schedule: the noise schedule of training, whose ends are the default.
    num_steps: N.
    power: rho.
    sigma_min, sigma_max: the ends, as sigma / alpha = exp(-logsnr / 2).

  Returns:
    float64 [N + 1], log-SNRs; the last is that of x_0.
  """
  check_num_steps(num_steps)
  high = np.exp(-schedule.logsnr[-1] / 2) if sigma_max is None else sigma_max
  low = np.exp(-schedule.logsnr[0] / 2) if sigma_min is None else sigma_min
  if not power > 0:
    raise ValueError(f'power is {power}; use a number above 0, e.g. 7.')
  if not 0 < low < high and not (num_steps == 1 and 0 < low <= high):
    raise ValueError(
      f'sigma_min is {low:g} and sigma_max is {high:g}; use 0 < sigma_min < '
      'sigma_max.'
    )
  roots = np.linspace(high ** (1 / power), low ** (1 / power), num_steps)
  return np.append(-2 * power * np.log(roots), np.inf)


def levels(*, logsnrs: Sequence[float]) -> np.ndarray:
  """Returns a grid of given levels, then x_0.

  Args:
    logsnrs: N log-SNRs, rising.

  Returns:
    float64 [N + 1].

  Raises:
    ValueError: there are none, or they do not rise.
  """
  grid = np.asarray(logsnrs, np.float64)
  if grid.ndim != 1 or not len(grid) or not np.isfinite(grid).all():
    raise ValueError(
      f'logsnrs is {logsnrs!r}; give one or more log-SNRs, e.g. (-8.0, 0.0).'
    )
  if not (np.diff(grid) > 0).all():
    raise ValueError(f'logsnrs is {logsnrs!r}; the levels must rise.')
  return np.append(grid, np.inf)


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


def begin(grid: np.ndarray, *, logsnr: float) -> np.ndarray:
  """Begins a grid late, at a noised image, [SDEdit] alg. 1.

  Args:
    grid: float64 [N + 1] increasing.
    logsnr: the log-SNR to begin at; one that is no cleaner than the first point
      changes nothing.

  Returns:
    float64: logsnr itself, then the points that are cleaner.

  Raises:
    ValueError: no point is cleaner, so nothing would be sampled.
  """
  grid, logsnr = np.asarray(grid, np.float64), float(logsnr)
  if logsnr <= grid[0]:
    return grid
  cleaner = grid[grid > logsnr]
  if not len(cleaner):
    raise ValueError(
      f'Cannot start sampling at log-SNR {logsnr:g}: the grid ends at '
      f'{grid[-1]:g}, which is not cleaner. Use a larger start level.'
    )
  return np.append(logsnr, cleaner)


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
