"""Restores trained stages, cascades and upscalers from checkpoints.

Every stage comes from its own work directory: the config that was saved with
the checkpoint says how to build it, and its EMA parameters are used.
"""

import dataclasses
import json
import logging
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cdm.checkpointing import checkpoint_name, packed_stage, stage_files
from cdm.config import (
  asked_guidance,
  built_stage,
  cascade_stages,
  instantiate,
  key_errors,
  loader,
  placement,
  redrawn_sampler,
  sampler_warnings,
  stage,
)
from cdm.data import class_names
from cdm.distributed import collectives
from cdm.sampling import (
  cascade,
  drawing_batch,
  drawing_cost,
  kept_images,
  stage_record,
  upscaler,
)
from cdm.sampling.restored_guide import guided
from cdm.sampling.restored_parameters import Checkpoint, RestoredParameters
from cdm.sampling.stage_record import CascadeEntry, StageRecord

# Images that a stage super-resolves at once on CPUs, over all devices.
UPSCALED_ON_CPUS = 32

_log = logging.getLogger(__name__)


def restored_stage(
  checkpoint: Checkpoint,
  *,
  name: str,
  level: float = 0.0,
  truncated: bool = False,
  sampler: loader.ConfigDict | dict[str, Any] | None = None,
  mesh: loader.ConfigDict | dict[str, Any] | None = None,
  overrides: Sequence[tuple[str, str]] = (),
  redraw: redrawn_sampler.Redraw = redrawn_sampler.AS_TRAINED,
) -> tuple[cascade.Stage, loader.ConfigDict, StageRecord]:
  """Restores a trained stage from its saved config and its EMA parameters.

  Args:
    checkpoint: its checkpoint.
    name: name of the stage, for messages and folders.
    level, truncated: see `cascade.Stage`.
    sampler, mesh: sections that replace the saved ones, or None.
    overrides: ((dotted key, text), ...), applied to the saved config.
    redraw: another sampler, or number of steps, than the section says.

  Returns:
    (cascade.Stage, its config, StageRecord).

  Raises:
    FileNotFoundError: workdir has no checkpoint.
    ValueError: workdir holds a classifier, or the checkpoint is damaged or does
      not fit the model.
  """
  workdir = checkpoint.workdir
  at = stage_files.resolve(workdir, checkpoint.at)
  average = checkpoint_name.split(checkpoint.at)[1]
  saved = loader.from_json(stage_files.read_config(workdir, at), workdir)
  stage.refuse_classifier(saved, f'sampled (in {workdir})')
  loader.override_all(saved, overrides)
  sampler_key = 'sampler' if sampler is None else f'stages.{name}.sampler'
  trained_with = _sampler_of(saved, sampler, redraw)
  if redraw.kind is not None or redraw.steps is not None:
    sampler = redrawn_sampler.redrawn(trained_with, redraw, sampler_key)
  built = stage.stage(saved, sampler, sampler_key=sampler_key)
  if collectives.is_first():
    for text in sampler_warnings.of_stage(
      built, sampler, sampler_key=sampler_key
    ):
      _log.warning('warning: %s', text)
  section = saved.mesh if mesh is None else mesh
  device_mesh = placement.drawing_mesh(section)
  parameters = checkpoint.restored or RestoredParameters()
  params, step = parameters.restore(
    workdir,
    placement.placed_params(built.method, section, device_mesh),
    at,
    average,
  )
  params = built.prepared(params, device_mesh)
  restored = cascade.Stage.of(
    built, params, device_mesh, name=name, level=level, truncated=truncated
  )
  restored = restored._replace(start_level=redraw.start_level)
  if trained_with is not None and collectives.is_first():
    steps, evaluations = drawing_cost.steps_and_evaluations(restored)
    text = redrawn_sampler.sentence(
      name, trained_with, redraw, steps=steps, evaluations=evaluations
    )
    print(text, file=sys.stderr, flush=True)
  chosen = built.drawn_with if sampler is None else sampler
  restored, chosen = guided(
    restored, built, chosen, workdir=workdir, mesh=section, kept=parameters
  )
  record = stage_record.of_stage(saved, step=step, level=level, sampler=chosen)
  record = dataclasses.replace(
    record,
    average=average,
    start_level=redraw.start_level,
    sha256=packed_stage.hash_of(workdir),
  )
  source = [
    str(workdir.resolve()),
    checkpoint_name.joined(step, average),
    loader.plain(section),
  ]
  compiled = built.compiled_settings(record.sampler)
  program = json.dumps([source, compiled], sort_keys=True)
  return restored._replace(program=program), saved, record


