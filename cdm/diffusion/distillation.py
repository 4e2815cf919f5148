"""Computes what a student of fewer steps has to predict, and its loss.

A step of DDIM from the level t to s < t goes to

  x_s = (sigma_s / sigma_t) x_t + alpha_s f(t, s) x_0,
  f(t, s) = 1 - exp((logsnr_t - logsnr_s) / 2)                 [DDIM] eq. 12

for a predicted x_0. Two of them, t -> m with the prediction x_1 and m -> s with
x_2, end where a single one ends that predicts

  x~ = (x_s - (sigma_s / sigma_t) x_t) / (alpha_s - (sigma_s / sigma_t) alpha_t)
     = w x_1 + (1 - w) x_2,                                     [PD] alg. 2
  w = exp((logsnr_m - logsnr_s) / 2) f(t, m) / f(t, s)

The first form, of the paper, subtracts what is nearly equal; the second is the
same and a mean of both predictions. x_1 and x_2 are both the teacher's in
progressive distillation; in consistency distillation the second one is the
student's own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import grids, process, schedules
from cdm.diffusion.parameterization import Denoiser, Prediction
from cdm.diffusion.process import expand_like

TARGETS = ('x_0', 'v')


class Halving(NamedTuple):
  """The steps of a student, each beside the two of its teacher.

  Attributes:
    start: [N] float64, rising log-SNR at which a step begins.
    middle: [N], where the teacher's second step begins.
    end: [N], where both end; the last is +inf, x_0.
    share: [N], w, the weight of the teacher's first prediction.
  """

  start: np.ndarray
  middle: np.ndarray
  end: np.ndarray
  share: np.ndarray

  @property
  def grid(self) -> np.ndarray:
    """The grid of the student, float64 [N + 1]."""
    return np.append(self.start, self.end[-1])


def halving(schedule: schedules.Schedule, *, num_steps: int) -> Halving:
  """Returns the steps of a student of `grids.trailing`, [PD] alg. 2.

  Its grid is every second level of the one with twice as many steps, so the
  grids of N, N / 2, ..., 1 steps are nested. All begin at the noisiest level of
  the schedule.

  Args:
    schedule: the noise schedule of training, of 2 N levels or more.
    num_steps: N.

  Raises:
    ValueError: the schedule has too few levels.
  """
  most = schedule.num_steps
  if not 1 <= num_steps <= most // 2:
    raise ValueError(
      f'num_steps is {num_steps}; the teacher takes twice as many steps, which '
      f'the schedule of {most} levels has for 1 to {most // 2}.'
    )
  grid = grids.trailing(schedule, num_steps=2 * num_steps)
  start, middle, end = grid[:-1:2], grid[1::2], grid[2::2]
  return Halving(start, middle, end, first_share(start, middle, end))


def first_share(
  logsnr_t: np.ndarray, logsnr_m: np.ndarray, logsnr_s: np.ndarray
) -> np.ndarray:
  """Returns w, the weight of the first of two predictions, in float64.

  Args:
    logsnr_t, logsnr_m, logsnr_s: log-SNRs of the levels, any shape; rising in
      this order, of which the last two may be equal (w is 1) and the last may
      be +inf (w is 0).
  """
  t, m, s = (np.asarray(x, np.float64) for x in (logsnr_t, logsnr_m, logsnr_s))
  second = np.exp(np.where(m == s, 0.0, (m - s) / 2))
  return second * np.expm1((t - m) / 2) / np.expm1((t - s) / 2)


class Neighbours(NamedTuple):
  """Two neighbouring steps of a teacher, one pair for each example.

  Attributes:
    start: [B] log-SNR of the noisier one.
    middle: [B] of the cleaner one; it may be +inf.
    end: [B], at which the segment of both ends; `middle`, or cleaner.
  """

  start: jax.Array
  middle: jax.Array
  end: jax.Array


def neighbours(
  schedule: schedules.Schedule,
  u: jax.Array,
  *,
  segments: int,
  per_segment: jax.Array,
) -> Neighbours:
  """Draws neighbouring levels of `grids.trailing`, [MCM] alg. 1.

  Args:
    schedule: the noise schedule of training.
    u: [B] in [0, 1), uniform over the steps.
    segments: K.
    per_segment: int [] or [B], steps of the teacher in every segment; K times
      as many are at most the levels of the schedule.
  """
  steps = segments * per_segment
  j = jnp.minimum((u * steps).astype(jnp.int32), steps - 1)
  segment = j // per_segment

  def level(whole, of):
    """The log-SNR at the share whole / of of the schedule, from x_0 on."""
    t = whole * (schedule.num_steps / of) - 1
    table = jnp.asarray(schedule.logsnr, u.dtype)
    between = jnp.interp(t, jnp.arange(len(table), dtype=u.dtype), table)
    return jnp.where(whole > 0, between, jnp.inf)

  return Neighbours(
    level(j + 1, steps), level(j, steps), level(segment, segments)
  )


def consistency_target(
  teacher: Denoiser, student: Denoiser, x_t: jax.Array, pair: Neighbours
) -> jax.Array:
  """Returns x~ of a step of a teacher and the student behind it, [MCM] alg. 1.

  Args:
    teacher, student: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_t: [B, H, W, C] at the start of the step.
    pair: the levels.

  Returns:
    [B, H, W, C], without a gradient.
  """
  first = teacher(x_t, pair.start)
  x_s = ddim_step(first, logsnr=pair.middle)
  # Behind the last step there is nothing to predict: its share is 1. Any level
  # will do there, but no network can be given that of an image without noise.
  there = jnp.isfinite(pair.middle)
  second = student(x_s, jnp.where(there, pair.middle, pair.start))
  same = pair.middle == pair.end
  gap = jnp.where(same, 0, pair.middle) - jnp.where(same, 0, pair.end)
  share = jnp.exp(gap / 2) * (
    jnp.expm1((pair.start - pair.middle) / 2)
    / jnp.expm1((pair.start - pair.end) / 2)
  )
  return matching_x_0(first.x_0, second.x_0, share=share)


def matching_x_0(
  first: jax.Array, second: jax.Array, *, share: jax.Array
) -> jax.Array:
  """Returns x~, the prediction whose one step ends where two steps end.

  Args:
    first, second: [B, H, W, C], x_1 and x_2.
    share: [B], w.

  Returns:
    [B, H, W, C], without a gradient.
  """
  share = expand_like(share, first)
  return jax.lax.stop_gradient(share * first + (1 - share) * second)


def ddim_step(prediction: Prediction, *, logsnr: jax.Array) -> jax.Array:
  """Returns x_s of a deterministic step, [DDIM] eq. 12.

  Args:
    prediction: of x_t.
    logsnr: [B], the log-SNR of s; it may be +inf.
  """
  alpha, sigma = process.alpha_sigma(expand_like(logsnr, prediction.x_0))
  return alpha * prediction.x_0 + sigma * prediction.eps


def progressive_target(
  teacher: Denoiser, x_t: jax.Array, steps: Halving, step: jax.Array
) -> jax.Array:
  """Returns x~ of two steps of a teacher, [PD] alg. 2.

  Args:
    teacher: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`, clipped and guided
      as the teacher draws.
    x_t: [B, H, W, C] at the start of the step.
    steps: the table of the steps.
    step: int [B], which of them, from 0 to N - 1.

  Returns:
    [B, H, W, C], without a gradient.
  """
  start, middle, share = (
    jnp.asarray(table, x_t.dtype)[step]
    for table in (steps.start, steps.middle, steps.share)
  )
  first = teacher(x_t, start)
  second = teacher(ddim_step(first, logsnr=middle), middle)
  return matching_x_0(first.x_0, second.x_0, share=share)


def loss(
  predicted: jax.Array,
  wanted: jax.Array,
  *,
  logsnr: jax.Array,
  target: str,
  weight: Callable[[jax.Array, str], jax.Array] | None = None,
) -> jax.Array:
  """Returns the squared error of a student, one value per example.

  Args:
    predicted, wanted: [B, H, W, C], x_0 of the student and x~.
    logsnr: [B], finite.
    target: the quantity whose error counts, 'x_0' or 'v'; an error of v is one
      of x_0 divided by sigma ([PD]'s weight SNR + 1).
    weight: None, or `(logsnr [B], target) -> [B]`, see `losses`.

  Returns:
    [B] float32, mean over H, W, C.
  """
  if target not in TARGETS:
    raise ValueError(f'target is {target!r}; use one of {[*TARGETS]}.')
  error = jnp.square(predicted - wanted)
  value = error.mean(axis=tuple(range(1, error.ndim)), dtype=jnp.float32)
  if target == 'v':
    value *= 1 + jnp.exp(logsnr)
  return value if weight is None else weight(logsnr, target) * value
