"""Loads a trained stage or cascade once, to draw with it from Python."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.checkpointing import average_names, checkpoint_name, stage_files
from cdm.config import cascade_stages, loader, redrawn_sampler
from cdm.data import class_names
from cdm.distributed import device_mesh
from cdm.sampling import (
  cascade,
  drawing_batch,
  exported_stage,
  generate,
  named_upscaler,
  restore,
)
from cdm.sampling.drawing_stage import Stage
from cdm.sampling.one_ahead import one_ahead
from cdm.sampling.upscaler import Upscaler


class Choice(NamedTuple):
  """What a model draws with; the arguments of `cdm.api.load`.

  Attributes:
    at, ema, sampler, steps, guidance, overrides: see there.
  """

  at: int | str | None = None
  ema: str | None = None
  sampler: str | Mapping[str, str] | None = None
  steps: int | Mapping[str, int] | None = None
  guidance: float | Mapping[str, float] | None = None
  overrides: Mapping[str, Any] | None = None

  @property
  def checkpoint(self) -> int | str | None:
    """The checkpoint and its average, see `checkpoint_name`."""
    if self.ema is None:
      return self.at
    try:
      name = average_names.canonical(self.ema)
    except ValueError as error:
      raise ValueError(f'ema={self.ema!r}: {error}') from None
    return checkpoint_name.joined(self.at, name)

  @property
  def level(self) -> float:
    """The augmentation level of the low-res input of a single stage."""
    return float((self.overrides or {}).get('level', 0.0))

  def pairs(self) -> list[tuple[str, str]]:
    """Returns the overrides of a config, ((dotted key, text), ...)."""
    own = ('level', 'start_level')
    given = {k: v for k, v in (self.overrides or {}).items() if k not in own}
    if isinstance(self.guidance, Mapping):
      for name, weight in self.guidance.items():
        given[f'stages.{name}.guidance_weight'] = weight
    elif self.guidance is not None:
      given['sampler.guidance_weight'] = self.guidance
    return [(key, str(value)) for key, value in given.items()]

  def redraws(self) -> redrawn_sampler.Pairs:
    """Returns what `redrawn_sampler.parse` makes of sampler and steps."""
    return redrawn_sampler.parse(
      _flag(self.sampler),
      _flag(self.steps),
      _flag((self.overrides or {}).get('start_level')),
    )


def _flag(value):
  """Returns a value as the flag of a command has it."""
  if isinstance(value, Mapping):
    return ','.join(f'{name}:{one}' for name, one in value.items())
  return None if value is None else str(value)


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained stage or cascade in memory.

  Its programs are compiled when they are first used, and kept. Every thread or
  process loads a model of its own.

  Attributes:
    name: name of its config.
    image_size: side in pixels of the images that it draws, or was trained on.
    factor: the magnification of a super-resolution stage; None for others.
    num_classes: number of classes of its label input; None if it takes no
      label.
    class_names: their names in the order of the labels; () if they have none.
    manifest: what its images depend on beside seed and label: checkpoint,
      average, sampler and level of the stage or of each, as JSON values.
    upscaler: what a super-resolution stage draws with; None for others.
    stages: the stages of a cascade or the base model alone; () for a
      super-resolution stage.
  """

  name: str
  image_size: int
  factor: int | None
  num_classes: int | None
  class_names: tuple[str, ...]
  manifest: Any
  upscaler: Upscaler | None = dataclasses.field(default=None, repr=False)
  stages: tuple[Stage, ...] = dataclasses.field(default=(), repr=False)
  _programs: dict[Any, Any] = dataclasses.field(
    default_factory=dict, repr=False
  )

  def label(self, label: int | str | None) -> int | None:
    """Returns the index of a class for a super-resolution stage.

    Args:
      label: index or name of a class; None for an unknown one.

    Raises:
      ValueError: there is no such class, the stage takes no label, or it needs
        one.
    """
    if self.num_classes is None and label is not None:
      raise ValueError(
        f'label={label!r} was given, but this stage takes no label; leave it '
        'out.'
      )
    if label is not None:
      return self._find(label)
    if self.upscaler and self.num_classes and not self.upscaler.null_class:
      raise ValueError(
        'This stage was trained with a label for every image; give label=, one '
        f'of {self.num_classes} classes by name or index.'
      )
    return None

  def labels(self, labels: Sequence[int | str] | None) -> list[int] | None:
    """Returns the classes that are drawn in rotation.

    Args:
      labels: indices or names of classes; None for all.

    Returns:
      Indices; None if no stage takes a label.

    Raises:
      ValueError: there is no such class, or no stage takes a label.
    """
    if self.num_classes is None:
      if labels is not None:
        raise ValueError(
          'labels were given, but this model takes no label; leave them out.'
        )
      return None
    if labels is None:
      return list(range(self.num_classes))
    if isinstance(labels, int | str) or not len(labels):
      raise ValueError(f'labels={labels!r} is no list of classes; give [0, 3].')
    return [self._find(label) for label in labels]

  def _find(self, label):
    assert self.num_classes is not None
    try:
      return class_names.find_label(
        str(label), self.class_names, self.num_classes
      )
    except ValueError as error:
      raise ValueError(f'label={label!r}: {error}') from None

  def draw(
    self, num: int, *, labels: Sequence[int] | None, seed: int
  ) -> np.ndarray:
    """Draws images 0 to num - 1 with the base model or the cascade.

    Args:
      num: number of images.
      labels: the classes in rotation, or None.
      seed: seed of all images; image n depends on it and n alone.

    Returns:
      uint8 [num, H, W, 3].

    Raises:
      ValueError: the model is a super-resolution stage.
    """
    if not self.stages:
      raise ValueError(
        f'{self.name!r} is a super-resolution stage, which needs a picture to '
        'enlarge: use upscale, or load the cascade that it belongs to.'
      )
    # The first draw compiles what the others use.
    if 'draw' not in self._programs:
      self._programs['draw'] = cascade.sampler(self.stages)
    size = generate.padded_batch_size(
      self.stages, num, drawing_batch.batch_size(self.stages, num=num)
    )
    begun = generate.begin_batches(
      self._programs['draw'],
      seed,
      generate.label_cycle(labels, num),
      range(num),
      size,
    )
    return np.concatenate(
      [
        device_mesh.fetch(drawn[-1])[: len(indices)]
        for indices, drawn in one_ahead(begun)
      ]
    )