def _sampler_of(saved, sampler, redraw):
  """Returns the section that a change of the sampler is about; None if none."""
  if not redraw:
    return None
  if not stage.has_sampler(saved):
    raise ValueError(
      f'{redraw.flags}: {saved.name!r} has method.kind={saved.method.kind!r}, '
      'which has no sampler and no noise levels; leave it out, or give it for '
      'other stages as STAGE:VALUE.'
    )
  if sampler is not None:
    return sampler
  instantiate.require(saved, 'sampler')
  return saved.sampler


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
  step = stage_files.resolve(workdir, at)
  saved = loader.from_json(stage_files.read_config(workdir, step), workdir)
  stage.refuse_classifier(saved, f'sampled (in {workdir})')
  loader.override_all(saved, overrides)
  if saved.get('lowres') is None:
    raise ValueError(_base_model(workdir, saved))
  return saved.lowres.size


def canvas_factor(
  workdir: pathlib.Path,
  overrides: Sequence[tuple[str, str]] = (),
  at: int | str | None = None,
) -> int | None:
  """Returns the magnification of a stage, from its config.

  None if it draws no pictures of any size.

  Args:
    workdir, overrides, at: see `lowres_size`.
  """
  step = stage_files.resolve(workdir, at)
  saved = loader.from_json(stage_files.read_config(workdir, step), workdir)
  stage.refuse_classifier(saved, f'sampled (in {workdir})')
  loader.override_all(saved, overrides)
  built = stage.stage(saved)
  if built.method.canvas is None or built.lowres is None:
    return None
  return built.input_size // built.lowres.size


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
  redraws: redrawn_sampler.Pairs = (),
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
    redraws: other samplers, or numbers of steps, than the configs say; see
      `redrawn_sampler.parse`.

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
  changes = redrawn_sampler.of_stages(redraws, [s['name'] for s in sections])
  if cascade_stages.is_cascade(loaded):
    for i, (section, change) in enumerate(zip(sections, changes, strict=True)):
      keys = [f'stages.{k}.sampler' for k in (section['name'], i)]
      redrawn_sampler.check_overrides(change, overrides, keys)
  else:
    redrawn_sampler.check_overrides(changes[0], overrides)
  stages, notes = [], []
  for section, folder, change in zip(sections, folders, changes, strict=True):
    experiment = section.pop('config')
    section, keys = asked_guidance.of_stage(section)
    own = {
      'checkpoint': Checkpoint(workdir / folder, at, restored),
      'mesh': loaded.get('mesh'),
      'overrides': keys if cascade_stages.is_cascade(loaded) else overrides,
      'redraw': change,
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
  limits: drawing_batch.Limits = drawing_batch.WHOLE_BATCHES,
  overrides: Sequence[tuple[str, str]] = (),
  at: int | str | None = None,
  kept: kept_images.Kept | None = None,
  redraw: redrawn_sampler.Redraw = redrawn_sampler.AS_TRAINED,
) -> tuple[upscaler.Upscaler, loader.ConfigDict]:
  """Restores a super-resolution stage as an `Upscaler`, whatever its method.

  Args:
    workdir: directory that `cdm train` wrote.
    level: augmentation level in [0, 1] of the low-res input.
    batch_size: number of images that are super-resolved at once, over all
      devices; None takes that of `limits`, or else `drawing_batch` chooses.
    limits: bound what it chooses.
    overrides: ((dotted key, text), ...), applied to the saved config.
    at: which checkpoint, see `reader.resolve`.
    kept: what earlier calls have restored and compiled, or None.
    redraw: see `restored_stage`.

  Returns:
    (upscaler.Upscaler, config of its stage).

  Raises:
    FileNotFoundError: workdir has no checkpoint.
    ValueError: the stage in workdir takes no low-res input, or was not trained
      on this level.
  """
  redrawn_sampler.check_overrides(redraw, overrides)
  restored, saved, record = restored_stage(
    Checkpoint(workdir, at, None if kept is None else kept.parameters),
    name='upscaled',
    level=level,
    overrides=overrides,
    redraw=redraw,
  )
  if restored.lowres is None:
    raise ValueError(_base_model(workdir, saved))
  cascade.check_level(restored)
  if batch_size is None:
    batch_size = drawing_batch.batch_size(
      [restored],
      per_device=limits.per_device,
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
