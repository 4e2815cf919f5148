"""Builds the learning-rate schedule: linear warm-up, then a decay.

With k updates made so far, w = warmup_steps, N the length of the run and
r = decay_from, or w where that is 0, the rate of the next update is
learning_rate times

  warm-up        min(1, (k + 1) / w)
  cosine         (1 + cos(pi (k - w) / (N - w))) / 2       for k >= w
  linear         (N - k) / (N - w)                         for k >= w
  inverse_sqrt   1 / sqrt(max(k / r, 1)), arXiv 2312.02696 eq. 67
  step           decay_factor ^ (how many of decay_at are <= k)
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from cdm.training import optimizer_values

DECAYS = ('constant', 'cosine', 'linear', 'inverse_sqrt', 'step')
# These reach 0 at the end of the run, so they change when it is lengthened.
ENDING = ('cosine', 'linear')


class ScheduleOptions(Protocol):
  """The keys of every `optimizer` section that the schedule reads.

  `optimizer.AdamOptions` explains them.
  """

  @property
  def learning_rate(self) -> float: ...
  @property
  def warmup_steps(self) -> int: ...
  @property
  def decay(self) -> str: ...
  @property
  def decay_at(self) -> Sequence[int]: ...
  @property
  def decay_factor(self) -> float: ...
  @property
  def decay_from(self) -> int: ...


def make_learning_rate(
  options: ScheduleOptions, num_steps: int | None
) -> Callable[[jax.Array | int], jax.Array]:
  """Builds the learning-rate schedule.

  Args:
    options: the config section.
    num_steps: length of the run; needed by the decays 'cosine' and 'linear'.

  Returns:
    Function from the number of updates made so far, [], to the rate of the
    next one, [] float32.

  Raises:
    ValueError: if an option does not fit; it is named.
  """
  warmup_steps, decay = options.warmup_steps, options.decay
  _check(options, num_steps)
  reference = options.decay_from or warmup_steps

  def rate(step):
    step = jnp.asarray(step, jnp.float32)
    scale = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))
    if decay in ENDING:
      assert num_steps is not None  # checked above
      progress = (step - warmup_steps) / (num_steps - warmup_steps)
      progress = jnp.clip(progress, 0.0, 1.0)
      if decay == 'cosine':
        scale = scale * 0.5 * (1 + jnp.cos(math.pi * progress))
      else:
        scale = scale * (1 - progress)
    if decay == 'inverse_sqrt':
      scale = scale / jnp.sqrt(jnp.maximum(step / reference, 1.0))
    for at in options.decay_at:
      scale = jnp.where(step >= at, scale * options.decay_factor, scale)
    return options.learning_rate * scale

  return rate


def _check(options: ScheduleOptions, num_steps: int | None) -> None:
  """Raises ValueError if an option of the schedule does not fit."""
  warmup_steps, decay = options.warmup_steps, options.decay
  decay_at, decay_factor = options.decay_at, options.decay_factor
  decay_from = options.decay_from
  optimizer_values.check('learning_rate', options.learning_rate, 'above 0')
  if decay not in DECAYS:
    raise ValueError(f'optimizer.decay is {decay!r}; known are {DECAYS}.')
  if warmup_steps < 0:
    raise ValueError(
      f'optimizer.warmup_steps is {warmup_steps}; use 0 or more.'
    )
  if decay in ENDING and (num_steps is None or num_steps <= warmup_steps):
    raise ValueError(
      f'optimizer.decay is {decay!r} with warmup_steps={warmup_steps}, which '
      f'needs a larger num_steps than {num_steps}.'
    )
  increasing = all(a < b for a, b in itertools.pairwise((0, *decay_at)))
  if bool(decay_at) != (decay == 'step') or not increasing:
    raise ValueError(
      f'optimizer.decay_at is {tuple(decay_at)} with decay={decay!r}; give '
      "increasing steps for decay='step', and () for other kinds of decay."
    )
  if not 0.0 < decay_factor < 1.0:
    raise ValueError(
      f'optimizer.decay_factor is {decay_factor}; it must be above 0 and below '
      '1.'
    )
  if decay_from < 0 or (decay_from and decay != 'inverse_sqrt'):
    raise ValueError(
      f'optimizer.decay_from is {decay_from} with decay={decay!r}; give the '
      "step after which decay='inverse_sqrt' falls, and 0 for other kinds of "
      'decay.'
    )
  if decay == 'inverse_sqrt' and not (decay_from or warmup_steps):
    raise ValueError(
      "optimizer.decay_from is 0 with decay='inverse_sqrt' and no warm-up; "
      'give the step after which the rate falls.'
    )
