"""Trains a network that maps a low-res image to the original in one step.

  loss = mean |f(u) - x_0|^p,   u = upsample(z_0)     [SR3] sec. 4, "Regression"

The network is that of the diffusion model without its noise level, or one that
enlarges the low-res image z_0 itself, as that of [PRSR]. It learns
the mean (p = 2) or the median (p = 1) of all images that the low-res image may
come from: a blurred image. The checkpoint of peak PSNR is the one to use, so
`eval.best` is PSNR by default.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.methods import canvas_drawing, lowres_conditioning
from cdm.methods.base import Method
from cdm.methods.canvas_drawing import CanvasDrawing
from cdm.ops import pixels


class RegressionOptions(NamedTuple):
  """How a regression is trained; the `method` section of a config.

  Attributes:
    norm: 1 or 2, the p of the loss.
    residual_scale: None predicts the image. A number predicts the residual to
      the upsampled low-res image, divided by it.
  """

  norm: int = 2
  residual_scale: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Regression:
  """A network and how it is trained.

  Attributes:
    net: a `models.unet.UNet` that is conditioned on no noise level, or a
      `models.enlarging_resnet.EnlargingResnet`.
    options: its `RegressionOptions`.
    image_size: H = W of x_0.
    lowres: how its low-res input is made.
    enlarges: True if the network takes the low-res image, not the upsampled.
  """

  net: Any
  options: RegressionOptions
  image_size: int
  lowres: lowres_conditioning.Lowres
  enlarges: bool = False

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of the network, see `Method.init`."""
    params_key, dropout_key = jax.random.split(key)
    size = self.lowres.size if self.enlarges else self.image_size
    x = jnp.zeros((1, size, size, getattr(self.net, 'out_channels', 3)))
    keys = {'params': params_key, 'dropout': dropout_key}
    label = self._label(jnp.zeros(1, jnp.int32))
    return self.net.init(keys, x, None, label=label, train=False)['params']

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the error of the predicted images, see `Method.loss`.

    Returns:
      ([B] float32, {}), mean over H, W, C.
    """
    lowres_key, dropout_key = jax.random.split(key)
    x_0 = pixels.of_batch(batch['image'])  # [B, H, W, C]
    examples = batch.get('example', jnp.arange(x_0.shape[0]))
    z_0 = lowres_conditioning.downsample(x_0, self.lowres)  # [B, h, w, 3]
    z, _ = lowres_conditioning.augment_train(
      z_0,
      self.lowres,
      key=lowres_key,
      u=batch.get('u_lowres'),
      examples=examples,
    )
    upsampled = self._upsample(z)
    dropout = dict(rngs={'dropout': dropout_key}, examples=examples)
    predicted = self.net.apply(
      {'params': params},
      z if self.enlarges else upsampled,
      None,
      label=self._label(batch['label']),
      train=train,
      **(dropout if train else {}),
    )
    scale = self.options.residual_scale
    target = x_0 if scale is None else (x_0 - upsampled) / scale
    error = predicted - target
    value = jnp.abs(error) if self.options.norm == 1 else jnp.square(error)
    return value.mean(axis=(1, 2, 3)), {}

  def sample(
    self,
    params: dict,
    *,
    keys: jax.Array,
    label: jax.Array | None = None,
    lowres: jax.Array | None = None,
    level: jax.Array | None = None,
    stop_logsnr: float | None = None,
    tuned: None = None,
  ) -> jax.Array:
    """Predicts images from low-res images; nothing is drawn.

    Args:
      params: parameters of the network.
      keys: [B], not used, as nothing is drawn.
      label: int32 [B]; None means the null class, if the network has one.
      lowres: [B, h, w, 3].
      level: not used, as the low-res image has no noise.
      stop_logsnr, tuned: not used, as nothing is sampled.

    Returns:
      float32 [B, H, W, 3] in [-1, 1].
    """
    del keys, level, stop_logsnr, tuned
    assert lowres is not None, 'a regression has a low-res input'
    return self._predicted(params, lowres, self._upsample(lowres), label)

  def canvas(self) -> CanvasDrawing:
    """Returns how canvases are predicted, see `Method.canvas`."""

    def predict(params, views):
      return self._predicted(params, views.lowres, views.upsampled, views.label)

    return canvas_drawing.of_prediction(predict)

  def _predicted(self, params, lowres, upsampled, label):
    """Returns the images [B, H, W, 3] of low-res images."""
    if label is None:
      label = jnp.full(lowres.shape[0], self.net.num_classes or 0, jnp.int32)
    x = self.net.apply(
      {'params': params},
      lowres if self.enlarges else upsampled,
      None,
      label=self._label(label),
      train=False,
    )
    if self.options.residual_scale is not None:
      x = upsampled + self.options.residual_scale * x
    return jnp.clip(x, -1.0, 1.0)

  def _upsample(self, z):
    return lowres_conditioning.upsample(z, self.image_size, self.lowres)

  def _label(self, label):
    return None if self.net.num_classes is None else label


def regression(
  net: Any,
  options: RegressionOptions,
  *,
  image_size: int,
  lowres: lowres_conditioning.Lowres | None,
  enlarges: bool = False,
) -> Method:
  """Returns the `Method` of a `Regression` with these fields.

  Raises:
    ValueError: see `check`.
  """
  checked = check(options, lowres)
  bound = Regression(net, options, image_size, checked, enlarges)
  return Method(
    bound.init,
    bound.loss,
    bound.sample,
    draw=lowres_conditioning.draw_batch,
    canvas=bound.canvas(),
  )


def check(
  options: RegressionOptions, lowres: lowres_conditioning.Lowres | None
) -> lowres_conditioning.Lowres:
  """Returns how the low-res input is made.

  Raises:
    ValueError: an option is unknown, or there is no low-res input without
      noise.
  """
  if lowres is None:
    raise ValueError(
      "lowres is None, but method.kind='regression' predicts an image from its "
      'low-res image; define the section lowres.'
    )
  if lowres.augment == 'noise':
    raise ValueError(
      "lowres.augment is 'noise', whose level a regression is not told; use "
      "'none' or 'blur'."
    )
  if options.norm not in (1, 2):
    raise ValueError(f'method.norm is {options.norm}; use 1 or 2.')
  scale = options.residual_scale
  if scale is not None and not scale > 0:
    raise ValueError(f'method.residual_scale is {scale}; it must be above 0.')
  return lowres
