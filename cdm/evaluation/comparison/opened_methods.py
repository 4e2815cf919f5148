"""Opens the methods of a comparison, and checks that they do the same task.

All super-resolve the same held-out images: those of the config that is given,
or else of the first stage.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from cdm.checkpointing import checkpoint_name, reader, stage_files
from cdm.config import (
  class_agreement,
  datasets,
  instantiate,
  loader,
  redrawn_sampler,
)
from cdm.config import stage as stages
from cdm.data.printable_name import printable
from cdm.evaluation.comparison import named_methods
from cdm.evaluation.comparison.named_methods import NamedMethod
from cdm.models import flops
from cdm.reporting import session_log
from cdm.sampling import (
  drawing_batch,
  named_upscaler,
  restore,
  upscale_files,
  upscaler,
)
from cdm.training import eval_section


class Task(NamedTuple):
  """What all methods of a comparison do.

  Attributes:
    config: a config whose evaluation data, pipeline and low-res images are
      those of the comparison.
    image_size: H = W of the results.
    lowres_size: h = w of the low-res images.
    downsample: the filter that makes them.
  """

  config: loader.ConfigDict
  image_size: int
  lowres_size: int
  downsample: str

  @property
  def text(self) -> str:
    """The task in words, '16 -> 64'."""
    return f'{self.lowres_size} -> {self.image_size}'


class Cost(NamedTuple):
  """What a method cost to train, as far as it is known.

  Attributes:
    parameters: number of scalars of its networks; 0 without training.
    steps: updates made.
    images: images that they took.
    flops: of the training, three forward passes for each image, and those of
      a teacher.
    seconds: that the run took in all, evaluation and compiling included.
  """

  parameters: int = 0
  steps: int = 0
  images: int = 0
  flops: int = 0
  seconds: float | None = None


def saved_config(
  method: NamedMethod, at: int | str | None
) -> loader.ConfigDict:
  """Returns the config that a stage was trained with.

  Raises:
    FileNotFoundError: it has no checkpoint.
  """
  workdir = method.path
  assert workdir is not None
  step = stage_files.resolve(workdir, at)
  return loader.from_json(stage_files.read_config(workdir, step), workdir)


def task_of(
  methods: Sequence[NamedMethod],
  given: loader.ConfigDict | None,
  *,
  image_size: int | None = None,
  lowres_size: int | None = None,
) -> Task:
  """Returns the task of a comparison.

  Args:
    methods: its methods.
    given: a config whose data are compared on; None takes that of the first
      stage.
    image_size, lowres_size: what the user expects, or None.

  Raises:
    ValueError: no config says what the data are, or its task is another one
      than the user's or than that of a stage.
  """
  trained = [m for m in methods if m.kind == named_methods.STAGE]
  if given is None:
    if not trained:
      raise ValueError(
        'No method of --methods has been trained by cdm, so that nothing says '
        'which images are compared. Give --config=CONFIG.py, whose eval_data '
        'and lowres they are.'
      )
    given = saved_config(trained[0], None)
  instantiate.require(given, 'eval_data', 'pipeline', 'lowres')
  if given.lowres is None:
    raise ValueError(
      f'config.lowres of {given.name!r} is None; a comparison is of '
      'super-resolution, so give the config of a stage with a low-res input.'
    )
  task = Task(
    given,
    given.pipeline.image_size,
    given.lowres.size,
    given.lowres.downsample,
  )
  for flag, wanted, found in (
    ('size', image_size, task.image_size),
    ('low_res', lowres_size, task.lowres_size),
  ):
    if wanted is not None and wanted != found:
      raise ValueError(
        f'--{flag}={wanted}, but {given.name!r} is of {task.text} pixels; '
        f'leave --{flag} out, or give methods of that size.'
      )
  for method in trained:
    saved = saved_config(method, None)
    other = saved.get('lowres')
    sizes = (
      saved.pipeline.image_size,
      None if other is None else other.size,
      None if other is None else other.downsample,
    )
    if sizes != (task.image_size, task.lowres_size, task.downsample):
      raise ValueError(
        f'{method.name} in {printable(method.path)} makes images of {sizes[0]} '
        f'pixels of {sizes[1]} (filter {sizes[2]}), but the comparison is of '
        f'{task.text} (filter {task.downsample}). Compare methods of one task.'
      )
  return task


def checkpoint_of(
  method: NamedMethod, at: int | str | None
) -> int | str | None:
  """Returns which checkpoint of a stage is used, see `reader.resolve`.

  By default the best one of a regression, which [SR3] takes by PSNR, and the
  last one of any other method.
  """
  step, average = checkpoint_name.split(at)
  if step is not None:
    return at
  assert method.path is not None
  kind = saved_config(method, None).method.kind
  has_best = eval_section.default_best(kind) and reader.read_best(method.path)
  return checkpoint_name.joined('best' if has_best else None, average)


def redraws_of(
  methods: Sequence[NamedMethod],
  redraws: redrawn_sampler.Pairs,
  at: int | str | None,
) -> dict[str, redrawn_sampler.Redraw]:
  """Returns what methods draw with in the place of their own samplers.

  Args:
    methods: the methods of a comparison.
    redraws: what `redrawn_sampler.parse` returned. What is for all stages is
      for all methods that have a sampler.
    at: which checkpoint, see `checkpoint_of`.

  Returns:
    {name of a method with a sampler: what it draws with}; {} without redraws.

  Raises:
    ValueError: no method has a sampler, or a named one has none.
  """
  if not redraws:
    return {}
  names = [
    m.name
    for m in methods
    if m.kind == named_methods.STAGE
    and stages.has_sampler(saved_config(m, checkpoint_of(m, at)))
  ]
  if not names:
    raise ValueError(
      '--sampler and --steps are for methods with a sampler, and --methods '
      'has none; leave them out.'
    )
  changes = redrawn_sampler.of_stages(redraws, names)
  return dict(zip(names, changes, strict=True))


def open_upscaler(
  method: NamedMethod,
  task: Task,
  *,
  at: int | str | None,
  batch_size: int | None = None,
  redraw: redrawn_sampler.Redraw = redrawn_sampler.AS_TRAINED,
) -> tuple[upscaler.Upscaler, Cost]:
  """Opens a method that cdm runs.

  Args:
    method: a stage, or a method without training.
    task: see `task_of`.
    at: which checkpoint, see `checkpoint_of`.
    batch_size: images at once over all devices; None chooses it.
    redraw: what it draws with, if not with its own sampler.

  Raises:
    ValueError: it cannot be opened.
  """
  if method.kind != named_methods.STAGE:
    upscale = named_upscaler.untrained(
      method.kind,
      task.config,
      batch_size=batch_size,
      limits=drawing_batch.OWN_ROWS,
    )
    return upscale, Cost()
  assert method.path is not None
  upscale, saved = restore.restored_upscaler(
    method.path,
    level=0.0,
    batch_size=batch_size,
    limits=drawing_batch.OWN_ROWS,
    at=checkpoint_of(method, at),
    redraw=redraw,
  )
  return upscale, _cost(saved, method.path, upscale.record.checkpoint)


def _cost(saved: loader.ConfigDict, workdir: pathlib.Path, steps: int) -> Cost:
  built = stages.stage(saved)
  parameters, forward = built.trace()
  images = steps * saved.train.batch_size
  total = session_log.total(workdir)
  return Cost(
    parameters=flops.count_parameters(parameters),
    steps=steps,
    images=images,
    flops=built.training_passes * forward * images,
    seconds=None if total is None else total['seconds'],
  )


def manifest(
  task: Task, upscale: upscaler.Upscaler, *, count: int, seed: int
) -> upscale_files.Manifest:
  """Returns the manifest of the images of a method."""
  found: dict[str, Any] = {
    **upscale.record.manifest(
      after_checkpoint={'seed': seed}, after_level={'count': count}
    ),
    'eval_data': loader.plain(task.config.eval_data),
  }
  return cast(upscale_files.Manifest, found)


def data_config(
  method: NamedMethod, task: Task, upscale: upscaler.Upscaler
) -> loader.ConfigDict:
  """Returns the config to read the images of a comparison with, for a method.

  Raises:
    ValueError: the data have other classes than those that it was trained on.
  """
  if method.path is None:
    return task.config
  return class_agreement.of_stage(task.config, method.path, upscale.num_classes)


def available(task: Task) -> int:
  """Returns how many held-out images there are."""
  return len(datasets.open_source(task.config.eval_data, 'eval_data'))
