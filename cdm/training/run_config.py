"""Checks the `train`, `ema` and `optimizer` sections of a config."""

from typing import NamedTuple

from cdm.config import instantiate
from cdm.config.stage import is_classifier
from cdm.training import optimizer, rollback

OPTIMIZERS = {
  'adam': optimizer.make_optimizer,
  'adamw': optimizer.make_optimizer,
  'sgd': optimizer.make_sgd,
}


def make_optimizer(optimizer_section, num_steps):
  """-> `training.optimizer.Optimizer` of an `optimizer` section."""
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
      leave out the data in between; see `training.rollback`.
    max_rollbacks: of a run; the next divergence stops it.
    grad_norm_spike_factor: a gradient norm this many times its running median
      is divergence; 0 lets it be anything finite.
    watchdog_factor: what takes this many times its median is reported; 0
      watches nothing. See `training.watchdog`.
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
  grad_norm_spike_factor: float = 0.0
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


def read_train_section(c):
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
  for key, above in (('grad_norm_spike_factor', 1), ('watchdog_factor', 1)):
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


def read_ema_section(section):
  """-> `Average` of an `ema` section. Raises ValueError."""
  built = instantiate.splat('ema', Average, section)
  if not 0.0 <= built.decay < 1.0:
    raise ValueError(
      f'config.ema.decay is {built.decay}; it is at least 0 and below 1.'
    )
  return built
