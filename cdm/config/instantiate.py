"""Turns one section of a config into one object.

The keys of a section are the keyword arguments of one constructor, so the
signature of the constructor is the schema of the section, and a misspelt key
is refused by name.
"""

import inspect
import types
from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict


def require(c: ConfigDict, *sections: str) -> None:
  """Raises ValueError naming the first of `sections` that the config lacks."""
  for name in sections:
    if name not in c:
      raise ValueError(f'config has no section {name!r}; it has {sorted(c)}.')


def kind_of(
  name: str, section: dict[str, Any], table: Mapping[str, Any]
) -> str:
  """Removes `kind` from a section and returns it.

  Args:
    name: name of the section, for the message.
    section: the section as a dict, changed in place.
    table: its keys are the known kinds.

  Raises:
    ValueError: the section has no kind, or an unknown one.
  """
  kind = section.pop('kind', None)
  if kind not in table:
    raise ValueError(
      f'config.{name}.kind is {kind!r}; known are {sorted(table)}.'
    )
  return kind


def choose(
  name: str,
  section: ConfigDict | Mapping[str, Any],
  table: Mapping[str, type[Any] | types.FunctionType],
) -> Any:
  """Builds the object that a section with a `kind` describes.

  Args:
    name: name of the section, for messages.
    section: its `kind` selects the constructor; the other keys are the
      constructor's arguments.
    table: {kind: constructor}.

  Returns:
    The object that the constructor returns.

  Raises:
    ValueError: an unknown kind, or keys that the constructor does not take.
  """
  section = dict(section)
  kind = kind_of(name, section, table)
  return splat(name, table[kind], section)


def splat(
  name: str,
  constructor: type[Any] | types.FunctionType,
  section: ConfigDict | Mapping[str, Any],
  **own: Any,
) -> Any:
  """Returns constructor(**section, **own) after checking the section's keys.

  Args:
    name: name of the section, for messages.
    constructor: class or function.
    section: arguments that come from the config.
    **own: arguments that come from the caller and that no config may set.

  Raises:
    ValueError: names a key that the constructor does not take, or all the
      arguments that are missing.
  """
  section = dict(section)
  parameters = inspect.signature(constructor).parameters
  network = isinstance(constructor, type) and issubclass(constructor, nn.Module)
  hidden = {'parent', 'name', *own} if network else {*own}
  known = [key for key in parameters if key not in hidden]
  for key in section:
    if key not in known:
      raise ValueError(
        f'config.{name} has {key!r}, which {constructor.__name__} does not '
        f'take; it takes {known}.'
      )
  missing = [
    key
    for key, p in parameters.items()
    if p.default is p.empty
    and key not in section
    and key not in own
    and p.kind is not p.VAR_KEYWORD
  ]
  if missing:
    raise ValueError(
      f'config.{name} lacks {missing}; {constructor.__name__} needs them.'
    )
  return constructor(**section, **own)
