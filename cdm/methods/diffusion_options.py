"""Defines and checks the options of diffusion training and sampling.

`Objective` says how a network is trained, `Sampling` how images are drawn.
`check` refuses options that contradict each other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from cdm.diffusion import grids, noise_levels, sampler_steps, schedules
from cdm.diffusion.parameterization import Kind
from cdm.methods import objective_check

CLIPS = ('none', 'static', 'static_x_0', 'dynamic')


class Objective(NamedTuple):
  """How a diffusion network is scored; the `method` section of a config.

  Attributes:
    prediction: what the network's output is, 'eps', 'x_0', 'v', or an `Edm`,
      whose network is preconditioned ([EDM] tab. 1).
    levels: distribution of the noise level in training: 'discrete' is uniform
      over the schedule's steps ([DDPM] alg. 1), 'piecewise' is uniform in
      signal power between neighbouring steps ([SR3] eq. 6), 'continuous' is
      uniform in the time of the schedule's closed form, a `LogNormal` is
      [EDM]'s.
    loss: 'simple' ([DDPM] eq. 14), 'multiscale' ([SiD]) or 'hybrid' ([IDDPM]
      eq. 16, needs learned variances and discrete levels).
    norm: 1 or 2, the p of the simple loss ([SR3] eq. 6).
    target: the quantity whose error the loss measures, 'eps', 'x_0' or 'v';
      None means the same as `prediction`.
    weighting: None, or the weight by signal-to-noise ratio,
      `(logsnr [B], target) -> [B]`. Of the hybrid loss it is that of the simple
      part.
    uncertainty: None, or a `models.loss_uncertainty.LossUncertainty`, a learned
      weight that multiplies `weighting` ([EDM2]).
    vb_weight: factor of the variational term of the hybrid loss.
    vb_rescale: True multiplies the variational term by T / 1000 ([IDDPM]
      code's rescale_learned_sigmas).
    residual_scale: None, or the standard deviation by which the residual
      target is divided (super-resolution only).
    label_dropout: fraction of examples whose label becomes the null class.
  """

  prediction: Kind = 'eps'
  levels: noise_levels.Levels = 'discrete'
  loss: str = 'simple'
  norm: int = 2
  target: str | None = None
  weighting: Callable[[jax.Array, Kind], jax.Array] | None = None
  uncertainty: Any = None
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
    clip: 'none', 'static' (clips x_0 to [-1, 1]), 'static_x_0' (the same, but
      the predicted noise stays, as diffusers' DDIM keeps it) or 'dynamic'
      ([Imagen]).
    clip_percentile: percentile in (0, 100] of |x_0| for dynamic clipping.
    guidance_weight: w of [CFG] eq. 6; 0 means no guidance.
    guidance_interval: None, or (low, high) log-SNR between which guidance
      acts.
    guidance_rescale: from 0 to 1, how far guidance keeps the contrast of an
      image, see `guidance.classifier_free`.
    project_lowres: True makes an image shrink exactly to its low-res image
      where that has no augmentation noise, see `lowres_projection.project`.
    guide: WORKDIR[@STEP][@AVERAGE] of the weaker network that guides, in
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
  project_lowres: bool = False

  def levels(
    self, stop_logsnr: float | None, start_logsnr: float | None
  ) -> np.ndarray:
    """Returns the part of the grid that sampling runs through.

    Args:
      stop_logsnr: see `grids.truncate`; None ends at x_0.
      start_logsnr: see `grids.begin`; None begins at noise.
    """
    grid = self.grid
    if stop_logsnr is not None:
      grid = grids.truncate(grid, logsnr=stop_logsnr)
    if start_logsnr is not None:
      grid = grids.begin(grid, logsnr=start_logsnr)
    return grid


class Start(NamedTuple):
  """Where sampling begins in the place of noise alone, [SDEdit].

  Attributes:
    image: float32 [B, H, W, 3] in [-1, 1]; it is noised to the start level.
    logsnr: the log-SNR of that level; None takes that of `Tuned`. Where the
      grid begins cleaner, the level is that of the grid's first point.
  """

  image: jax.Array
  logsnr: float | None = None


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
    start_logsnr: float32 [], the level to which a `Start` is noised; None
      without one.
  """

  steps: sampler_steps.Steps
  guidance_weight: np.ndarray | jax.Array
  guidance_interval: np.ndarray | jax.Array | None = None
  guidance_rescale: np.ndarray | jax.Array | float = 0.0
  start_logsnr: np.ndarray | jax.Array | None = None

  @classmethod
  def of(
    cls, sampling: Sampling, logsnrs: np.ndarray, *, begins: bool = False
  ) -> Self:
    """Returns the settings of a sampler on a grid, see `samplers`.

    Args:
      sampling: the sampler.
      logsnrs: the grid, or the part of it that is drawn.
      begins: whether sampling begins at a `Start`.
    """
    interval = sampling.guidance_interval
    return cls(
      sampler_steps.steps(sampling.run, logsnrs),
      np.asarray(sampling.guidance_weight, np.float32),
      None if interval is None else np.asarray(interval, np.float32),
      np.asarray(sampling.guidance_rescale, np.float32),
      np.asarray(logsnrs[0], np.float32) if begins else None,
    )


def check(
  net: Any,
  objective: Objective,
  sampling: Sampling,
  lowres: Any,
  schedule: schedules.Schedule,
  *,
  image_size: int,
) -> None:
  """Refuses options that contradict each other, before anything is traced.

  Args:
    net: a `models.unet.UNet`.
    objective, sampling: the options.
    lowres: a `lowres_conditioning.Lowres`, or None for a base model.
    schedule: the noise schedule of training.
    image_size: H = W of the images.

  Raises:
    ValueError: names the key at fault and says what to set.
  """
  objective_check.check(net, objective, schedule, image_size=image_size)
  _check_guidance(net, objective, sampling)
  _check_projection(sampling, lowres)
  _check_clipping(sampling)
  _check_residual(objective, sampling, lowres)
  _check_level(net, lowres)


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


def _check_projection(sampling, lowres):
  """Refuses a projection onto low-res images where there are none."""
  if sampling.project_lowres and lowres is None:
    raise ValueError(
      'sampler.project_lowres is True, but a base model has no low-res image; '
      'set --config.sampler.project_lowres=False.'
    )


def _check_clipping(sampling):
  """Refuses an unknown way of clipping x_0."""
  if not 0.0 < sampling.clip_percentile <= 100.0:
    raise ValueError(
      f'sampler.clip_percentile is {sampling.clip_percentile}; use a number '
      'above 0 and up to 100.'
    )
  if sampling.clip not in CLIPS:
    raise ValueError(
      f'sampler.clip is {sampling.clip!r}; use one of {list(CLIPS)}.'
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
