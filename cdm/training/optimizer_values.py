"""Refuses numbers of an `optimizer` section that no run can mean."""

import math
from typing import Any

# Why such a value is refused, not trained with.
_REASONS = {
  'learning_rate': 'a negative rate climbs the loss, and 0 learns nothing',
  'weight_decay': 'a negative one makes the parameters grow',
  'b1': 'it weighs the past gradients',
  'b2': 'it weighs the past squared gradients',
  'eps': 'it keeps the step finite where the gradient is 0',
  'momentum': 'at 1 the velocity never fades',
  'clip_norm': 'it is the largest norm of a gradient; None does not clip',
  'update_clip': 'it is the largest root mean square of an update; None does '
  'not clip',
  'b2_exponent': 'b2 grows as 1 - t^-exponent',
  'initial_scale': 'it is a mean of squares',
  'min_size_to_factor': 'it is a length of an axis',
  'skip_nonfinite': 'it is how many steps in a row may be skipped',
}
_RANGES = {
  'above 0': lambda x: x > 0,
  'at least 0': lambda x: x >= 0,
  'at least 0 and below 1': lambda x: 0 <= x < 1,
  'above 0 and at most 1': lambda x: 0 < x <= 1,
}


def check(key: str, value: Any, limits: str) -> None:
  """Raises ValueError unless a value is a finite number within limits.

  Args:
    key: the key of the section, e.g. 'learning_rate'.
    value: its value.
    limits: a range in words: 'above 0', 'at least 0', 'at least 0 and below 1'
      or 'above 0 and at most 1'.
  """
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not (is_number and math.isfinite(value) and _RANGES[limits](value)):
    raise ValueError(
      f'config.optimizer.{key} is {value!r}; it must be finite and {limits}: '
      f'{_REASONS[key]}. Set it with --config.optimizer.{key}=NUMBER.'
    )
