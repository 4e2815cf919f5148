"""Trains and samples a diffusion model: a base or a super-resolution stage.

  base:              x_t = alpha_t x_0 + sigma_t eps              [DDPM] eq. 4
  super-resolution:  the same, given u = upsample(augment(z_0))   [CDM] alg. 1
  residual target:   x_0 is replaced by (x_0 - u) / residual_scale

Here z_0 is x_0 shrunk to the previous stage's size. With a residual target the
network draws only the difference between x_0 and the upsampled low-res image.
The scale brings that difference near unit variance, which the schedule assumes
of its data.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from cdm.diffusion import guidance, process, schedules
from cdm.diffusion.parameterization import Denoiser, network_input, predict
from cdm.methods import (
  canvas_drawing,
  diffusion_score,
  guided_denoiser,
  lowres_conditioning,
  lowres_projection,
)
from cdm.methods.base import Method
from cdm.methods.corruption import Corruption, draw_batch
from cdm.methods.diffusion_options import (
  Objective,
  Sampling,
  Start,
  Tuned,
  check,
)
from cdm.ops import pixels
from cdm.ops.keys import example_keys, normals

# The uses of an image's key. Their numbers are folded into the key, so that no
# two uses share their randomness.
X_T, STEP_NOISE = 0, 1


@dataclasses.dataclass(frozen=True, eq=False)
class Diffusion:
  """A network, its schedule, and how the two are trained and sampled.

  Attributes:
    net: a `models.unet.UNet`.
    schedule: the noise schedule of training.
    objective: how the network is trained.
    sampling: how images are drawn.
    image_size: H = W of x_0.
    lowres: how the low-res input of a super-resolution stage is made; None for
      a base model.

  Raises:
    ValueError: options contradict each other.
  """

  net: Any
  schedule: schedules.Schedule
  objective: Objective
  sampling: Sampling
  image_size: int
  lowres: lowres_conditioning.Lowres | None = None

  def __post_init__(self):
    check(
      self.net,
      self.objective,
      self.sampling,
      self.lowres,
      self.schedule,
      image_size=self.image_size,
    )

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of the network, see `Method.init`.

    Those of a learned weight of the loss are among them; no denoiser reads
    them.
    """
    params_key, dropout_key = jax.random.split(key)
    x = jnp.zeros((1, *self._shape))
    conditions = self._conditions(
      label=jnp.zeros(1, jnp.int32),
      upsampled=None if self.lowres is None else x,
      level=jnp.zeros(1),
    )
    keys = {'params': params_key, 'dropout': dropout_key}
    variables = self.net.init(keys, x, jnp.zeros(1), train=False, **conditions)
    own = diffusion_score.init_uncertainty(self.objective)
    return {**variables['params'], **own}

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the loss at one noise level per example, [DDPM], [CDM] alg. 1.

    Args:
      params: parameters of the network.
      batch: see `Method.loss`. A part of a larger batch also holds its part of
        the values that `draw_batch` drew for the whole batch, which are then
        not drawn here, and `example` [B], the index of each image within the
        whole batch.
      key: one key for the whole batch.
      train: True turns on label dropout and dropout in the network.

    Returns:
      ([B], {'logsnr': [B]}), with a learned weight what
      `diffusion_score.with_uncertainty` returns.
    """
    given = self.corruption(params, batch, key=key, train=train)
    denoise = self.denoiser(params, **given.conditions, **given.dropout)
    value, scalars = diffusion_score.score(
      self.objective,
      self.schedule,
      denoise,
      given.x_0,
      given.eps,
      u=given.u,
    )
    return diffusion_score.with_uncertainty(
      self.objective, params, value, scalars, train=train
    )

  def corruption(
    self, params: dict, batch: dict[str, jax.Array], *, key: Any, train: bool
  ) -> Corruption:
    """Draws what a loss needs beside parameters, see `loss`."""
    label_key, lowres_key, u_key, eps_key, dropout_key = jax.random.split(
      key, 5
    )
    x_0 = pixels.of_batch(batch['image'])  # [B, H, W, C]
    n = x_0.shape[0]
    examples = batch.get('example', jnp.arange(n))
    u = batch.get('u')
    if u is None:
      u = schedules.stratified(u_key, n)  # [B]
    label = batch['label']
    if train:
      label = self._drop_labels(label, key=label_key, examples=examples)
    upsampled, level = self.trained_condition(
      params, batch, x_0, key=lowres_key, examples=examples
    )
    x_0 = self.residual(x_0, upsampled)
    eps = normals(example_keys(eps_key, examples), x_0.shape[1:])
    conditions = dict(label=label, upsampled=upsampled, level=level)
    dropout = dict(
      dropout_key=dropout_key if train else None, examples=examples
    )
    return Corruption(x_0, eps, u, conditions, dropout)

  def sample(
    self,
    params: dict | guided_denoiser.Guided,
    *,
    keys: jax.Array,
    label: jax.Array | None = None,
    lowres: jax.Array | None = None,
    level: jax.Array | None = None,
    stop_logsnr: float | None = None,
    tuned: Tuned | None = None,
    start: Start | None = None,
  ) -> jax.Array:
    """Draws images, [DDPM] alg. 2 with the sampler of `sampling`.

    Args:
      params: parameters of the network, in a `guided_denoiser.Guided` where the
        sampler names a guide.
      keys: [B], one per image.
      label: int32 [B]; None means the null class, which a network of classes
        must have then.
      lowres: [B, h, w, 3], already augmented to `level`.
      level: [B] augmentation level; None means 0.
      stop_logsnr: the log-SNR at which sampling ends instead of at x_0, or None
        (truncated sampling, [CDM] sec. 3.2).
      tuned: what `tune` returned, in the place of the grid and the guidance of
        `sampling`, and of `stop_logsnr`.
      start: an image that sampling begins at, or None to begin at noise.

    Returns:
      float32 [B, H, W, 3] in [-1, 1], except with `clip` 'none', with
      `project_lowres` or where sampling ends before x_0.

    Raises:
      ValueError: a network of classes without a null class gets no label.
    """
    guided_denoiser.check_label(self.net, label)
    n = keys.shape[0]
    upsampled, level = self.drawn_condition(params, lowres, level, n)
    logsnrs = self.sampling.levels(
      stop_logsnr, None if start is None else start.logsnr
    )
    begins_at = logsnrs[0]
    if tuned is not None:
      logsnrs, begins_at = tuned.steps, tuned.start_logsnr
    conditions = guided_denoiser.Conditions(label, upsampled, level)
    denoise = guided_denoiser.drawing(
      self, params, conditions, lowres=lowres, tuned=tuned
    )
    step_keys = _fold_in(keys, STEP_NOISE)
    x_T = normals(_fold_in(keys, X_T), self._shape)
    if start is not None:
      assert begins_at is not None  # `tune` was told of the start
      x_T = process.q_sample(
        self.residual(start.image, upsampled),
        x_T,
        logsnr=jnp.full(n, begins_at, x_T.dtype),
      )
    x = self.sampling.run(
      denoise,
      x_T,
      logsnrs=logsnrs,
      noise=lambda j: normals(_fold_in(step_keys, j), self._shape),
    )
    return self.image_of(x, upsampled)

  def drawing_denoiser(
    self, params: dict, conditions: dict[str, jax.Array | None], n: int
  ) -> Denoiser:
    """Returns the denoiser of n images of `sample`, but for a projection."""
    level = conditions['level']
    known = guided_denoiser.Conditions(
      conditions['label'],
      conditions['upsampled'],
      jnp.zeros(n) if level is None else level,
    )
    denoise = guided_denoiser.guided(self, params, known, tuned=None, weak=None)
    return self.clipped(denoise, conditions['upsampled'])

  def tune(
    self, stop_logsnr: float | None = None, start_logsnr: float | None = None
  ) -> Tuned:
    """Returns the settings of the sampler as arguments of a program.

    Args:
      stop_logsnr: see `sample`.
      start_logsnr: the log-SNR of a `Start`, or None without one.
    """
    levels = self.sampling.levels(stop_logsnr, start_logsnr)
    return Tuned.of(self.sampling, levels, begins=start_logsnr is not None)

  def denoiser(
    self,
    params: dict,
    *,
    label: jax.Array | None,
    upsampled: jax.Array | None,
    level: jax.Array | None,
    dropout_key: jax.Array | None = None,
    examples: jax.Array | None = None,
  ) -> Denoiser:
    """Binds the network and its conditions into a denoiser.

    A loss or a sampler then needs only x_t and the noise level.

    Args:
      params: parameters of the network.
      label: int32 [B].
      upsampled: [B, H, W, 3], u of [CDM] alg. 1; None for a base model.
      level: [B], the augmentation level of `upsampled`.
      dropout_key: one key for the whole batch; None turns dropout off.
      examples: int [B], index of each image within the whole batch.

    Returns:
      `(x_t [B, H, W, 3], logsnr [B]) -> Prediction`.
    """
    kwargs = self._conditions(label=label, upsampled=upsampled, level=level)
    train = dropout_key is not None
    if train:
      kwargs |= {'rngs': {'dropout': dropout_key}, 'examples': examples}

    leaves = jax.tree.leaves(params, is_leaf=meta.is_axis_metadata)
    is_boxed = any(map(meta.is_axis_metadata, leaves))

    def denoise(x_t, logsnr):
      bound = params
      if is_boxed:
        # The network opens boxes of split parameters layer by layer. Without
        # the barrier, the compiler would take that out of a sampler's loop and
        # hold the whole network at once.
        bound, x_t = jax.lax.optimization_barrier((params, x_t))
      noise = logsnr
      if self.net.condition_on == 't':
        noise = schedules.t_from_logsnr(self.schedule, logsnr)
      kind = self.objective.prediction
      x = network_input(kind, x_t, logsnr=logsnr)
      output = self.net.apply(
        {'params': bound}, x, noise, train=train, **kwargs
      )
      var = None
      if self.net.learned_variance:
        output, var = jnp.split(output, 2, axis=-1)
      return predict(kind, output, x_t, logsnr=logsnr, var=var)

    return denoise

  @property
  def canvas(self) -> canvas_drawing.CanvasDrawing | None:
    """How canvases are drawn, see `Method.canvas`."""
    return canvas_drawing.of_diffusion(self)

  @property
  def _shape(self):
    channels = getattr(self.net, 'out_channels', 3)
    return (self.image_size, self.image_size, channels)

  def _conditions(self, *, label, upsampled, level) -> dict:
    """Returns the keyword arguments of the network that hold its conditions."""
    conditions = {}
    if self.net.num_classes is not None:
      conditions['label'] = label
    if upsampled is not None:
      conditions['lowres'] = upsampled
    if self.net.lowres_level:
      conditions['lowres_level'] = level
    return conditions

  def _drop_labels(self, label, *, key, examples):
    """Returns the labels, a share of them replaced by the null class."""
    share = self.objective.label_dropout
    if not share:
      return label
    dropped = jax.vmap(lambda key: jax.random.bernoulli(key, share))(
      example_keys(key, examples)
    )
    return jnp.where(dropped, self.net.num_classes, label)

  def trained_condition(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    x_0: jax.Array,
    *,
    key: jax.Array,
    examples: jax.Array,
  ) -> tuple[jax.Array | None, jax.Array | None]:
    """See `lowres_conditioning.condition_train`; (None, None) without one."""
    del params
    if self.lowres is None:
      return None, None
    return lowres_conditioning.condition_train(
      x_0, self.lowres, key=key, u=batch.get('u_lowres'), examples=examples
    )

  def drawn_condition(
    self,
    params: Any,
    lowres: jax.Array | None,
    level: jax.Array | None,
    n: int,
  ) -> tuple[jax.Array | None, jax.Array]:
    """Returns (upsampled, level) of n images that are drawn, see `sample`."""
    del params
    upsampled = None
    if lowres is not None:
      assert self.lowres is not None, 'a base model has no low-res input'
      upsampled = lowres_conditioning.upsample(
        lowres, self.image_size, self.lowres
      )
    return upsampled, jnp.zeros(n) if level is None else level

  def image_of(self, x: Any, upsampled: Any) -> Any:
    """Returns the image of what a network has drawn, see `residual`."""
    if self.objective.residual_scale is None:
      return x
    assert upsampled is not None  # `check` refuses it without a low-res input
    return upsampled + self.objective.residual_scale * x

  def residual(self, x_0: Any, upsampled: Any) -> jax.Array:
    """Turns an image into the network's target: itself, or its residual."""
    if self.objective.residual_scale is None:
      return x_0
    return (x_0 - upsampled) / self.objective.residual_scale

  def clipped(self, denoise, upsampled):
    """Returns a denoiser whose predicted image is clipped as `sampling` says.

    With a residual target the bounds are those of the residual.
    """
    if self.sampling.clip in ('static', 'static_x_0'):
      low, high = (self.residual(x, upsampled) for x in (-1.0, 1.0))
      keep_eps = self.sampling.clip == 'static_x_0'
      return guidance.clip_x_0(denoise, low=low, high=high, keep_eps=keep_eps)
    if self.sampling.clip == 'dynamic':
      return guidance.dynamic_threshold(
        denoise, percentile=self.sampling.clip_percentile
      )
    return denoise

  def projected(self, denoise, lowres, upsampled, level):
    """Returns a denoiser that keeps to the low-res image, if it is to."""
    if not self.sampling.project_lowres:
      return denoise
    assert self.lowres is not None  # `check` refuses a base model
    target = {}
    if self.objective.residual_scale is not None:
      target = dict(center=upsampled, scale=self.objective.residual_scale)
    return lowres_projection.project(
      denoise,
      lowres,
      downsample=self.lowres.downsample,
      upsample=self.lowres.upsample,
      where=level == 0,
      **target,
    )


def diffusion(
  net: Any,
  schedule: schedules.Schedule,
  objective: Objective,
  sampling: Sampling,
  *,
  image_size: int,
  lowres: lowres_conditioning.Lowres | None = None,
) -> Method:
  """Returns the `Method` of a `Diffusion` with these fields."""
  return method_of(
    Diffusion(net, schedule, objective, sampling, image_size, lowres)
  )


def method_of(bound: Diffusion) -> Method:
  """Returns the `Method` of a `Diffusion`."""
  return Method(
    bound.init,
    bound.loss,
    bound.sample,
    tune=bound.tune,
    draw=draw_batch,
    guiding=functools.partial(guided_denoiser.guiding, bound),
    canvas=bound.canvas,
  )


def _fold_in(keys, use):
  """Returns [B] keys for one use of the images' keys."""
  return jax.vmap(lambda key: jax.random.fold_in(key, use))(keys)
