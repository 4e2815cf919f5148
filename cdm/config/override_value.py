"""Reads the value of `--config.KEY=VALUE` in the type of the replaced value.

An error names the key first, says what is expected, and ends with the override.
"""

import ast
import math
import re
from typing import Any

from ml_collections import ConfigDict

from cdm.config import key_hints
from cdm.config.key_errors import shown

_WORDS = {
  int: ('a whole number', 'NUMBER'),
  float: ('a number', 'NUMBER'),
  tuple: ('a list such as (1, 2)', '"(1, 2)"'),
  list: ('a list such as [1, 2]', '"[1, 2]"'),
}
# The sections that None may replace: a stage without a low-res input, and a
# generator that is not trained.
OPTIONAL_SECTIONS = ('lowres', 'model.discriminator')


def parse(text: str, old: Any, key: str) -> Any:
  """Returns the value that a text stands for, of the type of `old`.

  Args:
    text: what the user wrote.
    old: the value that is replaced; None accepts every type, which is then
      checked when the section is built.
    key: dotted name of the key, for messages, e.g. 'train.batch_size'.

  Raises:
    ValueError: the text is of another type, or the key is a section.
  """
  if text == 'None' and key in OPTIONAL_SECTIONS:
    return None
  below = key_hints.children(old)
  if below or isinstance(old, ConfigDict | dict):
    raise ValueError(
      f'config.{key} is a section; set one of its keys: '
      f'{", ".join(sorted(below))}, for example '
      f'--config.{key}.{min(below, default="KEY")}=VALUE.'
    )
  if isinstance(old, str):
    return text
  if isinstance(old, bool):
    if text.lower() not in ('true', 'false'):
      raise ValueError(
        f'config.{key} is {old!r}; it takes True or False, not {shown(text)}: '
        f'--config.{key}={not old}.'
      )
    return text.lower() == 'true'
  value = _literal(text)
  if old is None or value is None:
    return value
  is_bool = isinstance(value, bool)
  if isinstance(old, float) and isinstance(value, int) and not is_bool:
    value = _as_float(value)
  # Python reads 1e4 as a float, but for a number of steps it means an integer.
  elif isinstance(old, int) and isinstance(value, float) and value.is_integer():
    value = int(value)
  elif isinstance(old, tuple | list):
    if isinstance(value, int | float) and not is_bool:
      value = (value,)
    if isinstance(value, list | tuple):
      return type(old)(value)
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(
      f'config.{key} is {old!r}; {shown(text)} is {shown(value)}. Give a '
      f'finite number: --config.{key}=NUMBER.'
    )
  if re.search(r'\bnan\b', text[:1000].lower()):
    raise ValueError(
      f'config.{key} is {shown(old)}; {shown(text)} contains NaN (not a '
      f'number). Give finite numbers: --config.{key}="(A, B)".'
    )
  if type(value) is not type(old):
    what, example = _WORDS.get(type(old), ('such a value', 'VALUE'))
    raise ValueError(
      f'config.{key} is {shown(old)}, of type {type(old).__name__}; '
      f'{shown(text)} is of type {type(value).__name__}. Give {what}: '
      f'--config.{key}={example}.'
    )
  return value


def _literal(text: str) -> Any:
  """Returns the Python value that a text stands for, or else the text."""
  if text.strip().lower().lstrip('+-') in ('nan', 'inf', 'infinity'):
    return float(text)
  try:
    return ast.literal_eval(text)
  # An expression that is nested too deeply ends in one of the last two, a key
  # that cannot be hashed in a TypeError.
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    return text


def _as_float(value: int) -> float:
  try:
    return float(value)
  except OverflowError:
    return math.inf if value > 0 else -math.inf
