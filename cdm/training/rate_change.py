"""Says what becomes of the learning rate when the config of a run has changed.

A schedule that depends on the length of the run, such as a cosine to zero, is
another one once the run is lengthened: the rate jumps where the run goes on.
"""

import numpy as np

from cdm.config import loader
from cdm.config.loader import ConfigDict
from cdm.training import learning_rate, run_config


def rate_change(before: ConfigDict, now: ConfigDict, step: int) -> str | None:
  """Compares the learning rates of two configs at a step.

  Args:
    before: the config that the run was last started with.
    now: the config that it goes on with.
    step: number of updates made, at least 1.

  Returns:
    A sentence, or None if nothing has changed that the rate depends on.
  """

  def read(c):
    return loader.plain(c.optimizer), c.train.num_steps

  try:
    if read(before) == read(now):
      return None
    # The rate of the last update made, and what the new config had given it.
    old, new = (
      float(run_config.make_optimizer(*read(c)).learning_rate(step - 1))
      for c in (before, now)
    )
  except (ValueError, AttributeError, KeyError):
    return None  # An earlier cdm wrote the config before.
  if np.isclose(old, new, rtol=1e-4, atol=0):
    return f'learning rate: {_digits(new)} at step {step}, as before'
  reason = ''
  decay = now.optimizer.get('decay')
  if decay in learning_rate.ENDING:
    reason = f', as decay={decay!r} now reaches 0 at step {now.train.num_steps}'
  return (
    f'learning rate: {_digits(old)} at step {step} becomes {_digits(new)}'
    f'{reason}'
  )


def _digits(rate: float) -> str:
  """Returns three digits without an exponent, 0.00103."""
  return np.format_float_positional(
    rate, precision=3, fractional=False, trim='-'
  )
