"""Reads JSON as a value of a declared type, or raises one clear error.

Whatever lies on a disk may be cut off, changed or somebody else's. The callers
therefore declare what they need, and receive that and nothing else.
"""

import functools
import json
import os
import pathlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from cdm.data.files.damaged_file import DamagedFile

MOST_LEVELS = 100  # of lists and objects inside each other
_NAMES = {
  bool: 'true or false',
  int: 'an integer',
  float: 'a number',
  str: 'a text',
  list: 'a list',
  dict: 'an object',
  types.NoneType: 'null',
}


def read(path: str | os.PathLike[str], declared: Any, *, remedy: str) -> Any:
  """Reads a JSON file.

  Args:
    path: path of the file.
    declared: type of the value, see `problem`.
    remedy: what to do about a damaged file, as a sentence.

  Returns:
    The value, of the declared type.

  Raises:
    DamagedFile: the file is not JSON, or holds a value of another type.
    OSError: the file cannot be read.
  """
  data = pathlib.Path(path).read_bytes()
  return parse(data, declared, name=str(path), remedy=remedy)


def parse(data: bytes, declared: Any, *, name: str, remedy: str) -> Any:
  """Returns the value of JSON text.

  Args:
    data: the text, in UTF-8.
    declared: type of the value, see `problem`.
    name: name of the text in error messages, such as the path of its file.
    remedy: what to do about a damaged text, as a sentence.

  Raises:
    DamagedFile: the text is not JSON, or its value is of another type.
  """
  try:
    value = json.loads(data.decode('utf-8'))
  except UnicodeDecodeError as error:
    reason = f'byte {error.start} is not UTF-8'
  except json.JSONDecodeError as error:
    reason = f'{error.msg} at character {error.pos}'
  except (ValueError, RecursionError):  # a number too long, or brackets
    reason = 'a number is too long, or it is nested too deeply'
  else:
    check(value, declared, name=name, remedy=remedy)
    return value
  raise DamagedFile(f'{name} is damaged, it is not JSON: {reason}. {remedy}')


def check(value: Any, declared: Any, *, name: str, remedy: str) -> None:
  """Raises DamagedFile unless a JSON value is of a type, see `parse`."""
  wrong = problem(value, declared) or _too_deep(value)
  if wrong is not None:
    raise DamagedFile(f'{name} is damaged: {wrong}. {remedy}')


def problem(value: Any, declared: Any, place: str = 'its value') -> str | None:
  """Says in which place a JSON value differs from a declared type.

  Args:
    value: what `json` returned.
    declared: a type made of TypedDict, dict[str, ...], list, tuple (which is a
      list of this length), unions, Literal, bool, int, float, str, None, Any;
      or a dict {key: type} of the keys that an object must have. An int fits
      into 64 bits; an int is a float too, and a bool is neither.
    place: name of the value in the answer.

  Returns:
    The first difference in words, or None if the value is of the type.
  """
  if declared is Any:
    return None
  if isinstance(declared, dict):
    return _object_problem(value, declared, declared.keys(), place)
  if typing.is_typeddict(declared):
    return _object_problem(value, *_keys(declared), place)
  kind, parts = typing.get_origin(declared), typing.get_args(declared)
  if kind in (typing.Union, types.UnionType):
    found = [problem(value, part, place) for part in parts]
    # The difference that lies deepest belongs to the part that was meant.
    return None if None in found else max(map(str, found), key=len)
  if kind is typing.Literal:
    if any(type(value) is type(part) and value == part for part in parts):
      return None
    return f'{place} is {_shown(value)}, not one of {list(parts)}'
  plain = kind or declared
  plain = types.NoneType if plain is None else plain
  if plain in (Mapping, Sequence):
    plain = dict if plain is Mapping else list
  wrong = _plain_problem(value, list if plain is tuple else plain, place)
  if wrong is None and parts:
    return _parts_problem(value, plain, parts, place)
  return wrong


def _plain_problem(value, plain, place):
  fits = type(value) is plain or (plain is float and type(value) is int)
  if not fits:
    return f'{place} is {_shown(value)}, not {_NAMES[plain]}'
  if type(value) is int and not -(2**63) <= value < 2**63:
    return f'{place} is a number of more than 64 bits'
  return None


def _object_problem(value, hints, required, place):
  if not isinstance(value, dict):
    return f'{place} is {_shown(value)}, not an object'
  for key in hints:
    if key not in value and key in required:
      return f'{place} has no {key!r}'
  found = (
    problem(value[key], hint, _join(place, key))
    for key, hint in hints.items()
    if key in value
  )
  return next(filter(None, found), None)


@functools.cache
def _keys(declared):
  """Returns ({key: type}, the keys that must be there) of a TypedDict."""
  marked = typing.get_type_hints(declared, include_extras=True)
  required = {
    key
    for key in declared.__required_keys__
    if typing.get_origin(marked[key]) is not typing.NotRequired
  }
  return typing.get_type_hints(declared), required


def _parts_problem(value, plain, parts, place):
  if plain is dict:
    items = [(_join(place, key), each, parts[1]) for key, each in value.items()]
  elif plain is tuple and parts[-1] is not ...:
    if len(value) != len(parts):
      return f'{place} has {len(value)} entries, not {len(parts)}'
    items = [
      (_join(place, i), each, part)
      for i, (each, part) in enumerate(zip(value, parts, strict=True))
    ]
  else:
    items = [(_join(place, i), each, parts[0]) for i, each in enumerate(value)]
  found = (problem(each, part, where) for where, each, part in items)
  return next(filter(None, found), None)


def _join(place, key):
  step = f'[{key}]' if isinstance(key, int) else f'[{_shown(key)}]'
  return f'{place}{step}'


def _shown(value):
  if isinstance(value, list | dict):
    return _NAMES[type(value)]
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def _too_deep(value):
  """Returns a text if functions that call themselves would not end well."""
  level = [value]
  for _ in range(MOST_LEVELS):
    level = [
      each
      for outer in level
      if isinstance(outer, list | dict)
      for each in (outer.values() if isinstance(outer, dict) else outer)
      if isinstance(each, list | dict)
    ]
    if not level:
      return None
  return f'it is nested more than {MOST_LEVELS} times'