def load(
  workdir: str | os.PathLike,
  config: str | os.PathLike | None,
  choice: Choice,
) -> Model:
  """Restores a stage or a cascade.

  Args:
    workdir: work directory of a stage; or, with a config, the folder of the
      work directories of the stages of a cascade.
    config: path of the config of a cascade; None for a single stage.
    choice: what it draws with.

  Raises:
    FileNotFoundError: a stage has no checkpoint.
    ValueError: it cannot be used; names what is wrong.
  """
  workdir = pathlib.Path(workdir).expanduser()
  if config is None:
    return _single(workdir, choice)
  loaded = loader.load(os.path.expanduser(config), choice.pairs())
  if not cascade_stages.is_cascade(loaded):
    raise ValueError(
      f'{config} is the config of a single stage, which is saved in its work '
      'directory; leave config out.'
    )
  return _of_stages(loaded, workdir, choice)


def _single(workdir, choice):
  if named_upscaler.parse(workdir) is None:
    _refuse_folder_of_stages(workdir)
    step = stage_files.resolve(workdir, choice.checkpoint)
    saved = loader.from_json(stage_files.read_config(workdir, step), workdir)
    if saved.get('lowres') is None and saved.method.kind != 'classification':
      loader.override_all(saved, choice.pairs())
      return _of_stages(saved, workdir, choice)
  upscaler, saved = named_upscaler.opened(
    workdir,
    level=choice.level,
    limits=drawing_batch.TILES,
    overrides=choice.pairs(),
    at=choice.checkpoint,
    redraws=choice.redraws(),
  )
  return Model(
    name=saved.name,
    image_size=upscaler.image_size,
    factor=upscaler.factor,
    num_classes=upscaler.num_classes,
    class_names=tuple(exported_stage.classes(workdir) or ()),
    manifest=upscaler.record.manifest(),
    upscaler=upscaler,
  )


def _refuse_folder_of_stages(workdir):
  if (workdir / 'checkpoints').exists():
    return
  stages = sorted(path.parent.name for path in workdir.glob('*/checkpoints'))
  if stages:
    raise ValueError(
      f'{workdir} holds the stages {", ".join(stages)}; give config=, the '
      'config of their cascade, or the folder of one stage.'
    )


def _of_stages(loaded, workdir, choice):
  """Restores a base model, or the stages of a cascade."""
  if choice.level:
    raise ValueError(
      f'level={choice.level:g} is for a single super-resolution stage; set '
      "'stages.NAME.level' of a cascade."
    )
  stages, notes = restore.restored_cascade(
    loaded,
    workdir,
    choice.pairs(),
    choice.checkpoint,
    redraws=choice.redraws(),
  )
  cascade.check_starts(stages[0])
  counts = [s.num_classes for s in stages if s.num_classes is not None]
  names = exported_stage.classes(workdir / notes[0]['folder'])
  return Model(
    name=loaded.name,
    image_size=stages[-1].image_size,
    factor=None,
    num_classes=counts[0] if counts else None,
    class_names=tuple(names or ()),
    manifest=notes,
    stages=tuple(stages),
  )
