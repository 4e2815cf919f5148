"""Restores trained stages, cascades and upscalers from checkpoints.

Every stage comes from its own work directory: the config that was saved with
the checkpoint says how to build it, and its EMA parameters are used.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NotRequired, TypedDict, cast

from cdm.checkpointing import reader
from cdm.config import (
  asked_guidance,
  built_stage,
  cascade_stages,
  datasets,
  instantiate,
  key_errors,
  loader,
  placement,
  stage,
  stage_warnings,
)
from cdm.data import class_names, data_origin, transforms
from cdm.distributed import collectives
from cdm.sampling import cascade, drawing_batch, kept_images, upscaler
from cdm.sampling.restored_guide import guided
from cdm.sampling.restored_parameters import Checkpoint, RestoredParameters

# Images that a stage super-resolves at once on CPUs, over all devices.
UPSCALED_ON_CPUS = 32

_log = logging.getLogger(__name__)


class Preparation(TypedDict):
  """How the images that a stage was trained on were prepared.

  Attributes:
    crop: how they were cropped to a square.
    filter: how they were resized.
    min_side: least side in pixels of an image that was taken; 0 takes all.
  """

  crop: str
  filter: str
  min_side: int


class StageManifest(TypedDict):
  """A restored stage in the manifest of an output folder.

  Callers may add entries of their own, such as the seed.

  Attributes:
    experiment: name of the stage's config; absent in a list of stages.
    name: name of the stage's config in a list of stages; absent elsewhere.
    checkpoint: step of the checkpoint that its parameters come from.
    level: augmentation level in [0, 1] of its low-res input.
    sampler: the `sampler` section that it draws with.
    prepared: how its training images were prepared; absent in the manifests of
      earlier versions.
    data_sets: see `StageRecord`; absent if it names none.
  """

  experiment: NotRequired[str]
  name: NotRequired[str]
  checkpoint: int
  level: float
  sampler: dict[str, Any]
  prepared: NotRequired[Preparation]
  data_sets: NotRequired[dict[str, data_origin.Origin]]


class CascadeEntry(TypedDict):
  """A stage in the manifest of a cascade.

  Attributes:
    name: name of the stage in the cascade.
    level: augmentation level in [0, 1] of its low-res input; absent if the
      config of the cascade sets none.
    truncated: True if the previous stage stops at `level`; absent if the config
      of the cascade does not say.
    folder: the stage's folder, relative to the cascade's work directory.
    experiment: name of the stage's config.
    checkpoint: step of the checkpoint that its parameters come from.
    sampler: the `sampler` section that it draws with.
    prepared: how its training images were prepared; absent in the manifests of
      earlier versions.
    data_sets: see `StageRecord`; absent if it names none.
  """

  name: str
  level: NotRequired[float]
  truncated: NotRequired[bool]
  folder: str
  experiment: str
  checkpoint: int
  sampler: dict[str, Any]
  prepared: NotRequired[Preparation]
  data_sets: NotRequired[dict[str, data_origin.Origin]]


@dataclasses.dataclass(frozen=True)
class StageRecord:
  """The settings that the images of a restored stage depend on.

  Manifests of output folders contain them.

  Attributes:
    experiment: name of the stage's config.
    checkpoint: step of the checkpoint that its parameters come from.
    level: augmentation level in [0, 1] of its low-res input.
    sampler: the `sampler` section that it draws with, as a plain dict.
    prepared: how its training images were prepared; None if it is not known.
    data_sets: {'train': origin, 'eval': origin}, the public data sets that its
      config names; None if it names none.
  """

  experiment: str
  checkpoint: int
  level: float
  sampler: dict[str, Any]
  prepared: Preparation | None = None
  data_sets: dict[str, data_origin.Origin] | None = None
  weights: ClassVar[str] = 'EMA'

  def manifest(
    self,
    title: str = 'experiment',
    *,
    after_checkpoint: Mapping[str, object] | None = None,
    after_level: Mapping[str, object] | None = None,
  ) -> StageManifest:
    """Returns the settings as a dict of JSON values for a manifest.

    The keys have the order of earlier manifests on disk.

    Args:
      title: key of the experiment's name; 'name' in a list of stages.
      after_checkpoint: further entries, placed after 'checkpoint'.
      after_level: further entries, placed after 'level'.
    """
    settings = {
      title: self.experiment,
      'checkpoint': self.checkpoint,
      **(after_checkpoint or {}),
      'level': self.level,
      **(after_level or {}),
      'sampler': self.sampler,
    }
    if self.prepared is not None:
      settings['prepared'] = self.prepared
    if self.data_sets is not None:
      settings['data_sets'] = self.data_sets
    return cast(StageManifest, settings)

  def cascade_entry(
    self, section: Mapping[str, object], folder: str
  ) -> CascadeEntry:
    """Returns the stage's entry in the manifest of a cascade.

    Args:
      section: the stage's section of the cascade config, without `config`. It
        contains the level if one is set.
      folder: the stage's folder, relative to the cascade's work directory.
    """
    settings = dict(self.manifest())
    del settings['level']
    entry = {**section, 'folder': folder, **settings}
    return cast(CascadeEntry, entry)


def restored_stage(
  checkpoint: Checkpoint,
  *,
  name: str,
  level: float = 0.0,
  truncated: bool = False,
  sampler: loader.ConfigDict | dict[str, Any] | None = None,
  mesh: loader.ConfigDict | dict[str, Any] | None = None,
  overrides: Sequence[tuple[str, str]] = (),
) -> tuple[cascade.Stage, loader.ConfigDict, StageRecord]:
  """Restores a trained stage from its saved config and its EMA parameters.

  Args:
    checkpoint: its checkpoint.
    name: name of the stage, for messages and folders.
    level, truncated: see `cascade.Stage`.
    sampler, mesh: sections that replace the saved ones, or None.
    overrides: ((dotted key, text), ...), applied to the saved config.

  Returns:
    (cascade.Stage, its config, StageRecord).

  Raises:
    FileNotFoundError: workdir has no checkpoint.
    ValueError: workdir holds a classifier, or the checkpoint is damaged or does
      not fit the model.
  """
  workdir = checkpoint.workdir
  at = reader.resolve(workdir, checkpoint.at)
  saved = loader.from_json(reader.read_config(workdir, step=at), workdir)
  stage.refuse_classifier(saved, f'sampled (in {workdir})')
  loader.override_all(saved, overrides)
  sampler_key = 'sampler' if sampler is None else f'stages.{name}.sampler'
  built = stage.stage(saved, sampler, sampler_key=sampler_key)
  warning = stage_warnings.sampler_start(
    built, sampler, sampler_key=sampler_key
  )
  if warning and collectives.is_first():
    _log.warning('warning: %s', warning)
  section = saved.mesh if mesh is None else mesh
  device_mesh = placement.drawing_mesh(section)
  parameters = checkpoint.restored or RestoredParameters()
  params, step = parameters.restore(
    workdir, placement.placed_params(built.method, section, device_mesh), at
  )
  params = built.prepared(params, device_mesh)
  restored = cascade.Stage.of(
    built, params, device_mesh, name=name, level=level, truncated=truncated
  )
  chosen = built.drawn_with if sampler is None else sampler
  restored, chosen = guided(
    restored, built, chosen, workdir=workdir, mesh=section, kept=parameters
  )
  record = stage_record(saved, step=step, level=level, sampler=chosen)
  source = [str(workdir.resolve()), step, loader.plain(section)]
  compiled = built.compiled_settings(record.sampler)
  program = json.dumps([source, compiled], sort_keys=True)
  return restored._replace(program=program), saved, record


def stage_record(
  c: loader.ConfigDict,
  *,
  step: int,
  level: float,
  sampler: Mapping[str, Any] | loader.ConfigDict,
) -> StageRecord:
  """Returns the record of a stage.

  Args:
    c: its config.
    step: step of the checkpoint that its parameters come from.
    level: augmentation level of its low-res input.
    sampler: the `sampler` section that it draws with, or what is in its place;
      {} if there is none.
  """
  settings = loader.plain(dict(sampler))
  pipeline = datasets.pipeline_options(c)
  prepared: Preparation = {
    'crop': pipeline.crop,
    'filter': transforms.filter_name(pipeline.filter),
    'min_side': pipeline.least_side,
  }
  named = data_origin.of_sections(c)
  return StageRecord(c.name, step, level, settings, prepared, named)


def lowres_size(
  workdir: pathlib.Path,
  overrides: Sequence[tuple[str, str]] = (),
  at: int | str | None = None,
) -> int:
  """Returns the side of a super-resolution stage's input, from its config.

  No parameters are restored, so this takes no time.

  Args:
    workdir: directory that `cdm train` wrote.
    overrides: ((dotted key, text), ...), applied to the saved config.
    at: which checkpoint, see `reader.resolve`.

  Raises:
    FileNotFoundError: workdir has no checkpoint.
    ValueError: workdir holds no super-resolution stage.
  """
  step = reader.resolve(workdir, at)
  saved = loader.from_json(reader.read_config(workdir, step=step), workdir)
  stage.refuse_classifier(saved, f'sampled (in {workdir})')
  loader.override_all(saved, overrides)
  if saved.get('lowres') is None:
    raise ValueError(_base_model(workdir, saved))
  return saved.lowres.size


def _base_model(workdir, saved):
  return (
    f'{workdir} holds {saved.name!r}, a base model; a super-resolution stage '
    'is needed.'
  )


def restored_cascade(
  loaded: loader.ConfigDict,
  workdir: pathlib.Path,
  overrides: Sequence[tuple[str, str]] = (),
  at: int | str | None = None,
  restored: RestoredParameters | None = None,
) -> tuple[list[cascade.Stage], list[CascadeEntry]]:
  """Restores every stage of a cascade, or one base stage.

  Args:
    loaded: config of a cascade, or of one stage.
    workdir: work directory of that stage; stage S of a cascade is in workdir/S.
    overrides: ((dotted key, text), ...), applied to the saved config of a
      single stage. For a cascade they are already part of `loaded`.
    at: which checkpoint of every stage, see `reader.resolve`: 'best' is the
      best one of each.
    restored: see `Checkpoint`.

  Returns:
    (stages, notes): the `cascade.Stage`s, checked to fit each other, and for
    each stage its entry in the manifest of the samples.

  Raises:
    FileNotFoundError: a stage has no checkpoint.
    ValueError: a stage holds another experiment, or does not fit the one before
      it.
  """
  if cascade_stages.is_cascade(loaded):
    sections = cascade_stages.sections(loaded)
    folders = [section['name'] for section in sections]
  else:
    sections = [dict(name=loaded.name, config=loaded.name)]
    folders = ['.']
  stages, notes = [], []
  for section, folder in zip(sections, folders, strict=True):
    experiment = section.pop('config')
    section, keys = asked_guidance.of_stage(section)
    own = {
      'checkpoint': Checkpoint(workdir / folder, at, restored),
      'mesh': loaded.get('mesh'),
      'overrides': keys if cascade_stages.is_cascade(loaded) else overrides,
    }
    key = f'stages.{section["name"]}'
    given = instantiate.arguments(key, restored_stage, section, own)
    made, saved, record = restored_stage(**given, **own)
    if saved.name != experiment:
      raise ValueError(
        f'{workdir / folder} holds {saved.name!r}, but {experiment!r} is asked '
        f'for; give the work directory of {experiment!r}, or the config '
        f'{saved.name!r}.'
      )
    stages.append(made)
    notes.append(record.cascade_entry(section, folder))
  check_cascade(stages)
  class_lists = {
    tuple(class_names.read(workdir / folder) or ())
    for folder, made in zip(folders, stages, strict=True)
    if made.num_classes is not None
  }
  class_lists.discard(())
  if len(class_lists) > 1:
    raise ValueError(
      f'The stages in {workdir} were trained on differently named classes; '
      'one label would mean different things to them. Train them on the same '
      'classes in the same order.'
    )
  return stages, notes


def described_stage(
  section: Mapping[str, Any], built: built_stage.Stage
) -> cascade.Stage:
  """Returns a stage of a cascade without parameters, for `check_cascade`.

  Args:
    section: the stage's section of the cascade config.
    built: what its own config describes.
  """
  key = f'stages.{section["name"]}'
  section, _ = asked_guidance.of_stage(section)
  options = {k: v for k, v in section.items() if k not in ('config', 'sampler')}
  own = {'built': built, 'params': None, 'mesh': None}
  given = instantiate.arguments(key, cascade.Stage.of, options, own)
  return cascade.Stage.of(**given, **own)


def check_cascade(stages: Sequence[cascade.Stage]) -> None:
  """Raises ValueError if stages do not form a cascade; see `cascade.check`."""
  with key_errors.naming('stages', otherwise='stages'):
    cascade.check(stages)


def restored_upscaler(
  workdir: pathlib.Path,
  *,
  level: float,
  batch_size: int | None = None,
  batch_per_device: int | None = None,
  limits: drawing_batch.Limits = drawing_batch.WHOLE_BATCHES,
  overrides: Sequence[tuple[str, str]] = (),
  at: int | str | None = None,
  kept: kept_images.Kept | None = None,
) -> tuple[upscaler.Upscaler, loader.ConfigDict]:
  """Restores a super-resolution stage as an `Upscaler`, whatever its method.

  Args:
    workdir: directory that `cdm train` wrote.
    level: augmentation level in [0, 1] of the low-res input.
    batch_size: number of images that are super-resolved at once, over all
      devices.
    batch_per_device: the same on each part of the mesh that a batch is split
      over. If both are None, `drawing_batch` chooses.
    limits: bound what it chooses.
    overrides: ((dotted key, text), ...), applied to the saved config.
    at: which checkpoint, see `reader.resolve`.
    kept: what earlier calls have restored and compiled, or None.

  Returns:
    (upscaler.Upscaler, config of its stage).

  Raises:
    FileNotFoundError: workdir has no checkpoint.
    ValueError: the stage in workdir takes no low-res input, or was not trained
      on this level.
  """
  restored, saved, record = restored_stage(
    Checkpoint(workdir, at, None if kept is None else kept.parameters),
    name='upscaled',
    level=level,
    overrides=overrides,
  )
  if restored.lowres is None:
    raise ValueError(_base_model(workdir, saved))
  cascade.check_level(restored)
  if batch_size is None:
    batch_size = drawing_batch.batch_size(
      [restored],
      per_device=batch_per_device,
      on_cpus=UPSCALED_ON_CPUS,
      most=limits.on_hosts(restored.image_size, restored.mesh),
      most_per_device=limits.most_per_device,
    )
  upscale = upscaler.stage_upscaler(
    restored,
    record,
    batch_size=batch_size,
    programs=None if kept is None else kept.programs,
  )
  return upscale, saved
