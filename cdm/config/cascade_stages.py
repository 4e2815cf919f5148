"""Loads the stage configs that a cascade config lists by name.

A cascade config has a section `stages`; the config of each stage is a file in
the same folder.
"""

import os
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from cdm.config import loader


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
      f'{c.name!r} is a cascade, whose stages are {how} one by one: '
      + ', '.join(f'--config=configs/{s["config"]}.py' for s in c.stages)
      + '.'
    )


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
    return [(c.name, c, None)]
  folder = pathlib.Path(path).parent
  return [
    (
      s['name'],
      loader.load(folder / f'{s["config"]}.py', overrides),
      s.get('sampler'),
    )
    for s in c.stages
  ]
