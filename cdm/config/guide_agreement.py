"""Checks that a weaker network can guide a stage, [Autoguidance].

A guided step compares what two networks predict of the same noisy image, so
both must mean the same by it: images of one size, the same classes, the same
low-res input, and the same quantity that is diffused. They may differ in size,
in training, in noise schedule and in what their outputs are (eps, x_0 or v).
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from cdm.checkpointing import average_names, checkpoint_name
from cdm.config.built_stage import Stage

# Fields of the low-res input that change what a network is given at the level
# of sampling. The others are of training alone.
_LOWRES = (
  'size', 'downsample', 'upsample', 'augment', 'noise_schedule', 'num_levels'
)  # fmt: skip


def split_name(text: str) -> tuple[pathlib.Path, int | str | None]:
  """Splits WORKDIR, WORKDIR@STEP or WORKDIR@best, each with or without @EMA.

  Returns:
    (folder, name of the checkpoint, see `checkpoint_name`).
  """
  text, average = _split_average(text)
  before, sign, after = text.rpartition('@')
  folder, at = text, None
  if sign and before and after.isascii() and after.isdecimal():
    folder, at = before, int(after)
  elif sign and before and after == 'best':
    folder, at = before, after
  return pathlib.Path(folder), checkpoint_name.joined(at, average)


def _split_average(text):
  """Returns the text without @std=0.1 at its end, and the average's name."""
  before, sign, after = text.rpartition('@')
  if sign and before and after.partition('=')[0] in average_names.KINDS:
    try:
      return before, average_names.canonical(after)
    except ValueError as error:
      raise ValueError(f'The guide {text}: {error}') from None
  return text, average_names.MAIN


def name_of(sampler: Mapping[str, Any] | ConfigDict | None) -> str:
  """Returns the guide that a `sampler` section names; '' for none."""
  return '' if sampler is None else sampler.get('guide', '')


def refuse(sampler: Mapping[str, Any] | ConfigDict | None, how: str) -> None:
  """Raises ValueError if a `sampler` section names a guide.

  Args:
    sampler: the section, or None.
    how: what a command does without a guide, e.g. 'trained'.
  """
  name = name_of(sampler)
  if name:
    raise ValueError(
      f'config.sampler.guide is {name!r}, but a stage is {how} without a '
      'guide, which belongs to the commands that draw images of a trained '
      'stage; leave it out.'
    )


def check(stage: Stage, guide: Stage, *, name: str, level: float) -> None:
  """Raises ValueError unless one stage can guide the other.

  Args:
    stage: the stage whose images are drawn.
    guide: the stage with the weaker network.
    name: the guide, as it was given.
    level: augmentation level of the low-res input in sampling.
  """
  for what, own, other in _pairs(stage, guide):
    if own != other:
      raise ValueError(
        f'The guide {name} ({guide.config.name!r}) does not fit '
        f'{stage.config.name!r}: {what} is {other} there and {own} here. A '
        'guide is trained on the same images and conditions; name another one.'
      )
  if guide.lowres is not None and level > guide.lowres.max_level:
    raise ValueError(
      f'The guide {name} ({guide.config.name!r}) was trained on augmentation '
      f'levels up to {guide.lowres.max_level}, but the stage is sampled at '
      f'level {level}; use a smaller level, or another guide.'
    )


def _pairs(stage, guide):
  """Yields (what, value of the stage, value of the guide) of what must agree.

  A guide without classes guides a stage of classes as its null class would.
  """
  yield 'method.kind', stage.config.method.kind, guide.config.method.kind
  yield 'pipeline.image_size', stage.input_size, guide.input_size
  if guide.net.num_classes is not None:
    yield 'model.num_classes', stage.net.num_classes, guide.net.num_classes
  own, other = (_lowres(one.lowres) for one in (stage, guide))
  for key in _LOWRES:
    yield f'lowres.{key}', own.get(key), other.get(key)
  own, other = (one.objective.residual_scale for one in (stage, guide))
  yield 'method.residual_scale', own, other


def _lowres(lowres):
  return {} if lowres is None else dataclasses.asdict(lowres)
