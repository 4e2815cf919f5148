"""Checks that a config value has the type that its constructor declares.

Python does not check annotations. Without this module a list in the place of a
number would end in a TypeError somewhere inside a library.
"""

import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from cdm.config.key_errors import shown

_WORDS = {
  int: ('a whole number', 'NUMBER'),
  float: ('a finite number', 'NUMBER'),
  bool: ('True or False', 'True'),
  str: ('a text', 'TEXT'),
  os.PathLike: ('a text', 'TEXT'),
  type(None): ('None', 'None'),
}
_MAPPINGS = (dict, Mapping, ConfigDict)
_LISTS = (list, tuple, Sequence, Iterable, Collection)
_LARGEST = 2**63  # A whole number beyond this fits in no array or file.


def check_arguments(
  section: str, function: Callable[..., Any], given: Mapping[str, Any]
) -> None:
  """Raises ValueError if an argument has not the type that is declared.

  Args:
    section: dotted name of the config section that the arguments come from.
    function: function or class whose parameters are annotated.
    given: {name of a parameter: value}.
  """
  parameters = inspect.signature(function).parameters
  for key, value in given.items():
    check(f'{section}.{key}', value, parameters[key].annotation)


def check(key: str, value: Any, annotation: Any) -> None:
  """Raises ValueError unless a value has the type that is declared.

  Args:
    key: dotted name of the value without 'config.', e.g. 'train.batch_size'.
    value: the value.
    annotation: its declared type. Types that no config value can be checked
      against, such as Callable, accept everything.
  """
  if fits(value, annotation):
    return
  what, example = expected(annotation)
  odd = _not_finite(value)
  has = f'is {shown(value)}' if odd is value else f'contains {shown(odd)}'
  if odd is None or (odd is not value and 'number' not in what):
    has = f'is {shown(value)}'
  raise ValueError(
    f'config.{key} {has}; it must be {what}. Set it with '
    f'--config.{key}={example}.'
  )


def fits(value: Any, annotation: Any) -> bool:
  """Returns whether a value has the declared type; NaN is no number."""
  origin = typing.get_origin(annotation) or annotation
  arguments = typing.get_args(annotation)
  if origin in (types.UnionType, typing.Union):
    return any(fits(value, one) for one in arguments)
  if origin is typing.Literal:
    return value in arguments
  if origin is None or origin is type(None):
    return value is None
  if origin is bool:
    return isinstance(value, bool)
  if origin is int:
    return _is(value, numbers.Integral) and -_LARGEST <= value < _LARGEST
  if origin is float:
    return _is(value, numbers.Real) and _is_finite(value)
  if origin in (str, os.PathLike):
    return isinstance(value, (str, origin))
  if origin in _MAPPINGS:
    return isinstance(value, _MAPPINGS)
  if origin in _LISTS:
    return isinstance(value, list | tuple) and _elements_fit(value, arguments)
  return True


def expected(annotation: Any) -> tuple[str, str]:
  """Returns a declared type in words, and an example of an override's value."""
  origin = typing.get_origin(annotation) or annotation
  arguments = typing.get_args(annotation)
  if origin in (types.UnionType, typing.Union):
    both = [expected(one) for one in arguments]
    words = dict.fromkeys(what for what, _ in both)
    return ' or '.join(words), both[0][1]
  if origin in _LISTS and arguments:
    one = expected(arguments[0])[0]
    kind = one.removeprefix('a ').removesuffix(' or None')
    count = ''
    if origin is tuple and Ellipsis not in arguments:
      count = f'{len(arguments)} '
    return f'a list of {count}{kind}s', '"(A, B)"'
  if origin in _LISTS:
    return 'a list', '"(A, B)"'
  if origin in _MAPPINGS:
    return 'a section with keys of its own', 'VALUE'
  if origin is typing.Literal:
    return f'one of {list(arguments)}', str(arguments[0])
  if origin is None:
    return _WORDS[type(None)]
  return _WORDS.get(origin, ('another value', 'VALUE'))


def _is(value, kind):
  """Returns whether a value is such a number; True and False are none."""
  return isinstance(value, kind) and not isinstance(value, bool)


def _is_finite(value):
  try:
    return math.isfinite(value)
  except OverflowError:  # an integer beyond the range of floats
    return False


def _elements_fit(values, arguments):
  if not arguments:
    return True
  if len(arguments) == 1 or Ellipsis in arguments:
    return all(fits(value, arguments[0]) for value in values)
  return len(values) == len(arguments) and all(
    fits(*pair) for pair in zip(values, arguments, strict=True)
  )


def _not_finite(value):
  """Returns the first NaN or infinity of a value or a list; None if none."""
  for one in value if isinstance(value, list | tuple) else (value,):
    if isinstance(one, float) and not math.isfinite(one):
      return one
  return None
