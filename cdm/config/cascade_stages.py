"""Loads the stage configs that a cascade config lists by name.

A cascade config has a section `stages`; the config of each stage is a file in
the same folder.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from cdm.config import asked_guidance, instantiate, loader, value_types
from cdm.config.key_errors import shown

# Types of the keys that every stage of a cascade has.
_STAGE = {'name': str, 'config': str}


def is_cascade(c: ConfigDict) -> bool:
  """Returns True for the config of a cascade, False for that of one stage."""
  return 'stages' in c


def refuse_cascade(c: ConfigDict, how: str) -> None:
  """Raises ValueError if a config describes a cascade.

  Args:
    c: the config of a cascade or of one stage.
    how: participle for the message that says what the caller does with one
      stage at a time, e.g. 'trained'.
  """
  if is_cascade(c):
    raise ValueError(
      f'{c.get("name")!r} is a cascade, whose stages are {how} one by one: '
      + ', '.join(f'--config=configs/{s["config"]}.py' for s in sections(c))
      + '.'
    )


def names(c: ConfigDict) -> list[str] | None:
  """Returns the names of a cascade's stages; None for a single stage."""
  return [s['name'] for s in sections(c)] if is_cascade(c) else None


def sections(c: ConfigDict) -> list[dict[str, Any]]:
  """Returns the sections of a cascade's stages, in their order, as new dicts.

  Args:
    c: the config of a cascade.

  Raises:
    ValueError: a stage has no name or config, two have the same name, or the
      first, which has no low-res input, has a level.
  """
  if not (isinstance(c.stages, list | tuple) and c.stages):
    raise ValueError(
      f'config.stages is {shown(c.stages)}; it must be a list of sections, '
      'each with a name and a config.'
    )
  stages, names = [], set()
  for i, section in enumerate(c.stages):
    if not isinstance(section, dict | ConfigDict):
      raise ValueError(
        f'config.stages.{i} is {shown(section)}; it must be a section with a '
        'name and a config.'
      )
    for key, kind in _STAGE.items():
      if key not in section:
        raise ValueError(f'config.stages.{i}.{key} is missing; define it.')
      value_types.check(f'stages.{i}.{key}', section[key], kind)
    if section.get('sampler') is not None:
      instantiate.as_dict(
        f'stages.{section["name"]}.sampler', section['sampler']
      )
    if section['name'] in names:
      raise ValueError(
        f'config.stages.{i}.name is {section["name"]!r}, the name of an '
        'earlier stage; give it another name.'
      )
    names.add(section['name'])
    stages.append(dict(section))
  first = stages[0]
  for key in ('level', 'truncated'):
    if first.get(key):
      raise ValueError(
        f'config.stages.{first["name"]}.{key} is {shown(first[key])}, but the '
        'first stage of the cascade has no low-res input; use '
        f'--config.stages.{first["name"]}.{key}={type(first[key])()}.'
      )
  return stages


def stage_configs(
  c: ConfigDict,
  path: str | os.PathLike,
  overrides: Sequence[tuple[str, str]] = (),
) -> list[tuple[str, ConfigDict, ConfigDict | dict | None]]:
  """Loads the config of every stage of a cascade, or returns that of one stage.

  Args:
    c: the config of a cascade or of one stage.
    path: path of the file that `c` was loaded from; the configs of a cascade's
      stages are in the same folder.
    overrides: ((dotted key, text), ...), applied to every stage config that is
      loaded here; see `loader.load`.

  Returns:
    [(name, config of the stage, sampler section or None), ...]. A sampler
    section replaces the one in the stage's config.
  """
  if not is_cascade(c):
    instantiate.require(c, 'name')
    return [(c.name, c, None)]
  folder = pathlib.Path(path).parent
  return [
    (
      s['name'],
      loader.load(folder / f'{s["config"]}.py', [*overrides, *guidance]),
      s.get('sampler'),
    )
    for s, guidance in map(asked_guidance.of_stage, sections(c))
  ]
