"""Reads and checks the `train` and `optimizer` sections of a config."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from cdm.config import instantiate, key_errors, value_types
from cdm.config.loader import ConfigDict
from cdm.config.stage import is_classifier
from cdm.training import (
  optimizer,
  profile_steps,
  restarts,
  rmsprop,
  rollback,
)

# {kind: (class of the options, whose fields are the keys; constructor)}.
OPTIMIZERS = {
  'adam': (optimizer.AdamOptions, optimizer.make_optimizer),
  'adamw': (optimizer.AdamOptions, optimizer.make_optimizer),
  'adafactor': (optimizer.AdafactorOptions, optimizer.make_adafactor),
  'rmsprop': (rmsprop.RmspropOptions, optimizer.make_rmsprop),
  'sgd': (optimizer.SgdOptions, optimizer.make_sgd),
}


def make_optimizer(
  optimizer_section: Mapping, num_steps: int
) -> optimizer.Optimizer:
  """Builds the optimizer of an `optimizer` section.

  Args:
    optimizer_section: fields of `optimizer.AdamOptions`,
      `optimizer.AdafactorOptions`, `rmsprop.RmspropOptions` or
      `optimizer.SgdOptions`.
    num_steps: length of the run.

  Returns:
    Optimizer.

  Raises:
    ValueError: names the key that cannot be used.
  """
  section = instantiate.as_dict('optimizer', optimizer_section)
  chosen = {'kind': section.get('kind', 'adam')}
  kind = instantiate.kind_of('optimizer', chosen, OPTIMIZERS)
  constructor, make = OPTIMIZERS[kind]
  options = instantiate.splat('optimizer', constructor, section)
  with key_errors.naming('optimizer', constructor._fields):
    return make(options, num_steps)


# {value of train.init_params: the field of TrainState that it names}.
INIT_PARAMS = {'ema': 'ema_params', 'raw': 'params'}
INIT_MISSING = ('refuse', 'initialize')


class Run(NamedTuple):
  """The `train` section of a config: length and intervals of a run.

  Attributes:
    batch_size: images per step, over all devices of the mesh.
    num_steps: the step at which the run is complete.
    log_every_steps: interval of log lines, at least 1.
    save_every_steps: interval of checkpoints, at least 1.
    accumulation: microbatches per step.
    save_every_minutes: a checkpoint is also made at the first log line after so
      many minutes without one; 0 makes none. See `training.intervals`.
    local_copy_every_minutes: every host copies its part of the state to a disk
      of its own at the first log line after so many minutes; 0 makes no copies.
      See `checkpointing.local_copies`.
    local_copy_dir: the folder of these copies, on a local disk of every host;
      '' is one among the temporary files.
    compare_every_steps: interval at which devices that hold the same values
      compare them, and they do so before every checkpoint and after it is
      restored; 0 never compares. See `distributed.replica_comparison`.
    keep_checkpoints: how many of the newest checkpoints are kept.
    keep_every_steps: checkpoints at multiples of this are kept for good; 0
      keeps none.
    save_retry_minutes: for so long saves may fail, while training goes on and
      they are tried again, before the run ends; 0 ends it at the first failure.
    sample_every_steps: interval of sample grids; 0 draws none.
    num_samples: images on a grid; 0 draws none.
    sample_steps: steps of the sampler for the grids, spread over its own grid
      of noise levels; None takes all.
    on_divergence: 'stop', or 'rollback' to go back to the last checkpoint and
      skip the data in between; see `training.rollback`.
    max_rollbacks: how many rollbacks a run may make; the next divergence stops
      it.
    grad_norm_spike_factor: a gradient norm above this many times its running
      median counts as divergence; 0 allows every finite norm.
    watchdog_factor: a phase that takes this many times its median is reported;
      0 reports nothing. See `training.watchdog`.
    watchdog_seconds: a phase is never reported before it has taken this long.
    watchdog_end_factor: a phase that takes this many times its median is a
      hang, and ends the run with a code after which launchers start it again.
    watchdog_end_seconds: but no phase is a hang before it has taken this long,
      and phases that are rare or slow, such as a first step, before several
      times as long; 0 never ends a run.
    max_restarts_in_vain: the run ends for good when it was started this many
      times in a row without getting to a newer checkpoint; 0 is off. See
      `training.restarts`.
    max_restarts_per_hour: the same for all starts within an hour.
    max_restarts_in_all: the same for all starts since a person started it.
    profile_steps: 'FIRST:LAST', the steps of which a trace is written, both
      included; '' writes none. See `training.profile_steps`.
    wandb: project of Weights & Biases to which the scalars and grids go too;
      '' is off. See `reporting.wandb_writer`.
    init_from: WORKDIR, WORKDIR@STEP, WORKDIR@best or a packed stage: a new run
      starts from the weights of this checkpoint, by default the newest; ''
      draws them at random. See `training.init_from`.
    init_params: 'ema' starts from its EMA parameters, 'raw' from those that the
      optimizer changed.
    init_missing: 'refuse' if the networks have other arrays, or 'initialize'
      those that the checkpoint lacks, as in a new run.
    init_from_sha256: SHA-256 of the checkpoint's checksums.json, or of the
      arrays of a packed stage. The run writes it into its config; one that is
      given is compared.
  """

  batch_size: int
  num_steps: int
  log_every_steps: int
  save_every_steps: int
  accumulation: int = 1
  save_every_minutes: float = 0.0
  local_copy_every_minutes: float = 0.0
  local_copy_dir: str = ''
  compare_every_steps: int = 1000
  keep_checkpoints: int = 3
  keep_every_steps: int = 0
  sample_every_steps: int = 0
  num_samples: int = 0
  sample_steps: int | None = None
  on_divergence: str = 'stop'
  max_rollbacks: int = 3
  grad_norm_spike_factor: float = 0.0
  watchdog_factor: float = 10.0
  watchdog_seconds: float = 60.0
  watchdog_end_factor: float = 20.0
  watchdog_end_seconds: float = 900.0
  max_restarts_in_vain: int = 10
  max_restarts_per_hour: int = 60
  max_restarts_in_all: int = 1000
  profile_steps: str = ''
  wandb: str = ''
  init_from: str = ''
  init_params: str = 'ema'
  init_missing: str = 'refuse'
  init_from_sha256: str = ''
  save_retry_minutes: float = 60.0

  @property
  def profiled_steps(self) -> range | None:
    """The steps of which a trace is written; None for none."""
    return profile_steps.parse(self.profile_steps, self.num_steps)

  @property
  def restart_limits(self) -> restarts.Limits:
    """How often the run may be started again."""
    return restarts.Limits(
      self.max_restarts_in_vain,
      self.max_restarts_per_hour,
      self.max_restarts_in_all,
    )

  @property
  def rollback_limit(self) -> int:
    """How many rollbacks the run may make."""
    return self.max_rollbacks if self.on_divergence == 'rollback' else 0


def read_train_section(c: ConfigDict) -> Run:
  """Reads the section `c.train`, and checks `c.seed`.

  Raises:
    ValueError: names the key that cannot be used.
  """
  built = instantiate.splat('train', Run, c.train)
  with key_errors.naming(None):
    _check_run(c, built)
  return built


def _check_run(c: ConfigDict, built: Run) -> None:
  """Raises ValueError if a value of `train`, or the seed, is out of range."""
  check_recovery(built)
  check_start(built)
  if is_classifier(c):
    check_classifier_run(built)
  for key, value in built._asdict().items():
    if Run.__annotations__[key] is not int:
      continue
    least = 0 if key in Run._field_defaults and 'keep_ch' not in key else 1
    least = 1 if key == 'accumulation' else least
    if not least <= value < 2**31:  # Steps are counted in int32.
      raise ValueError(
        f'config.train.{key} is {value!r}; it must be a whole number, at least '
        f'{least} and below 2^31.'
      )
  profile_steps.parse(built.profile_steps, built.num_steps)
  value_types.check('seed', c.seed, int)
  if not 0 <= c.seed < 2**32:
    raise ValueError(
      f'config.seed is {c.seed!r}; it must be a whole number from 0 to '
      '2^32 - 1.'
    )


def check_classifier_run(built: Run) -> None:
  """Raises ValueError if the run of a classifier asks for sample grids.

  It also refuses gradient accumulation, because a classifier normalises by the
  statistics of the whole batch.
  """
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


def check_recovery(built: Run) -> None:
  """Raises ValueError if the options for divergence or hangs make no sense."""
  if built.on_divergence not in rollback.POLICIES:
    raise ValueError(
      f'config.train.on_divergence is {built.on_divergence!r}; known are '
      f'{list(rollback.POLICIES)}.'
    )
  for key, above in (('grad_norm_spike_factor', 1), ('watchdog_factor', 1)):
    value = getattr(built, key)
    if not (value == 0 or value > above):
      raise ValueError(
        f'config.train.{key} is {value!r}; it must be 0 (off) or above {above}.'
      )
  for key in ('save_every_minutes', 'local_copy_every_minutes'):
    value = getattr(built, key)
    if not 0 <= value < float('inf'):
      raise ValueError(
        f'config.train.{key} is {value!r}; it must be 0 (off) or above 0.'
      )
  folder = built.local_copy_dir
  if folder and not os.path.isabs(folder):
    raise ValueError(
      f'config.train.local_copy_dir is {folder!r}; give the whole path of a '
      'folder on a local disk of every host, or leave it empty.'
    )
  minutes = built.save_retry_minutes
  if not 0 <= minutes < float('inf'):
    raise ValueError(
      f'config.train.save_retry_minutes is {minutes!r}; it must be a number of '
      'minutes, at least 0.'
    )
  seconds = built.watchdog_seconds
  if not seconds > 0:
    raise ValueError(
      f'config.train.watchdog_seconds is {seconds!r}; it must be above 0.'
    )
  if not built.watchdog_end_factor > 1:
    raise ValueError(
      f'config.train.watchdog_end_factor is {built.watchdog_end_factor!r}; it '
      'must be above 1.'
    )
  if not built.watchdog_end_seconds >= 0:
    raise ValueError(
      f'config.train.watchdog_end_seconds is {built.watchdog_end_seconds!r}; '
      'it must be 0 (off) or above 0.'
    )


def check_start(built: Run) -> None:
  """Raises ValueError if the options of `init_from` make no sense."""
  for key, known in (
    ('init_params', INIT_PARAMS),
    ('init_missing', INIT_MISSING),
  ):
    value = getattr(built, key)
    if value not in known:
      raise ValueError(
        f'config.train.{key} is {value!r}; known are {list(known)}.'
      )
  sha256 = built.init_from_sha256
  if sha256 and not re.fullmatch('[0-9a-f]{64}', sha256):
    raise ValueError(
      f'config.train.init_from_sha256 is {sha256!r}; it must be 64 digits of '
      '0-9 and a-f, as the config of a run records them, or empty.'
    )
