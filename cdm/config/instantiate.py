"""Turns one section of a config into one object.

The keys of a section are the keyword arguments of one constructor, so the
signature of the constructor is the schema of the section: a misspelt key is
refused by name, and so is a value of another type than the annotation.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from cdm.config import key_errors, key_hints, value_types
from cdm.config.key_errors import shown

# Keys at the top of a config that are not sections.
VALUES = {'name': str, 'seed': int}


def require(c: ConfigDict, *sections: str) -> None:
  """Raises ValueError naming the first of `sections` that the config lacks.

  It also refuses a section that is another thing than keys and values. Only
  `lowres` may be None.
  """
  for name in sections:
    if name not in c:
      raise ValueError(
        f'config.{name} is missing; the config has {", ".join(sorted(c))}. '
        f'Define c.{name} in its file.'
      )
    if name in VALUES:
      value_types.check(name, c[name], VALUES[name])
    elif name != 'stages' and not (name == 'lowres' and c[name] is None):
      as_dict(name, c[name])


def as_dict(name: str, section: Any) -> dict[str, Any]:
  """Returns a section as a new dict; raises ValueError if it is no section."""
  if not isinstance(section, Mapping | ConfigDict):
    raise ValueError(
      f'config.{name} is {shown(section)}; it must be a section, whose keys '
      f'are set with --config.{name}.KEY=VALUE.'
    )
  return dict(section)


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
  if not isinstance(kind, str) or kind not in table:
    near = key_hints.nearest(str(kind), list(table))
    raise ValueError(
      f'config.{name}.kind is {shown(kind)}; known are {sorted(table)}. '
      f'Set it with --config.{name}.kind={near or "KIND"}.'
    )
  return kind


def choose(
  name: str,
  section: ConfigDict | Mapping[str, Any],
  table: Mapping[str, Callable[..., Any]],
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
  section = as_dict(name, section)
  kind = kind_of(name, section, table)
  return splat(name, table[kind], section)


def splat(
  name: str,
  constructor: Callable[..., Any],
  section: ConfigDict | Mapping[str, Any],
  **own: Any,
) -> Any:
  """Returns constructor(**section, **own) after checking the section.

  Args:
    name: name of the section, for messages.
    constructor: class or function.
    section: arguments that come from the config.
    **own: arguments that come from the caller and that no config may set.

  Raises:
    ValueError: see `arguments`; or the constructor refuses a value. The message
      begins with the key.
  """
  given = arguments(name, constructor, section, own)
  with key_errors.naming(name, given):
    return constructor(**given, **own)


def arguments(
  name: str,
  constructor: Callable[..., Any],
  section: ConfigDict | Mapping[str, Any],
  own: Mapping[str, Any] = types.MappingProxyType({}),
) -> dict[str, Any]:
  """Returns the arguments that a section holds, after checking them.

  Args:
    name: name of the section, for messages.
    constructor: class or function whose parameters the keys are.
    section: arguments that come from the config.
    own: arguments that come from the caller and that no config may set.

  Raises:
    ValueError: names a key that the constructor does not take, all the
      arguments that are missing, or a value of another type.
  """
  section = as_dict(name, section)
  parameters = inspect.signature(constructor).parameters
  network = isinstance(constructor, type) and issubclass(constructor, nn.Module)
  hidden = {'parent', 'name', *own} if network else {*own}
  known = [key for key in parameters if key not in hidden]
  for key in section:
    if key not in known:
      near = key_hints.nearest(str(key), known)
      hint = f' Did you mean config.{name}.{near}?' if near else ''
      raise ValueError(
        f'config.{name} has {shown(key)}, which {_title(constructor)} does '
        f'not take.{hint} It takes {", ".join(known)}: '
        f'--config.{name}.{near or "KEY"}=VALUE.'
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
      f'config.{name} lacks {missing}; {_title(constructor)} needs them. Give '
      + ' '.join(f'--config.{name}.{key}=VALUE' for key in missing)
      + '.'
    )
  value_types.check_arguments(name, constructor, section)
  return section


def _title(constructor: Callable[..., Any]) -> str:
  return getattr(constructor, '__name__', repr(constructor))
