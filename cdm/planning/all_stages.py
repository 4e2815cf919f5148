"""Builds every stage of a config and checks that the stages form a cascade.

No checkpoint is needed, so a cascade can be refused before its stages are
trained.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from cdm.config import built_stage, cascade_stages, stage
from cdm.config.loader import ConfigDict
from cdm.sampling import restore


class BuiltStage(NamedTuple):
  """One stage of a config, built without parameters.

  Attributes:
    name: name of the stage.
    config: its config.
    sampler: the `sampler` section that replaces the one in its config, or None.
    built: what its config describes.
  """

  name: str
  config: ConfigDict
  sampler: ConfigDict | Mapping[str, Any] | None
  built: built_stage.Stage


def build(c: ConfigDict, path: str | os.PathLike) -> list[BuiltStage]:
  """Builds the stages of a cascade, or one stage.

  Args:
    c: the config of a cascade or of one stage.
    path: path of the file that `c` was loaded from.

  Raises:
    ValueError: a config cannot be used, or a stage of a cascade does not fit
      the one before it.
  """
  stages = [
    BuiltStage(name, config, sampler, _built(c, name, config, sampler))
    for name, config, sampler in cascade_stages.stage_configs(c, path)
  ]
  if not cascade_stages.is_cascade(c):
    return stages
  for one in stages:
    stage.refuse_classifier(one.config, 'a stage of a cascade')
  restore.check_cascade(
    [
      restore.described_stage(section, one.built)
      for section, one in zip(cascade_stages.sections(c), stages, strict=True)
    ]
  )
  return stages


def _built(
  c: ConfigDict,
  name: str,
  config: ConfigDict,
  sampler: ConfigDict | Mapping[str, Any] | None,
) -> built_stage.Stage:
  """Builds one stage; an error of a cascade's stage names the stage."""
  key = f'stages.{name}.sampler'
  try:
    return stage.stage(config, sampler, sampler_key=key)
  except ValueError as error:
    text = str(error)
    if not cascade_stages.is_cascade(c) or text.startswith(f'config.{key}'):
      raise
    # An override of the cascade does not reach the config of a stage.
    what = text.partition(' Set it with --config.')[0]
    raise ValueError(
      f'config.stages.{name}.config: {what} Correct the config of this stage.'
    ) from error
