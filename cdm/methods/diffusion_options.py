"""Defines and checks the options of diffusion training and sampling.

`Objective` says how a network is trained, `Sampling` how images are drawn.
`check` refuses options that contradict each other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from cdm.diffusion import sampler_steps, schedules
from cdm.diffusion.parameterization import KINDS

# An eps error that is weighted more than this drowns those of all other levels.
_LARGEST_WEIGHT = 1e3


class Objective(NamedTuple):
  """How a diffusion network is scored; the `method` section of a config.

  Attributes:
    prediction: what the network's output is, 'eps', 'x_0' or 'v'.
    levels: distribution of the noise level in training: 'discrete' is uniform
      over the schedule's steps ([DDPM] alg. 1), 'piecewise' is uniform in
      signal power between neighbouring steps ([SR3] eq. 6).
    loss: 'simple' ([DDPM] eq. 14) or 'hybrid' ([IDDPM] eq. 16, needs learned
      variances and discrete levels).
    norm: 1 or 2, the p of the simple loss ([SR3] eq. 6).
    target: the quantity whose error the loss measures, 'eps', 'x_0' or 'v';
      None means the same as `prediction`.
    weighting: None, or the weight by signal-to-noise ratio,
      `(logsnr [B], target) -> [B]`.
    vb_weight: factor of the variational term of the hybrid loss.
    vb_rescale: True multiplies the variational term by T / 1000 ([IDDPM]
      code's rescale_learned_sigmas).
    residual_scale: None, or the standard deviation by which the residual
      target is divided (super-resolution only).
    label_dropout: fraction of examples whose label becomes the null class.
  """

  prediction: str = 'eps'
  levels: str = 'discrete'
  loss: str = 'simple'
  norm: int = 2
  target: str | None = None
  weighting: Callable[[jax.Array, str], jax.Array] | None = None
  vb_weight: float = 0.001
  vb_rescale: bool = False
  residual_scale: float | None = None
  label_dropout: float = 0.0


class Sampling(NamedTuple):
  """How images are drawn; the `sampler` section of a config.

  Attributes:
    run: `(denoise, x_T, *, logsnrs, noise) -> x`, one of `diffusion.samplers`
      with its own options bound.
    grid: float64 [N + 1], increasing log-SNR; the last is +inf.
    clip: 'none', 'static' (clips x_0 to [-1, 1]) or 'dynamic' ([Imagen]).
    clip_percentile: percentile in (0, 100] of |x_0| for dynamic clipping.
    guidance_weight: w of [CFG] eq. 6; 0 means no guidance.
    guidance_interval: None, or (low, high) log-SNR between which guidance
      acts.
    guidance_rescale: from 0 to 1, how far guidance keeps the contrast of an
      image, see `guidance.classifier_free`.
    guide: WORKDIR[@STEP] of the weaker network that guides [Autoguidance], in
      the place of the null class; '' is none.
  """

  run: Callable[..., jax.Array]
  grid: np.ndarray
  clip: str = 'static'
  clip_percentile: float = 99.5
  guidance_weight: float = 0.0
  guidance_interval: tuple[float, float] | None = None
  guidance_rescale: float = 0.0
  guide: str = ''


class Tuned(NamedTuple):
  """The settings of a sampler that its compiled program takes as arguments.

  They replace those of `Sampling`, except that guidance with weight 0 is
  another program, which runs the network once per step and not twice, and so is
  a rescaling of 0.

  Attributes:
    steps: the steps of the grid, which may be truncated.
    guidance_weight: float32 [].
    guidance_interval: float32 [2]; None is another program.
    guidance_rescale: float32 [].
  """

  steps: sampler_steps.Steps
  guidance_weight: np.ndarray | jax.Array
  guidance_interval: np.ndarray | jax.Array | None = None
  guidance_rescale: np.ndarray | jax.Array | float = 0.0

  @classmethod
  def of(cls, sampling: Sampling, logsnrs: np.ndarray) -> Self:
    """Returns the settings of a sampler on a grid, see `samplers`."""
    interval = sampling.guidance_interval
    return cls(
      sampler_steps.steps(sampling.run, logsnrs),
      np.asarray(sampling.guidance_weight, np.float32),
      None if interval is None else np.asarray(interval, np.float32),
      np.asarray(sampling.guidance_rescale, np.float32),
    )


def check(
  net: Any,
  objective: Objective,
  sampling: Sampling,
  lowres: Any,
  schedule: schedules.Schedule,
) -> None:
  """Refuses options that contradict each other, before anything is traced.

  Args:
    net: a `models.unet.UNet`.
    objective, sampling: the options.
    lowres: a `lowres_conditioning.Lowres`, or None for a base model.
    schedule: the noise schedule of training.

  Raises:
    ValueError: names the key at fault and says what to set.
  """
  _check_objective(objective)
  _check_weighting(objective, schedule)
  _check_variance(net, objective)
  _check_guidance(net, objective, sampling)
  _check_clipping(sampling)
  _check_residual(objective, sampling, lowres)
  _check_level(net, lowres)


def _check_objective(objective):
  """Refuses an unknown or out-of-range value of an `Objective`."""
  if objective.loss not in ('simple', 'hybrid'):
    raise ValueError(
      f"method.loss is {objective.loss!r}; use 'simple' or 'hybrid'."
    )
  if objective.levels not in ('discrete', 'piecewise'):
    raise ValueError(
      f"method.levels is {objective.levels!r}; use 'discrete' or 'piecewise'."
    )
  if objective.norm not in (1, 2):
    raise ValueError(f'method.norm is {objective.norm}; use 1 or 2.')
  for name in ('prediction', 'target'):
    value = getattr(objective, name)
    if value not in KINDS and not (name == 'target' and value is None):
      raise ValueError(
        f'method.{name} is {value!r}; known are {", ".join(KINDS)}.'
      )
  if objective.norm == 1 and objective.weighting is not None:
    raise ValueError(
      'method.weighting is defined on squared errors; use '
      '--config.method.norm=2, or --config.method.weighting=none.'
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


def _check_weighting(objective, schedule):
  """Refuses a loss in which one end of the schedule drowns all other levels.

  A network that predicts eps errs there by about as much as at other levels,
  but an error of eps is one of x_0 and v that is as much larger as x_t has
  less signal.
  """
  if objective.prediction != 'eps' or objective.norm != 2:
    return
  target = objective.target or objective.prediction
  logsnr = np.asarray(schedule.logsnr, np.float32)
  weights = {
    'eps': np.ones_like(logsnr),
    'x_0': np.exp(-logsnr),
    'v': 1 + np.exp(-logsnr),
  }[target]
  if objective.weighting is not None:
    weights = weights * np.asarray(objective.weighting(logsnr, target))
  if weights.max() <= _LARGEST_WEIGHT:
    return
  raise ValueError(
    f'method.weighting and method.target={target!r} weigh the error of eps up '
    f'to {weights.max():.2g} times, at log-SNR '
    f'{schedule.logsnr[weights.argmax()]:.3g}, so that a network that predicts '
    'eps learns that level alone; use --config.method.prediction=v (or x_0), '
    'or --config.method.weighting=none with --config.method.target=eps.'
  )


def _check_variance(net, objective):
  """Refuses a learned variance without the hybrid loss, and the reverse."""
  if objective.loss == 'hybrid':
    if not net.learned_variance or objective.levels != 'discrete':
      raise ValueError(
        "method.loss 'hybrid' learns variances of a discrete chain; set "
        '--config.model.learned_variance=True and '
        '--config.method.levels=discrete, or use --config.method.loss=simple.'
      )
    if objective.norm != 2 or objective.weighting is not None:
      raise ValueError(
        "method.loss 'hybrid' is [IDDPM] eq. 16, unweighted and squared; set "
        '--config.method.norm=2 and --config.method.weighting=none.'
      )
  elif net.learned_variance:
    raise ValueError(
      'model.learned_variance is True, but the simple loss gives the variance '
      'head no gradient; use --config.method.loss=hybrid.'
    )


def _check_guidance(net, objective, sampling):
  """Refuses guidance if the null class is not trained."""
  if objective.label_dropout and not net.null_class:
    raise ValueError(
      f'method.label_dropout is {objective.label_dropout} but the network has '
      'no null class; set --config.model.null_class=True or '
      '--config.method.label_dropout=0.'
    )
  if net.null_class and not objective.label_dropout:
    raise ValueError(
      'model.null_class is True, but method.label_dropout is '
      f'{objective.label_dropout}, so the null class is never trained; set '
      '--config.method.label_dropout=0.1 or --config.model.null_class=False.'
    )
  is_free = sampling.guidance_weight and not sampling.guide
  if is_free and not objective.label_dropout:
    raise ValueError(
      f'sampler.guidance_weight is {sampling.guidance_weight} but the network '
      'has learned no null class to be guided away from; train with '
      '--config.model.null_class=True and --config.method.label_dropout=0.1, '
      'name a weaker network with --config.sampler.guide=WORKDIR, or use '
      '--config.sampler.guidance_weight=0.'
    )
  if not 0.0 <= sampling.guidance_rescale <= 1.0:
    raise ValueError(
      f'sampler.guidance_rescale is {sampling.guidance_rescale}; it must be a '
      'share, from 0 to 1.'
    )
  if sampling.guidance_rescale and not sampling.guidance_weight:
    raise ValueError(
      f'sampler.guidance_rescale is {sampling.guidance_rescale}, but there is '
      'no guidance to rescale; set --config.sampler.guidance_weight, or '
      '--config.sampler.guidance_rescale=0.'
    )
  interval = sampling.guidance_interval
  if interval is not None and not interval[0] < interval[1]:
    raise ValueError(
      f'sampler.guidance_interval is {interval}; it must be (low, high) '
      'log-SNR.'
    )


def _check_clipping(sampling):
  """Refuses an unknown way of clipping x_0."""
  if not 0.0 < sampling.clip_percentile <= 100.0:
    raise ValueError(
      f'sampler.clip_percentile is {sampling.clip_percentile}; use a number '
      'above 0 and up to 100.'
    )
  if sampling.clip not in ('none', 'static', 'dynamic'):
    raise ValueError(
      f"sampler.clip is {sampling.clip!r}; use 'none', 'static' or 'dynamic'."
    )


def _check_residual(objective, sampling, lowres):
  """Refuses a residual target where it has no meaning."""
  if objective.residual_scale is None:
    return
  if not objective.residual_scale > 0.0:
    raise ValueError(
      f'method.residual_scale is {objective.residual_scale}; it must be a '
      'standard deviation, above 0, or None for no residual target.'
    )
  if objective.loss == 'hybrid':
    raise ValueError(
      "method.loss 'hybrid' scores x_0 as grey levels, which a residual is "
      'not; set --config.method.residual_scale=None.'
    )
  if lowres is None:
    raise ValueError(
      'method.residual_scale is set but the stage has no low-res input to '
      'take a residual from; a base model has '
      '--config.method.residual_scale=None.'
    )
  if sampling.clip == 'dynamic':
    raise ValueError(
      "sampler.clip 'dynamic' rescales x_0 around zero, which has no meaning "
      'for a residual target; use --config.sampler.clip=static.'
    )


def _check_level(net, lowres):
  """Refuses an augmentation level that the network does not take as input."""
  if net.lowres_level != (lowres is not None and lowres.augment == 'noise'):
    raise ValueError(
      f'model.lowres_level is {net.lowres_level}, but the level of '
      'augmentation is fed to the network exactly when lowres.augment is '
      "'noise'; make the two agree with "
      f'--config.model.lowres_level={not net.lowres_level}.'
    )
