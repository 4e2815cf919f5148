"""Turns one section of a config into one object.

The schema of a section is the signature of what it builds: each section is
splatted into one constructor, so a misspelt key is refused by name.
"""

import inspect

from flax import linen as nn


def require(c, *sections):
  """Raises ValueError naming the first section the config lacks."""
  for name in sections:
    if name not in c:
      raise ValueError(f'config has no section {name!r}; it has {sorted(c)}.')


def kind_of(name, section, table):
  """Takes `kind` out of a section -> a key of the table."""
  kind = section.pop('kind', None)
  if kind not in table:
    raise ValueError(
      f'config.{name}.kind is {kind!r}; known are {sorted(table)}.'
    )
  return kind


def choose(name, section, table):
  """-> what the table has for the section's kind, made of the rest of it."""
  section = dict(section)
  kind = kind_of(name, section, table)
  return splat(name, table[kind], section)


def splat(name, constructor, section, **own):
  """Calls constructor(**section), naming section and key on a misfit."""
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
