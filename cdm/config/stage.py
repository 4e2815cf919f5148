"""Builds the network and the method of one stage from its config."""

import functools
import inspect
from typing import NamedTuple

from ml_collections import ConfigDict

from cdm.config import instantiate
from cdm.config.sampler import grid, sampling
from cdm.diffusion import losses, schedules
from cdm.methods import classification, diffusion
from cdm.methods.base import Task
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import resnet
from cdm.models.unet import UNet
from cdm.train import optimizer, rollback

SCHEDULES = {'cosine': schedules.cosine, 'linear': schedules.linear}
WEIGHTINGS = {
  'none': None,
  'min_snr': losses.min_snr,
  'truncated_snr': losses.truncated_snr,
  'sigmoid': losses.sigmoid,
}
TASKS = {
  'diffusion': diffusion.diffusion,
  'classifier': classification.classifier,
}
# What a task wants drawn once for the whole batch, see train.step.
TASK_DRAWS = {'diffusion': diffusion.draw_batch, 'classifier': None}
OPTIMIZERS = {
  'adam': optimizer.make_optimizer,
  'adamw': optimizer.make_optimizer,
  'sgd': optimizer.make_sgd,
}


class Stage(NamedTuple):
  """What one config describes, with shapes but without arrays.

  A classifier has a tester, and neither schedule nor low-res input.
  """

  config: ConfigDict
  net: UNet | resnet.ResNet50
  schedule: schedules.Schedule | None
  lowres: Lowres | None
  objective: diffusion.Objective | classification.Recipe
  task: Task
  tester: classification.Tester | None = None

  @property
  def input_size(self):
    """H = W of what the network is given."""
    if self.tester is not None:
      return self.objective.size
    return self.config.pipeline.image_size


def stage(c, sampler=None):
  """Builds the network and the task of a stage.

  Args:
    c: ConfigDict of one stage.
    sampler: a section that takes the place of `c.sampler`, or None.

  Returns:
    Stage.

  Raises:
    ValueError: naming the section and key that cannot be used.
  """
  instantiate.require(c, 'task')
  if is_classifier(c):
    return _classifier(c)
  instantiate.require(c, 'schedule', 'model', 'lowres', 'sampler', 'pipeline')
  schedule = instantiate.choose('schedule', c.schedule, SCHEDULES)
  net = instantiate.splat('model', UNet, c.model)
  lowres = None
  if c.lowres is not None:
    lowres = instantiate.splat('lowres', Lowres, c.lowres)
    check_magnification(lowres.size, c.pipeline.image_size)
  section = dict(c.task)
  kind = instantiate.kind_of('task', section, TASKS)
  weighting = _weighting(section.pop('weighting', 'none'))
  objective = instantiate.splat(
    'task', diffusion.Objective, section, weighting=weighting
  )
  task = TASKS[kind](
    net,
    schedule,
    objective,
    sampling(schedule, c.sampler if sampler is None else sampler),
    image_size=c.pipeline.image_size,
    lowres=lowres,
  )
  return Stage(c, net, schedule, lowres, objective, task)


def is_classifier(c):
  """True for a config of a classifier, False for one that draws images."""
  return 'task' in c and c.task.kind == 'classifier'


def require_classifier(c, command):
  """Raises ValueError if a config is not of a classifier.

  Args:
    c: ConfigDict.
    command: that needs one, e.g. 'cdm cas'.
  """
  if not is_classifier(c):
    raise ValueError(
      f'{c.name!r} draws images and is no classifier; {command} takes configs '
      "with task.kind='classifier', such as configs/cas_imagenet128.py."
    )


def refuse_classifier(c, how):
  """Raises ValueError if a config is of a classifier.

  Args:
    c: ConfigDict.
    how: what cannot be done to it, e.g. 'sampled'.
  """
  if is_classifier(c):
    raise ValueError(
      f'{c.name!r} is a classifier, which draws nothing and cannot be {how}; '
      f'it is trained and tested by cdm cas --config=configs/{c.name}.py.'
    )


def _classifier(c):
  """-> Stage of a config with task.kind 'classifier'."""
  instantiate.require(c, 'model', 'pipeline')
  section = dict(c.task)
  kind = instantiate.kind_of('task', section, TASKS)
  recipe = instantiate.splat('task', classification.Recipe, section)
  # momentum 0: what the network says of its statistics is of one batch.
  net = instantiate.splat('model', resnet.ResNet50, c.model, momentum=0.0)
  task, tester = TASKS[kind](
    net,
    recipe,
    image_size=c.pipeline.image_size,
    normalise=resnet.normalise,
  )
  return Stage(c, net, None, None, recipe, task, tester)


def check_magnification(small, large):
  """Raises ValueError unless a whole number of pixels comes of each."""
  if not 0 < small <= large or large % small:
    raise ValueError(
      f'config.lowres.size is {small}, which does not divide '
      f'config.pipeline.image_size = {large}; every low-res pixel must become '
      'a whole number of pixels.'
    )


def transformation(optimizer_section, num_steps):
  """-> `train.optimizer.Optimizer` of an `optimizer` section."""
  section = dict(optimizer_section)
  kind = section.get('kind', 'adam')
  if kind not in OPTIMIZERS:
    raise ValueError(
      f'config.optimizer.kind is {kind!r}; known are {sorted(OPTIMIZERS)}.'
    )
  return instantiate.splat(
    'optimizer', OPTIMIZERS[kind], section, num_steps=num_steps
  )


