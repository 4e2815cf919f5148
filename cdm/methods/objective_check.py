"""Refuses training objectives of a diffusion model that cannot be meant.

An unknown value is refused by name, and so are values that contradict each
other, or that weight one end of the schedule beyond reason.
"""

from typing import Any

import numpy as np

from cdm.diffusion import losses, noise_levels, schedules
from cdm.diffusion.parameterization import KINDS
from cdm.diffusion.preconditioning import Edm

# An error of the network's output that is weighted more than this drowns those
# of all other levels.
_LARGEST_WEIGHT = 1e3


def check(
  net: Any,
  objective: Any,
  schedule: schedules.Schedule,
  *,
  image_size: int,
) -> None:
  """Refuses objectives that contradict themselves or the network.

  Args:
    net: a `models.unet.UNet`.
    objective: a `diffusion_options.Objective`.
    schedule: the noise schedule of training.
    image_size: H = W of the images.

  Raises:
    ValueError: names the key at fault and says what to set.
  """
  _check_values(objective)
  noise_levels.check(objective.levels, schedule)
  _check_loss(objective, image_size)
  _check_weights(objective, schedule)
  _check_variance(net, objective)


def _check_values(objective):
  """Refuses an unknown or out-of-range value of an `Objective`."""
  if objective.loss not in ('simple', 'multiscale', 'hybrid'):
    raise ValueError(
      f"method.loss is {objective.loss!r}; use 'simple', 'multiscale' or "
      "'hybrid'."
    )
  if objective.norm not in (1, 2):
    raise ValueError(f'method.norm is {objective.norm}; use 1 or 2.')
  for name in ('prediction', 'target'):
    value = getattr(objective, name)
    if name == 'target' and value is None:
      continue
    if name == 'prediction' and isinstance(value, Edm):
      continue
    if value not in KINDS:
      raise ValueError(
        f'method.{name} is {value!r}; known are {", ".join(KINDS)}.'
      )
  if objective.vb_weight < 0.0:
    raise ValueError(
      f'method.vb_weight is {objective.vb_weight}; it must be at least 0.'
    )
  if not 0.0 <= objective.label_dropout <= 1.0:
    raise ValueError(
      f'method.label_dropout is {objective.label_dropout}; it must be a share '
      'of the examples, between 0 and 1.'
    )


def _check_loss(objective, image_size):
  """Refuses a loss that is not of squared errors but has to be, and others."""
  if objective.norm == 1 and objective.weighting is not None:
    raise ValueError(
      'method.weighting is defined on squared errors; use '
      '--config.method.norm=2, or --config.method.weighting=none.'
    )
  if objective.uncertainty is not None:
    _check_uncertainty(objective)
  if objective.loss != 'multiscale':
    return
  if objective.norm != 2:
    raise ValueError(
      "method.loss 'multiscale' is of squared errors; set "
      '--config.method.norm=2, or --config.method.loss=simple.'
    )
  try:
    losses.sides(image_size)
  except ValueError as error:
    raise ValueError(
      f"method.loss is 'multiscale': {error} Use --config.method.loss=simple."
    ) from error


def _check_uncertainty(objective):
  """Refuses a learned weight where its fixed point is not the loss."""
  if objective.norm == 1:
    raise ValueError(
      "method.weighting 'uncertainty' learns the variance of squared errors; "
      'use --config.method.norm=2, or --config.method.weighting=none.'
    )
  if objective.loss == 'hybrid':
    raise ValueError(
      "method.weighting 'uncertainty' would leave the simple part of "
      "method.loss 'hybrid' and its bound in no fixed proportion; use "
      '--config.method.loss=simple, or --config.method.weighting=none.'
    )


def _check_weights(objective, schedule):
  """Refuses a loss in which one end of the schedule drowns all other levels.

  A network that predicts eps errs there by about as much as at other levels,
  but an error of eps is one of x_0 and v that is as much larger as x_t has
  less signal. What a network predicts as v, or preconditioned, is as hard at
  all levels too. (An error of x_0 is small where there is little noise.)
  """
  prediction = objective.prediction
  if prediction == 'x_0' or objective.norm != 2:
    return
  target = objective.target or prediction
  logsnr = np.asarray(schedule.logsnr, np.float32)
  weights = np.exp(
    _log_scale(prediction, logsnr) - _log_scale(target, logsnr), dtype=float
  )
  if objective.weighting is not None:
    weights = weights * np.asarray(objective.weighting(logsnr, target))
  if weights.max() <= _LARGEST_WEIGHT:
    return
  name = 'F' if isinstance(prediction, Edm) else prediction
  remedy = (
    f'a network that predicts {name} learns that level alone; use '
    '--config.method.weighting=none with --config.method.target=None'
  )
  if prediction == 'eps':
    remedy = (
      'a network that predicts eps learns that level alone; use '
      '--config.method.prediction=v (or x_0), or '
      '--config.method.weighting=none with --config.method.target=eps'
    )
  raise ValueError(
    f'method.weighting and method.target={objective.target!r} weigh the error '
    f'of {name} up to {weights.max():.2g} times, at log-SNR '
    f'{schedule.logsnr[weights.argmax()]:.3g}, so that {remedy}.'
  )


def _log_scale(kind, logsnr):
  """Returns the log of the weight on `kind` that is 1 on eps."""
  if isinstance(kind, Edm):
    return -np.logaddexp(0, -logsnr - 2 * np.log(kind.sigma_data))
  return {
    'eps': np.zeros_like(logsnr),
    'x_0': logsnr,
    'v': -np.logaddexp(0, -logsnr),
  }[kind]


def _check_variance(net, objective):
  """Refuses a learned variance without the hybrid loss, and the reverse."""
  if objective.loss == 'hybrid':
    if not net.learned_variance or objective.levels != 'discrete':
      raise ValueError(
        "method.loss 'hybrid' learns variances of a discrete chain; set "
        '--config.model.learned_variance=True and '
        '--config.method.levels=discrete, or use --config.method.loss=simple.'
      )
    if objective.norm != 2:
      raise ValueError(
        "method.loss 'hybrid' is [IDDPM] eq. 16, of squared errors; set "
        '--config.method.norm=2.'
      )
  elif net.learned_variance:
    raise ValueError(
      f'model.learned_variance is True, but the {objective.loss} loss gives '
      'the variance head no gradient; use --config.method.loss=hybrid.'
    )
