"""Reads an environment variable that holds a number of seconds."""

import os
from collections.abc import Mapping


def read(
  variable: str,
  default: float,
  meaning: str,
  environment: Mapping[str, str] | None = None,
) -> float | None:
  """Returns the seconds that a variable holds, None if it is not set.

  Args:
    variable: its name.
    default: the seconds without it, an example for the error.
    meaning: what the seconds are, for the error.
    environment: environment variables; os.environ by default.

  Raises:
    ValueError: it is not a positive number.
  """
  text = (os.environ if environment is None else environment).get(variable)
  if text is None:
    return None
  try:
    value = float(text)
  except ValueError:
    value = 0.0
  if not 0 < value < float('inf'):
    raise ValueError(
      f'{variable} is {text!r}; it is the number of seconds {meaning}, e.g. '
      f'{variable}={default:.0f}.'
    )
  return value
