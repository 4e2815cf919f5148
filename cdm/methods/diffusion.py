"""Denoising diffusion, as a base model and as super-resolution.

  base:              x_t = alpha_t x_0 + sigma_t eps              [DDPM] eq. 4
  super-resolution:  the same, given u = upsample(augment(z_0))   [CDM] alg. 1
  residual target:   x_0 is replaced by (x_0 - u) / residual_scale

where z_0 is x_0 shrunk to the previous stage's size. With a residual target
the network draws only what the low-res image does not hold; the scale brings
that difference near unit variance, as the schedule assumes of its data.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cdm.diffusion import guidance, losses, schedules
from cdm.diffusion.parameterization import KINDS, predict
from cdm.methods import lowres_conditioning
from cdm.methods.base import Method
from cdm.ops import pixels
from cdm.ops.keys import example_keys, normals

# Uses of an image's own key; folded in, so none can meet another.
X_T, STEP_NOISE = 0, 1


class Objective(NamedTuple):
  """How a diffusion network is scored; the `method` section of a config.

  Attributes:
    prediction: what the network's output is, 'eps', 'x_0' or 'v'.
    levels: law of the noise level in training: 'discrete' is uniform over the
      schedule's steps ([DDPM] alg. 1), 'piecewise' uniform in signal power
      between neighbouring steps ([SR3] eq. 6).
    loss: 'simple' ([DDPM] eq. 14) or 'hybrid' ([IDDPM] eq. 16, needs learned
      variances and discrete levels).
    norm: 1 or 2, the p of the simple loss ([SR3] eq. 6).
    target: the space the loss is taken in; None means that of `prediction`.
    weighting: weight by signal-to-noise ratio, None or a function
      `(logsnr [B], target) -> [B]`.
    vb_weight: factor of the variational term of the hybrid loss.
    vb_rescale: multiply that term by T / 1000 ([IDDPM] code's
      rescale_learned_sigmas).
    residual_scale: None, or the standard deviation that the residual target
      is divided by (super-resolution only).
    label_dropout: fraction of examples whose label becomes the null class.
  """

  prediction: str = 'eps'
  levels: str = 'discrete'
  loss: str = 'simple'
  norm: int = 2
  target: str | None = None
  weighting: object = None
  vb_weight: float = 0.001
  vb_rescale: bool = False
  residual_scale: float | None = None
  label_dropout: float = 0.0


class Sampling(NamedTuple):
  """How images are drawn; the `sampler` section of a config.

  Attributes:
    run: `(denoise, x_T, *, logsnrs, noise) -> x`, one of `diffusion.samplers`
      with its own options bound.
    grid: float64 [N + 1], increasing log-SNR, the last is +inf.
    clip: 'none', 'static' (x_0 into [-1, 1]) or 'dynamic' ([Imagen]).
    clip_percentile: percentile in (0, 100] of |x_0| for dynamic clipping.
    guidance_weight: w of [CFG] eq. 6; 0 is no guidance.
    guidance_interval: None, or (low, high) log-SNR between which guidance
      acts.
  """

  run: object
  grid: object
  clip: str = 'static'
  clip_percentile: float = 99.5
  guidance_weight: float = 0.0
  guidance_interval: tuple | None = None


def diffusion(net, schedule, objective, sampling, *, image_size, lowres=None):
  """Binds a network, a schedule and their options into a Method.

  Args:
    net: a `models.unet.UNet`.
    schedule: `schedules.Schedule` of training.
    objective: `Objective`.
    sampling: `Sampling`.
    image_size: H = W of x_0.
    lowres: `lowres_conditioning.Lowres` of a super-resolution stage, None of a
      base.

  Returns:
    Method. Its `sample(params, *, keys, label=None, lowres=None, level=None,
    stop_logsnr=None)` takes one key per image [B], int32 labels [B] or None
    (the null class, where the network has one), the low-res images [B, h, w,
    3] already augmented to `level` [B] (None is 0), and ends at the log-SNR
    `stop_logsnr` instead of at x_0 when it is given (truncated sampling,
    [CDM] sec. 3.2).

  Raises:
    ValueError: options that contradict each other.
  """
  check(net, objective, sampling, lowres)
  size = (image_size, image_size, 3)

  def init(key):
    params_key, dropout_key = jax.random.split(key)
    given = {}
    if net.num_classes is not None:
      given['label'] = jnp.zeros(1, jnp.int32)
    if lowres is not None:
      given['lowres'] = jnp.zeros((1, *size))
    if net.lowres_level:
      given['lowres_level'] = jnp.zeros(1)
    return net.init(
      {'params': params_key, 'dropout': dropout_key},
      jnp.zeros((1, *size)),
      jnp.zeros(1),
      train=False,
      **given,
    )['params']

  def bind(params, *, label, upsampled, level, dropout_key=None, examples=None):
    """-> the denoiser of the contract: (x_t, logsnr [B]) -> Prediction."""
    given = {}
    if net.num_classes is not None:
      given['label'] = label
    if upsampled is not None:
      given['lowres'] = upsampled
    if net.lowres_level:
      given['lowres_level'] = level
    train = dropout_key is not None
    if train:
      given['rngs'] = {'dropout': dropout_key}
      given['examples'] = examples

    def denoise(x_t, logsnr):
      noise = logsnr
      if net.condition_on == 't':
        noise = schedules.t_from_logsnr(schedule, logsnr)
      output = net.apply({'params': params}, x_t, noise, train=train, **given)
      var = None
      if net.learned_variance:
        output, var = jnp.split(output, 2, axis=-1)
      return predict(objective.prediction, output, x_t, logsnr=logsnr, var=var)

    return denoise

  def loss(params, batch, *, key, train):
    label_key, lowres_key, u_key, eps_key, dropout_key = jax.random.split(
      key, 5
    )
    x_0 = pixels.to_float(batch['image'])  # [B, H, W, 3]
    n = x_0.shape[0]
    # Of the whole batch where this is a part of it, see `draw_batch`.
    examples = batch.get('example', jnp.arange(n))
    u = batch.get('u')
    if u is None:
      u = schedules.stratified(u_key, n)  # [B]
    label = batch['label']
    if objective.label_dropout and train:
      dropped = jax.vmap(
        lambda key: jax.random.bernoulli(key, objective.label_dropout)
      )(example_keys(label_key, examples))
      label = jnp.where(dropped, net.num_classes, label)

    upsampled, level = None, None
    if lowres is not None:
      z_0 = lowres_conditioning.downsample(x_0, lowres)  # [B, h, w, 3]
      z, level = lowres_conditioning.augment_train(
        z_0,
        lowres,
        key=lowres_key,
        u=batch.get('u_lowres'),
        examples=examples,
      )
      upsampled = lowres_conditioning.upsample(z, image_size, lowres)
      if objective.residual_scale is not None:
        x_0 = (x_0 - upsampled) / objective.residual_scale

    eps = normals(example_keys(eps_key, examples), x_0.shape[1:])
    denoise = bind(
      params,
      label=label,
      upsampled=upsampled,
      level=level,
      dropout_key=dropout_key if train else None,
      examples=examples,
    )
    target = objective.target or objective.prediction
    if objective.levels == 'piecewise':
      logsnr = schedules.piecewise_levels(schedule, u)
    else:
      t = schedules.discrete_levels(schedule, u)
      logsnr = schedules.logsnr_at(schedule, t)
    if objective.loss == 'hybrid':
      value = losses.hybrid(
        denoise,
        x_0,
        eps,
        t=t,
        schedule=schedule,
        target=target,
        vb_weight=objective.vb_weight,
        rescale=objective.vb_rescale,
      )
    else:
      value = losses.simple(
        denoise,
        x_0,
        eps,
        logsnr=logsnr,
        target=target,
        norm=objective.norm,
        weight=objective.weighting,
      )
    return value, {'logsnr': logsnr}

  def sample(
    params, *, keys, label=None, lowres=None, level=None, stop_logsnr=None
  ):
    n = keys.shape[0]
    upsampled = None
    low, high = -1.0, 1.0
    if level is None:
      level = jnp.zeros(n)
    if lowres is not None:
      upsampled = lowres_conditioning.upsample(lowres, image_size, conditions)
      if objective.residual_scale is not None:
        low = (-1.0 - upsampled) / objective.residual_scale
        high = (1.0 - upsampled) / objective.residual_scale
    null = jnp.full(n, net.num_classes or 0, jnp.int32)
    given = dict(upsampled=upsampled, level=level)
    denoise = bind(params, label=null if label is None else label, **given)
    if sampling.guidance_weight:
      denoise = guidance.classifier_free(
        denoise,
        bind(params, label=null, **given),
        weight=sampling.guidance_weight,
        interval=sampling.guidance_interval,
      )
    if sampling.clip == 'static':
      denoise = guidance.clip_x_0(denoise, low=low, high=high)
    elif sampling.clip == 'dynamic':
      denoise = guidance.dynamic_threshold(
        denoise, percentile=sampling.clip_percentile
      )

    def normal(use):
      return jax.vmap(
        lambda key: jax.random.normal(jax.random.fold_in(key, use), size)
      )

    step_keys = jax.vmap(lambda key: jax.random.fold_in(key, STEP_NOISE))(keys)
    grid = sampling.grid
    if stop_logsnr is not None:
      grid = schedules.truncate(grid, logsnr=stop_logsnr)
    x = sampling.run(
      denoise,
      normal(X_T)(keys),
      logsnrs=grid,
      noise=lambda j: normal(j)(step_keys),
    )
    if objective.residual_scale is not None:
      x = upsampled + objective.residual_scale * x
    return x

  conditions = lowres
  return Method(init, loss, sample)


def draw_batch(key, n):
  """-> {'u': [n], 'u_lowres': [n]}, drawn once for a whole batch.

  Noise levels and augmentation levels in [0, 1), each stratified over the
  whole: in the batch they let its parts share one stratification.
  """
  u_key, lowres_key = jax.random.split(key)
  return {
    'u': schedules.stratified(u_key, n),
    'u_lowres': schedules.stratified(lowres_key, n),
  }


def check(net, objective, sampling, lowres):
  """Refuses options that contradict each other, before anything is traced."""
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
      'method.weighting is defined on squared errors; use method.norm=2, or '
      "method.weighting='none'."
    )
  if not 0.0 <= objective.label_dropout <= 1.0:
    raise ValueError(
      f'method.label_dropout is {objective.label_dropout}; it is a share of '
      'the examples, between 0 and 1.'
    )
  if objective.loss == 'hybrid':
    if not net.learned_variance or objective.levels != 'discrete':
      raise ValueError(
        "method.loss 'hybrid' learns variances of a discrete chain; set "
        "model.learned_variance=True and method.levels='discrete', or use "
        "method.loss='simple'."
      )
    if objective.norm != 2 or objective.weighting is not None:
      raise ValueError(
        "method.loss 'hybrid' is [IDDPM] eq. 16, unweighted and squared; set "
        "method.norm=2 and method.weighting='none'."
      )
  elif net.learned_variance:
    raise ValueError(
      "model.learned_variance=True needs method.loss='hybrid': the simple loss "
      'gives the variance head no gradient.'
    )
  if objective.label_dropout and not net.null_class:
    raise ValueError(
      f'method.label_dropout is {objective.label_dropout} but the network has '
      'no null class; set model.null_class=True or method.label_dropout=0.0.'
    )
  if sampling.guidance_weight and not objective.label_dropout:
    raise ValueError(
      f'sampler.guidance_weight is {sampling.guidance_weight} but the network '
      'has learned no null class to be guided away from; train with '
      'model.null_class=True and method.label_dropout=0.1, or use weight 0.'
    )
  interval = sampling.guidance_interval
  if interval is not None and not interval[0] < interval[1]:
    raise ValueError(
      f'sampler.guidance_interval is {interval}; it is (low, high) log-SNR.'
    )
  if not 0.0 < sampling.clip_percentile <= 100.0:
    raise ValueError(
      f'sampler.clip_percentile is {sampling.clip_percentile}; use a number '
      'above 0 and up to 100.'
    )
  if sampling.clip not in ('none', 'static', 'dynamic'):
    raise ValueError(
      f"sampler.clip is {sampling.clip!r}; use 'none', 'static' or 'dynamic'."
    )
  if objective.residual_scale is not None:
    if not objective.residual_scale > 0.0:
      raise ValueError(
        f'method.residual_scale is {objective.residual_scale}; it is a '
        'standard deviation, above 0, or None for no residual target.'
      )
    if objective.loss == 'hybrid':
      raise ValueError(
        "method.loss 'hybrid' scores x_0 as grey levels, which a residual is "
        'not; set method.residual_scale=None.'
      )
    if lowres is None:
      raise ValueError(
        'method.residual_scale is set but the stage has no low-res input to '
        'take a residual from; set it to None for a base model.'
      )
    if sampling.clip == 'dynamic':
      raise ValueError(
        "sampler.clip 'dynamic' rescales x_0 around zero, which has no "
        "meaning for a residual target; use 'static'."
      )
  if net.lowres_level != (lowres is not None and lowres.augment == 'noise'):
    raise ValueError(
      f'model.lowres_level is {net.lowres_level}, but the level of '
      'augmentation is fed to the network exactly when lowres.augment is '
      "'noise'; make the two agree."
    )
