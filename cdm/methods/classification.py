"""Image classification, for the classification accuracy score (CAS).

  loss = - sum_c q_c log softmax(logits)_c
  q = (1 - smoothing) [c = label] + smoothing / K

The network normalises by the batch, and only its parameters are trained and
stored. The statistics that it is tested with are computed after training, over
batches of the training data (differs: not a running average over the steps,
which lags behind the parameters; [Wu and Johnson 2021] sec. 3, "PreciseBN"):

  mean = E m_b,   var = E (v_b + m_b^2) - mean^2    over batches b
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.methods.base import Method
from cdm.ops import augmentation, resize


class Recipe(NamedTuple):
  """How images become network inputs; the `method` section of a config.

  Attributes:
    size: side of the network's input in pixels.
    crop_scale: (low, high), area of a random crop as a share of the image's.
    crop_ratio: (low, high), width / height of a random crop.
    flip: True mirrors each training image with probability 1/2.
    label_smoothing: share of the target that is spread evenly over all classes.
    statistics_batches: number of training batches over which the statistics of
      batch normalisation are computed.
  """

  size: int
  crop_scale: tuple[float, float] = (0.08, 1.0)
  crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: bool = True
  label_smoothing: float = 0.0
  statistics_batches: int = 200


class Tester(NamedTuple):
  """The two functions that test a trained classifier.

  Attributes:
    moments: `(params, batch, *, key) -> moments`, the mean and mean square of
      each normalisation over the batch, as nested dicts that end in
      `{'mean', 'square'}`. They may be averaged over batches, and
      `statistics_of` turns the average into statistics.
    logits: `(params, statistics, image uint8 [B, H, W, 3]) -> [B, K]` of the
      centre crop of each image.
  """

  moments: Callable[..., dict]
  logits: Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """A network and the recipe by which it is trained and tested.

  Attributes:
    net: a `models.resnet.ResNet50` whose statistics are those of its current
      batch (momentum 0).
    recipe: its `Recipe`.
    normalise: `(levels 0..255) -> input of the network`.
  """

  net: Any
  recipe: Recipe
  normalise: Callable[[jax.Array], jax.Array]

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of the network, see `Method.init`."""
    x = jnp.zeros((1, self.recipe.size, self.recipe.size, 3))
    return self.net.init(key, x, train=False)['params']

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the cross-entropy of random crops, see `Method.loss`.

    Returns:
      ([B], {'top1': [B]}), with top1 = 1 where a crop is classified correctly.

    Raises:
      ValueError: `train` is False; a classifier is tested by its `Tester`.
    """
    if not train:
      raise ValueError('A classifier is tested by its `Tester`.')
    logits, _ = self._apply(params, batch, key)
    value = cross_entropy(
      logits, batch['label'], smoothing=self.recipe.label_smoothing
    )
    right = jnp.argmax(logits, axis=1) == batch['label']
    return value, {'top1': right.astype(jnp.float32)}

  def moments(
    self, params: dict, batch: dict[str, jax.Array], *, key: jax.Array
  ) -> dict:
    """See `Tester.moments`."""
    return _squared(self._apply(params, batch, key)[1])

  def logits(
    self, params: dict, statistics: dict, image: jax.Array
  ) -> jax.Array:
    """See `Tester.logits`."""
    x = resize.center_crop(image, self.recipe.size)
    variables = {'params': params, 'batch_stats': statistics}
    return self.net.apply(variables, self.normalise(x), train=False).logits

  def _apply(self, params, batch, key):
    """Returns (logits [B, K], batch-normalisation statistics of the batch)."""
    x = batch['image'].astype(jnp.float32)
    x = augmentation.random_crop_and_flip(
      x,
      key=key,
      examples=batch.get('example', jnp.arange(x.shape[0])),
      size=self.recipe.size,
      scale=self.recipe.crop_scale,
      ratio=self.recipe.crop_ratio,
      flip=self.recipe.flip,
    )
    output, new = self.net.apply(
      {'params': params}, self.normalise(x), train=True, mutable='batch_stats'
    )
    return output.logits, new['batch_stats']


def classifier(
  net: Any,
  recipe: Recipe,
  *,
  image_size: int,
  normalise: Callable[[jax.Array], jax.Array],
) -> tuple[Method, Tester]:
  """Binds a network and a recipe into a method and its tester.

  Args:
    net, recipe, normalise: see `Classifier`.
    image_size: H = W of the images.

  Returns:
    (Method without `sample`, Tester).

  Raises:
    ValueError: the recipe has a value out of range for images of that size.
  """
  check(recipe, image_size)
  bound = Classifier(net, recipe, normalise)
  method = Method(bound.init, bound.loss, sample=None)
  return method, Tester(bound.moments, bound.logits)


def cross_entropy(
  logits: jax.Array, label: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
  """logits: [B, K], label: int [B] -> [B], in nats; [Szegedy et al. 2016]."""
  log_p = jax.nn.log_softmax(logits)
  of_label = jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]
  return -(1.0 - smoothing) * of_label - smoothing * log_p.mean(axis=1)


def _squared(statistics):
  """Turns means and variances into moments that may be averaged.

  A variance becomes a mean square, because variances of batches with different
  means do not average to the variance of all batches.
  """
  if 'mean' in statistics:
    mean = statistics['mean']
    return {'mean': mean, 'square': statistics['var'] + mean**2}
  return {name: _squared(part) for name, part in statistics.items()}


def statistics_of(averaged: dict) -> dict:
  """Turns averaged moments into statistics for `Tester.logits`.

  Args:
    averaged: results of `Tester.moments`, averaged over batches.

  Returns:
    Nested dicts that end in `{'mean', 'var'}`.
  """
  if 'square' in averaged:
    mean = averaged['mean']
    return {'mean': mean, 'var': averaged['square'] - mean**2}
  return {name: statistics_of(part) for name, part in averaged.items()}


def check(recipe: Recipe, image_size: int) -> None:
  """Raises ValueError, naming the key, if a value of a recipe is invalid."""
  if not 0 < recipe.size <= image_size:
    raise ValueError(
      f'method.size is {recipe.size} but images have {image_size} pixels '
      '(pipeline.image_size); it is the side of a crop, above 0 and up to '
      'that.'
    )
  low, high = recipe.crop_scale
  if not 0.0 < low <= high <= 1.0:
    raise ValueError(
      f'method.crop_scale is {recipe.crop_scale}; it is (low, high) shares of '
      'the area, above 0 and up to 1.'
    )
  low, high = recipe.crop_ratio
  if not 0.0 < low <= high:
    raise ValueError(
      f'method.crop_ratio is {recipe.crop_ratio}; it is (low, high), width '
      'over height, above 0.'
    )
  if not 0.0 <= recipe.label_smoothing < 1.0:
    raise ValueError(
      f'method.label_smoothing is {recipe.label_smoothing}; it is at least 0 '
      'and below 1.'
    )
  if recipe.statistics_batches < 1:
    raise ValueError(
      f'method.statistics_batches is {recipe.statistics_batches}; at least 1.'
    )
