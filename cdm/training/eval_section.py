"""Reads and checks the `eval` section of a config: evaluations in training."""

from __future__ import annotations

from typing import NamedTuple

from cdm.config import instantiate, key_errors, sampler_section
from cdm.config.built_stage import Stage
from cdm.config.loader import ConfigDict
from cdm.config.stage import is_classifier

PREFIX = 'held_out/'  # begins the name of every scalar of an evaluation
LOSS, EMA_LOSS = f'{PREFIX}loss', f'{PREFIX}ema_loss'
PSNR, SSIM = f'{PREFIX}psnr', f'{PREFIX}ssim'
CONSISTENCY, FID = f'{PREFIX}consistency', f'{PREFIX}fid'
# The scalars by which a checkpoint may be the best, and whether a higher value
# is better.
HIGHER_IS_BETTER = {
  LOSS: False,
  EMA_LOSS: False,
  PSNR: True,
  SSIM: True,
  CONSISTENCY: False,
  FID: False,
}
SSIM_SIDE = 7  # pixels; smaller images have no SSIM
# The kinds of `method` that predict one image for a low-res one instead of
# drawing it.
REGRESSION_METHODS: tuple[str, ...] = ('regression',)


class Evaluation(NamedTuple):
  """The `eval` section of a config; a config without one evaluates nothing.

  Attributes:
    every_steps: interval of the evaluations of the held-out loss and of the
      pairs, in steps; there is one at the end too. 0 makes none.
    batches: held-out batches of train.batch_size whose loss is computed; 0
      computes none. They stay in host memory, shared out over the processes.
    num_pairs: held-out images that a super-resolution stage draws and that are
      scored beside bicubic; 0 draws none.
    fid_every_steps: interval of FID, in steps; 0 computes none.
    fid_num: images that are drawn for FID.
    fid_reference: what they are compared with, a name that
      `cdm evaluate --reference` takes; '' is the training data.
    fid_weights: path of the weights of Inception; '' is where `cdm evaluate`
      looks.
    sampler_steps: number of steps of the sampler for pairs and FID, spread
      over its own grid; None takes all steps of the grid.
    best: scalar by which the best checkpoint is kept, a key of
      `HIGHER_IS_BETTER`; '' keeps none, except for a regression method. It is
      '' too where nothing is evaluated.
    level: augmentation level of the low-res input at which the cascade uses
      this stage; the sample grids show it.
  """

  every_steps: int = 0
  batches: int = 8
  num_pairs: int = 16
  fid_every_steps: int = 0
  fid_num: int = 5000
  fid_reference: str = ''
  fid_weights: str = ''
  sampler_steps: int | None = None
  best: str = ''
  level: float = 0.0


def read_eval_section(c: ConfigDict, built: Stage) -> Evaluation:
  """Reads the section `c.eval`; without one, the result evaluates nothing.

  Args:
    c: config of one stage.
    built: the stage.

  Raises:
    ValueError: names the key that cannot be used.
  """
  section = c.get('eval')
  if section is None:
    return Evaluation()
  options = instantiate.splat('eval', Evaluation, section)
  with key_errors.naming(None):
    _check_numbers(options)
    if is_classifier(c):
      _check_classifier(options)
    else:
      sampler_section.check_steps(
        'eval.sampler_steps', options.sampler_steps, built.schedule, c
      )
    if built.method.accumulate is not None and options.batches:
      raise ValueError(
        f'config.eval.batches is {options.batches!r}, but '
        f'method.kind={c.method.kind!r} is fitted without a loss. Use '
        '--config.eval.batches=0.'
      )
    _check_level(options, built)
    _check_fid(options, built)
    names = scalar_names(options, built)
    best = options.best or default_best(c.method.kind)
    if best:
      _check_best(best, names)
  # A run that evaluates nothing has no best checkpoint.
  return options._replace(best=best if names else '')


def default_best(kind: str) -> str:
  """Returns the scalar by which a kind of `method` chooses its best checkpoint.

  A regression method chooses by PSNR, which is what its loss lowers; the others
  by none.
  """
  return PSNR if kind in REGRESSION_METHODS else ''


def scalar_names(options: Evaluation, built: Stage) -> list[str]:
  """Returns the keys of `HIGHER_IS_BETTER` that a run with these options has.

  Args:
    options: the section `eval`.
    built: the stage.
  """
  names = []
  if options.every_steps and options.batches:
    names += [LOSS, EMA_LOSS]
  if options.every_steps and options.num_pairs and built.lowres is not None:
    names.append(PSNR)
    if built.input_size >= SSIM_SIDE:
      names.append(SSIM)
    names.append(CONSISTENCY)
  if options.fid_every_steps:
    names.append(FID)
  return names


def _check_fid(options, built):
  """Raises ValueError if FID is asked for of what is no RGB image."""
  if options.fid_every_steps and (built.channels != 3 or built.is_array):
    raise ValueError(
      f'config.eval.fid_every_steps is {options.fid_every_steps}, but FID '
      'compares RGB images of 8 bits, and this stage draws '
      f'{"arrays" if built.is_array else f"{built.channels} channels"}. Use '
      '--config.eval.fid_every_steps=0.'
    )


def _check_numbers(options):
  """Raises ValueError if a number is out of range."""
  for key in ('every_steps', 'batches', 'num_pairs', 'fid_every_steps'):
    value = getattr(options, key)
    if not 0 <= value < 2**31:
      raise ValueError(
        f'config.eval.{key} is {value!r}; it must be a whole number from 0 '
        f'(off) to below 2^31. Set it with --config.eval.{key}=NUMBER.'
      )
  if options.fid_num < 2:
    raise ValueError(
      f'config.eval.fid_num is {options.fid_num!r}; FID needs at least 2 '
      'images, and thousands to mean anything. Set it with '
      '--config.eval.fid_num=5000.'
    )


def _check_classifier(options):
  """Raises ValueError if a classifier is to be evaluated in training."""
  for key in ('every_steps', 'fid_every_steps'):
    if getattr(options, key):
      raise ValueError(
        f'config.eval.{key} is {getattr(options, key)!r}; of a classifier it '
        'is 0, because cdm cas and cdm accuracy test it after training. Use '
        f'--config.eval.{key}=0.'
      )


def _check_level(options, built):
  """Raises ValueError unless the stage is trained on the level."""
  lowres, level = built.lowres, options.level
  noisy = lowres is not None and lowres.augment == 'noise'
  most = lowres.max_level if noisy else 0.0
  if not 0.0 <= level <= most:
    why = f'the stage is trained on levels from 0 to {most}'
    if not noisy:
      why = 'the stage has no noise in its low-res input'
    raise ValueError(
      f'config.eval.level is {level!r}, but {why}. Set it with '
      f'--config.eval.level={min(max(level, 0.0), most)}.'
    )


def _check_best(best, names):
  """Raises ValueError if a scalar is unknown, or not among those of the run."""
  if best not in HIGHER_IS_BETTER:
    raise ValueError(
      f'config.eval.best is {best!r}; known are {", ".join(HIGHER_IS_BETTER)}, '
      'and an empty text for none. Set it with --config.eval.best=NAME.'
    )
  if names and best not in names:
    raise ValueError(
      f'config.eval.best is {best!r}, which this run never computes; it '
      f'computes {", ".join(names)}. Set it with --config.eval.best='
      f'{names[0]}, or turn on what computes it.'
    )