class Run(NamedTuple):
  """How long and how often; the `train` section of a config.

  Attributes:
    batch_size: of the whole mesh.
    num_steps: at which the run is complete.
    accumulation: microbatches per step.
    log_every_steps, save_every_steps: at least 1.
    keep_checkpoints: how many of the newest stay.
    keep_every_steps: checkpoints at its multiples stay for good; 0 is none.
    sample_every_steps: a grid of samples; 0 is never.
    num_samples: images on that grid; 0 is none.
    on_divergence: 'stop', or 'rollback': go back to the last checkpoint and
      leave out the data in between; see `train.rollback`.
    max_rollbacks: of a run; the next divergence stops it.
    grad_norm_leap: a gradient norm this many times its running median is
      divergence; 0 lets it be anything finite.
    watchdog_factor: what takes this many times its median is reported; 0
      watches nothing. See `train.watchdog`.
    watchdog_seconds: and at least so long.
  """

  batch_size: int
  num_steps: int
  log_every_steps: int
  save_every_steps: int
  accumulation: int = 1
  keep_checkpoints: int = 3
  keep_every_steps: int = 0
  sample_every_steps: int = 0
  num_samples: int = 0
  on_divergence: str = 'stop'
  max_rollbacks: int = 3
  grad_norm_leap: float = 0.0
  watchdog_factor: float = 10.0
  watchdog_seconds: float = 60.0

  @property
  def rollback_limit(self):
    """How many rollbacks the run may make."""
    return self.max_rollbacks if self.on_divergence == 'rollback' else 0


class Average(NamedTuple):
  """The exponential moving average; the `ema` section of a config."""

  decay: float
  warmup: bool = True


def run(c):
  """-> `Run` of `c.train`. Raises ValueError naming what cannot be used."""
  built = instantiate.splat('train', Run, c.train)
  check_recovery(built)
  if is_classifier(c):
    check_classifier_run(built)
  for key, value in built._asdict().items():
    if Run.__annotations__[key] is not int:
      continue
    least = 0 if key in Run._field_defaults and 'keep_ch' not in key else 1
    least = 1 if key == 'accumulation' else least
    if not isinstance(value, int) or value < least:
      raise ValueError(
        f'config.train.{key} is {value!r}; it is a whole number, at least '
        f'{least}.'
      )
  if not isinstance(c.seed, int) or not 0 <= c.seed < 2**32:
    raise ValueError(
      f'config.seed is {c.seed!r}; it is a whole number from 0 to 2^32 - 1.'
    )
  return built


def check_classifier_run(built):
  """Raises ValueError if a run asks for what a classifier has not."""
  for key, only, why in (
    ('accumulation', 1, 'it normalises by the whole batch'),
    ('sample_every_steps', 0, 'it draws nothing'),
    ('num_samples', 0, 'it draws nothing'),
  ):
    if getattr(built, key) != only:
      raise ValueError(
        f'config.train.{key} is {getattr(built, key)!r}; of a classifier it is '
        f'{only}: {why}.'
      )


def check_recovery(built):
  """Raises ValueError if what a run does when it goes wrong makes no sense."""
  if built.on_divergence not in rollback.POLICIES:
    raise ValueError(
      f'config.train.on_divergence is {built.on_divergence!r}; known are '
      f'{list(rollback.POLICIES)}.'
    )
  for key, above in (('grad_norm_leap', 1), ('watchdog_factor', 1)):
    value = getattr(built, key)
    if not (isinstance(value, int | float) and (value == 0 or value > above)):
      raise ValueError(
        f'config.train.{key} is {value!r}; it is 0 (off) or above {above}.'
      )
  seconds = built.watchdog_seconds
  if not (isinstance(seconds, int | float) and seconds > 0):
    raise ValueError(
      f'config.train.watchdog_seconds is {seconds!r}; it is above 0.'
    )


def average(section):
  """-> `Average` of an `ema` section. Raises ValueError."""
  built = instantiate.splat('ema', Average, section)
  if not 0.0 <= built.decay < 1.0:
    raise ValueError(
      f'config.ema.decay is {built.decay}; it is at least 0 and below 1.'
    )
  return built


def _weighting(section):
  """-> the weighting function of `task.weighting`, a kind or a section."""
  section = dict(kind=section) if isinstance(section, str) else dict(section)
  kind = instantiate.kind_of('task.weighting', section, WEIGHTINGS)
  chosen = WEIGHTINGS[kind]
  options = list(inspect.signature(chosen).parameters)[2:] if chosen else []
  for key in section:
    if key not in options:
      raise ValueError(
        f'config.task.weighting.{key} is not an option of {kind!r}; it has '
        f'{options}.'
      )
  return functools.partial(chosen, **section) if chosen else None


def schedule_summary(c, built, sampler=None):
  """-> JSON-able dict of a stage's noise levels, for people to read."""
  if built.tester is not None:
    recipe = built.objective
    return {
      'task': 'classifier',
      'images': f'{c.pipeline.image_size} px',
      'random crops': f'area {recipe.crop_scale}, aspect {recipe.crop_ratio}',
      'flips': recipe.flip,
      'label smoothing': recipe.label_smoothing,
      'batches of the statistics': recipe.statistics_batches,
    }
  sampler = c.sampler if sampler is None else sampler
  lowres = {}
  if c.lowres is not None:
    lowres = {'lowres': f'{c.lowres.downsample} to {c.lowres.size}'}
    lowres['augmentation'] = c.lowres.augment
  return {
    'schedule': c.schedule.kind,
    'training steps T': c.schedule.num_steps,
    'noise levels': built.objective.levels,
    'prediction': built.objective.prediction,
    'loss': built.objective.loss,
    'logsnr range': [
      round(float(built.schedule.logsnr[-1]), 2),
      round(float(built.schedule.logsnr[0]), 2),
    ],
    'sampler': sampler['kind'],
    'sampling steps': len(grid(built.schedule, sampler['grid'])) - 1,
    **lowres,
  }
