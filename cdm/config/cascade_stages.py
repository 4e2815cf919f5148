"""Finds the configs of the stages that a cascade config names."""

import pathlib

from cdm.config import loader


def is_cascade(c):
  """True for a config of stages, False for one of a single stage."""
  return 'stages' in c


def refuse_cascade(c, how):
  """Raises ValueError if a config is of a cascade.

  Args:
    c: ConfigDict.
    how: what is done to one stage at a time, e.g. 'trained'.
  """
  if is_cascade(c):
    raise ValueError(
      f'{c.name!r} is a cascade; its stages are {how} one by one: '
      + ', '.join(f'--config=configs/{s["config"]}.py' for s in c.stages)
      + '.'
    )


def stage_configs(c, path, overrides=()):
  """-> [(name, config of one stage, sampler or None), ...].

  Of a stage or a cascade config.

  The stages of a cascade name their configs, which lie beside its file.
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
