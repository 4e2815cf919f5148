"""Restores trained stages: each from its own checkpoint and saved config."""

import dataclasses

from cdm.checkpointing import reader
from cdm.config import cascade_stages, instantiate, loader, placement, stage
from cdm.data import class_names
from cdm.sampling import cascade, upscaler


@dataclasses.dataclass(frozen=True)
class StageRecord:
  """What the images of a restored stage depend on, as manifests hold it.

  Attributes:
    experiment: name of its config.
    checkpoint: step that its parameters were saved at.
    level: augmentation level in [0, 1] of its low-res input.
    sampler: plain dict, the section that it draws by.
  """

  experiment: str
  checkpoint: int
  level: float
  sampler: dict

  def manifest(
    self, title='experiment', *, after_checkpoint=None, after_level=None
  ):
    """-> JSON-able dict, in the order of the manifests that are on disk.

    Args:
      title: key of the experiment: 'name' where stages are listed.
      after_checkpoint, after_level: {key: value} of the caller, which stand
        behind these two.
    """
    return {
      title: self.experiment,
      'checkpoint': self.checkpoint,
      **(after_checkpoint or {}),
      'level': self.level,
      **(after_level or {}),
      'sampler': self.sampler,
    }

  def cascade_entry(self, section, folder):
    """-> the entry of a cascade's manifest.

    Args:
      section: of the cascade's config, without `config`; it has the level
        where one is set.
      folder: of the stage, in the cascade's work directory.
    """
    own = self.manifest()
    del own['level']
    return {**section, 'folder': folder, **own}


def restored_stage(
  workdir,
  *,
  name,
  level=0.0,
  truncated=False,
  sampler=None,
  mesh=None,
  overrides=(),
):
  """Restores a trained stage: its saved config, then its EMA parameters.

  Args:
    workdir: directory that `cdm train` wrote.
    name: of the stage, for messages and folders.
    level, truncated: see `cascade.Stage`.
    sampler: a section in place of the saved one, or None.
    mesh: a section in place of the saved one, or None.
    overrides: ((dotted key, text), ...) of the saved config.

  Returns:
    (cascade.Stage, its config, StageRecord).
  """
  saved = loader.from_json(reader.read_config(workdir), workdir)
  stage.refuse_classifier(saved, f'sampled (in {workdir})')
  loader.override_all(saved, overrides)
  built = stage.stage(saved, sampler)
  section = saved.mesh if mesh is None else mesh
  made = placement.mesh(section)
  params, step = reader.restore_ema(
    workdir, placement.placed_params(built.method, section, made)
  )
  restored = cascade.Stage.of(
    built, params, made, name=name, level=level, truncated=truncated
  )
  drawn_by = loader.plain(saved.sampler if sampler is None else sampler)
  return restored, saved, StageRecord(saved.name, step, level, drawn_by)


def restored_cascade(loaded, workdir, overrides=()):
  """Restores every stage of a cascade config, or one base stage.

  Args:
    loaded: the config; of a cascade, stage S lies in workdir/S.
    workdir: pathlib.Path.
    overrides: ((dotted key, text), ...); those of a single stage apply to its
      saved config (a cascade's are in `loaded` already).

  Returns:
    (list of cascade.Stage that fit each other, a JSON-able note per stage:
    name, folder, checkpoint step and whatever else its samples depend on).

  Raises:
    ValueError: a stage is missing, or does not fit the one before it.
  """
  if cascade_stages.is_cascade(loaded):
    given = [dict(section) for section in loaded.stages]
    folders = [section['name'] for section in given]
  else:
    given = [dict(name=loaded.name, config=loaded.name)]
    folders = ['.']
  stages, notes = [], []
  first = given[0]
  if first.get('level') or first.get('truncated'):
    raise ValueError(
      f'Stage {first["name"]!r} is the first of the cascade: it has no low-res '
      'input, so level and truncated mean nothing there; leave them out.'
    )
  for section, folder in zip(given, folders, strict=True):
    experiment = section.pop('config')
    restored, saved, record = instantiate.splat(
      'stages',
      restored_stage,
      section,
      workdir=workdir / folder,
      mesh=loaded.get('mesh'),
      overrides=() if cascade_stages.is_cascade(loaded) else overrides,
    )
    if saved.name != experiment:
      raise ValueError(
        f'{workdir / folder} holds {saved.name!r}, but {experiment!r} is asked '
        'for; give the work directory of that experiment, or the config that '
        'this one was trained with.'
      )
    stages.append(restored)
    notes.append(record.cascade_entry(section, folder))
  cascade.check(stages)
  known = {
    tuple(class_names.read(workdir / folder) or ())
    for folder, restored in zip(folders, stages, strict=True)
    if restored.num_classes is not None
  }
  known.discard(())
  if len(known) > 1:
    raise ValueError(
      f'The stages in {workdir} were trained on differently named classes; '
      'one label would mean different things to them. Train them on the same '
      'classes in the same order.'
    )
  return stages, notes


def restored_upscaler(workdir, *, level, batch_size=32, overrides=()):
  """Restores what super-resolves, whatever its method is.

  Args:
    workdir: directory that `cdm train` wrote.
    level: augmentation level in [0, 1] of the low-res input.
    batch_size: images at once.
    overrides: ((dotted key, text), ...) of the saved config.

  Returns:
    (upscaler.Upscaler, its config).

  Raises:
    ValueError: the stage in workdir takes no low-res input, or was not
      trained on this level.
  """
  restored, saved, record = restored_stage(
    workdir, name='upscaled', level=level, overrides=overrides
  )
  if restored.lowres is None:
    raise ValueError(
      f'{workdir} holds {saved.name!r}, a base model; a '
      'super-resolution stage is needed.'
    )
  cascade.check_level(restored)
  made = upscaler.stage_upscaler(restored, record, batch_size=batch_size)
  return made, saved
