"""Trains a network that restores degraded low-res images of many sizes.

  u    = upsample(z),   z a degraded low-res image of any size up to H
  y    = f(u, levels)
  loss = mean |y - x_0|^p + w mean |D y - D x_0|^p + v mean P(y - x_0)

The network is told what degraded z: how far it is enlarged, its noise, its JPEG
file and its blur. It may thus leave alone what is clean.

D is the difference between neighbours on either side of a border between the
squares of pixels that the network works on. Nothing else in the loss looks
across these borders, where a network of squares leaves a weave on flat areas.
P is that weave itself: what an error repeats in all squares of a neighbourhood,
squared, and counted where the error is small enough that it would be seen.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.methods import canvas_drawing, degraded_inputs, lowres_conditioning
from cdm.methods.base import Method
from cdm.methods.canvas_drawing import CanvasDrawing
from cdm.ops import pixels

SQUARES = 4  # along a side of a neighbourhood
SEEN = 2.0 / 255  # one grey level, in [-1, 1]


class DegradedRegressionOptions(NamedTuple):
  """How the network is trained; the `method` section of a config.

  Attributes:
    norm: 1 or 2, the p of the loss.
    border_weight: w, the weight of differences across borders of squares.
    weave_weight: v, the weight of the pattern that squares have in common.
  """

  norm: int = 1
  border_weight: float = 0.1
  weave_weight: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class DegradedRegression:
  """A network and how it is trained.

  Attributes:
    net: a `models.unshuffled_resnet.UnshuffledResnet`.
    options: its `DegradedRegressionOptions`.
    image_size: H = W of x_0.
    lowres: how a low-res image is made where the data give none.
    num_levels: K, the numbers that tell what degraded a low-res image. The
      first is log2 of the factor of enlarging; all others are 0 of a clean one.
  """

  net: Any
  options: DegradedRegressionOptions
  image_size: int
  lowres: lowres_conditioning.Lowres
  num_levels: int

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of the network, see `Method.init`."""
    x = jnp.zeros((1, self.image_size, self.image_size, 3))
    levels = jnp.zeros((1, self.num_levels))
    return self.net.init(key, x, levels, train=False)['params']

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the error of the restored images, see `Method.loss`.

    Args:
      params: parameters of the network.
      batch: see `Method.loss` and `degraded_inputs.of_batch`.
      key: of no use, as nothing is drawn.
      train: True for training; see the network.

    Returns:
      ([B], {'l1': [B]}); 'l1' is the mean absolute error in [-1, 1].
    """
    del key
    x_0 = pixels.to_float(batch['image'])  # [B, H, W, 3]
    enlarged, levels = degraded_inputs.of_batch(
      batch, x_0, self.lowres, self.num_levels
    )
    y = self.net.apply({'params': params}, enlarged, levels, train=train).image
    error = y - x_0
    borders = self._across_borders(error)
    loss = self._power(error).mean(axis=(1, 2, 3))
    loss = loss + self.options.border_weight * self._power(borders).mean(axis=1)
    if self.options.weave_weight:
      found = weave(error, self.net.patch_size)
      loss = loss + self.options.weave_weight * found
    return loss, {'l1': jnp.abs(error).mean(axis=(1, 2, 3))}

  def sample(
    self,
    params: dict,
    *,
    keys: jax.Array,
    label: None = None,
    lowres: jax.Array | None = None,
    level: jax.Array | None = None,
    stop_logsnr: float | None = None,
    tuned: None = None,
  ) -> jax.Array:
    """Enlarges clean low-res images; nothing is drawn.

    Args:
      params: parameters of the network.
      keys, label, level, stop_logsnr, tuned: not used.
      lowres: [B, h, w, 3], clean.

    Returns:
      float32 [B, H, W, 3] in [-1, 1].
    """
    del keys, label, level, stop_logsnr, tuned
    assert lowres is not None, 'a regression has a low-res input'
    enlarged, levels = degraded_inputs.of_clean(
      lowres, self.image_size, self.lowres, self.num_levels
    )
    y = self.net.apply({'params': params}, enlarged, levels, train=False).image
    return jnp.clip(y, -1.0, 1.0)

  def canvas(self) -> CanvasDrawing:
    """Returns how canvases are restored, see `Method.canvas`."""

    def predict(params, views):
      y = self.net.apply(
        {'params': params}, views.upsampled, views.damage, train=False
      ).image
      return jnp.clip(y, -1.0, 1.0)

    return canvas_drawing.of_prediction(predict, self.any_factor)

  @property
  def any_factor(self) -> canvas_drawing.AnyFactor:
    """What the method states of windows, see `canvas_drawing`."""
    return canvas_drawing.AnyFactor(
      unit=self.net.patch_size,
      reach=self.net.margin,
      most=self.image_size / self.lowres.size,
    )

  def _power(self, error):
    return jnp.abs(error) if self.options.norm == 1 else jnp.square(error)

  def _across_borders(self, error):
    """Returns [B, N], differences of the errors beside borders of squares."""
    p, b = self.net.patch_size, len(error)
    down = error[:, p::p] - error[:, p - 1 : -1 : p]
    right = error[:, :, p::p] - error[:, :, p - 1 : -1 : p]
    return jnp.concatenate([down.reshape(b, -1), right.reshape(b, -1)], axis=1)


def weave(error: jax.Array, patch_size: int) -> jax.Array:
  """Returns the squared pattern that the squares of an error have in common.

  A pattern is what the squares of a neighbourhood of `SQUARES` x `SQUARES` have
  in the mean, less the mean of each square. It counts as far as the error there
  is below `SEEN`: noise and texture hide it.

  Args:
    error: [B, H, W, C] in [-1, 1]; what does not fill a neighbourhood at the
      lower and right border is left out.
    patch_size: p, the side of a square, pixels.

  Returns:
    [B].
  """
  p = patch_size
  n = min(SQUARES, error.shape[1] // p, error.shape[2] // p)
  rows, columns = (side // (n * p) for side in error.shape[1:3])
  x = error[:, : rows * n * p, : columns * n * p]
  x = x.reshape(len(x), rows, n, p, columns, n, p, -1)
  x = x - x.mean(axis=(3, 6), keepdims=True)
  pattern = jnp.square(x.mean(axis=(2, 5))).mean(axis=(2, 4))
  power = jax.lax.stop_gradient(jnp.square(x).mean(axis=(2, 3, 5, 6)))
  return (pattern * SEEN**2 / (power + SEEN**2)).mean(axis=(1, 2, 3))


def degraded_regression(
  net: Any,
  options: DegradedRegressionOptions,
  *,
  image_size: int,
  lowres: lowres_conditioning.Lowres | None,
  num_levels: int,
) -> Method:
  """Returns the `Method` of a `DegradedRegression` with these fields.

  Raises:
    ValueError: an option is unknown, there is no low-res input, or the network
      cannot take images of that size.
  """
  degraded_inputs.check(lowres, 'regression')
  assert lowres is not None
  if options.norm not in (1, 2):
    raise ValueError(f'method.norm is {options.norm}; use 1 or 2.')
  for name in ('border_weight', 'weave_weight'):
    value = getattr(options, name)
    if not 0.0 <= value < float('inf'):
      raise ValueError(f'method.{name} is {value}; it must be at least 0.')
  squares = image_size / net.patch_size
  if squares != round(squares) or squares < 2:
    raise ValueError(
      f'model.patch_size is {net.patch_size}, but images of {image_size} '
      'pixels are not two or more whole squares of that side.'
    )
  bound = DegradedRegression(net, options, image_size, lowres, num_levels)
  return Method(bound.init, bound.loss, bound.sample, canvas=bound.canvas())
