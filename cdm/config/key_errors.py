"""Words errors about config values: the key first, the override last.

A constructor knows its arguments but not the config, and raises for example
'eta is -1.0; use 0 or more.' What a user needs to read is

  config.sampler.eta is -1.0; use 0 or more. Set it with
  --config.sampler.eta=VALUE.
"""

import contextlib
import math
import re
from collections.abc import Generator, Iterable
from typing import Any

from cdm.data import damaged_file

# Sections of a config. An error that begins with one of these names and a dot
# names its key already.
SECTIONS = frozenset(
  'train_data eval_data pipeline schedule lowres model method sampler '
  'optimizer ema train eval mesh stages'.split()
)
_MOST_SHOWN = 80  # characters of a value in a message


@contextlib.contextmanager
def naming(
  section: str | None,
  keys: Iterable[str] = (),
  *,
  otherwise: str | None = None,
  remedy: str | None = None,
) -> Generator[None]:
  """Words every ValueError that is raised inside as one about a config key.

  An error that was worded before passes unchanged.

  Args:
    section: dotted name of the section that is being used, e.g. 'sampler.grid';
      None if an error that names no key is not about the config.
    keys: the keys of the section. An error that begins with one is about it.
    otherwise: dotted name of the key that any other error is about. None is
      the section itself; '' leaves such an error as it is.
    remedy: last sentence of the message; None names the override.

  Raises:
    ValueError: from the original error.
  """
  try:
    yield
  except ValueError as error:
    text = worded(str(error), section, keys, otherwise, remedy)
    if text == str(error):
      raise
    raise damaged_file.reworded(error, text) from error


def worded(
  text: str,
  section: str | None,
  keys: Iterable[str] = (),
  otherwise: str | None = None,
  remedy: str | None = None,
) -> str:
  """Returns an error's text with the key in front and the override behind it.

  Args:
    text: the text of the error.
    section, keys, otherwise, remedy: see `naming`.
  """
  begins = re.match(r'[A-Za-z_]\w*(\.\w+)*', text)
  word = begins[0] if begins else ''
  head, dot, rest = word.partition('.')
  if head == 'config' and dot:
    key = rest
  elif head in SECTIONS and dot:
    key, text = word, f'config.{text}'
  elif section and word in keys:
    key, text = f'{section}.{word}', f'config.{section}.{text}'
  elif otherwise or (section and otherwise is None):
    key = otherwise or f'{section}'
    text = f'config.{key}: {text}'
  else:
    return text
  if remedy is None and '--config.' in text:
    return text
  if remedy and text.endswith(remedy):
    return text
  return f'{text} {remedy}' if remedy else f'{text}{_override(text, key)}'


def _override(text: str, key: str) -> str:
  """Returns the words that end a message with the override that helps."""
  option = f'--config.{key}=VALUE'
  if key == 'stages':
    option = '--config.stages.NAME.KEY=VALUE'
  elif key in SECTIONS or key.endswith('.grid'):
    option = f'--config.{key}.KEY=VALUE'
  if not text.endswith(('.', '?', ')')):  # It ends with a command to run.
    return f' (Or set {option}.)'
  return f' Set it with {option}.'


def shown(value: Any) -> str:
  """Returns a value as text for a message: short, NaN and infinity in words."""
  if isinstance(value, float) and math.isnan(value):
    return 'NaN (not a number)'
  if isinstance(value, float) and math.isinf(value):
    return 'infinity' if value > 0 else 'minus infinity'
  try:
    text = ' '.join(repr(value).split())
  except (ValueError, RecursionError):  # an integer of more than 4300 digits
    return f'of type {type(value).__name__}, too long to be shown'
  if len(text) > _MOST_SHOWN:
    return f'{text[: _MOST_SHOWN - 3]}...'
  return text
