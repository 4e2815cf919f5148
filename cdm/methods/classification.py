"""Classification: images to labels, as the classification accuracy score asks.

  loss = - sum_c q_c log softmax(logits)_c
  q = (1 - smoothing) [c = label] + smoothing / K

The network normalises by the batch. The parameters are all that is trained and
kept: the statistics it is tested with are taken afterwards, over batches of
the training data (differs: not a running average of the steps, which lags
behind the parameters; [Wu and Johnson 2021] sec. 3, "PreciseBN"):

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
  """How images become what the network sees; the `method` section of a config.

  Attributes:
    size: side of the network's input, pixels.
    crop_scale: (low, high), share of the area of a random crop.
    crop_ratio: (low, high), width / height of it.
    flip: mirrors every second image.
    label_smoothing: share of the target that goes to all classes alike.
    statistics_batches: over how many training batches the statistics of the
      normalisations are taken.
  """

  size: int
  crop_scale: tuple[float, float] = (0.08, 1.0)
  crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: bool = True
  label_smoothing: float = 0.0
  statistics_batches: int = 200


class Tester(NamedTuple):
  """What a trained classifier needs to be tested.

  Attributes:
    moments: `(params, batch, *, key) -> {'mean', 'square'}`, see `moments`.
    logits: `(params, statistics, image uint8 [B, H, W, 3]) -> [B, K]` of the
      middle of each image.
  """

  moments: Callable
  logits: Callable


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """A network and the recipe by which it is trained and tested.

  Attributes:
    net: a `models.resnet.ResNet50` that knows its batch alone (momentum 0).
    recipe: `Recipe`.
    normalise: levels 0..255 -> what the network takes.
  """

  net: Any
  recipe: Recipe
  normalise: Callable

  def init(self, key):
    """-> parameters of the network, see `Method.init`."""
    x = jnp.zeros((1, self.recipe.size, self.recipe.size, 3))
    return self.net.init(key, x, train=False)['params']

  def loss(self, params, batch, *, key, train):
    """Cross-entropy of random crops, see `Method.loss`.

    -> ([B], {'top1': [B], 1 where a crop is classified rightly}).
    """
    if not train:
      raise ValueError('A classifier is tested by its `Tester`.')
    logits, _ = self._apply(params, batch, key)
    value = cross_entropy(
      logits, batch['label'], smoothing=self.recipe.label_smoothing
    )
    right = jnp.argmax(logits, axis=1) == batch['label']
    return value, {'top1': right.astype(jnp.float32)}

  def moments(self, params, batch, *, key):
    """See `Tester.moments`."""
    return _squared(self._apply(params, batch, key)[1])

  def logits(self, params, statistics, image):
    """See `Tester.logits`."""
    x = resize.center_crop(image, self.recipe.size)
    variables = {'params': params, 'batch_stats': statistics}
    return self.net.apply(variables, self.normalise(x), train=False).logits

  def _apply(self, params, batch, key):
    """-> (logits [B, K], statistics of the batch)."""
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


def classifier(net, recipe, *, image_size, normalise):
  """Binds a network and a recipe, see `Classifier`, for images of one size.

  Returns:
    (Method without `sample`, Tester).

  Raises:
    ValueError: a recipe that cannot be for images of H = W = image_size.
  """
  check(recipe, image_size)
  bound = Classifier(net, recipe, normalise)
  method = Method(bound.init, bound.loss, sample=None)
  return method, Tester(bound.moments, bound.logits)


def cross_entropy(logits, label, *, smoothing=0.0):
  """logits: [B, K], label: int [B] -> [B], in nats; [Szegedy et al. 2016]."""
  log_p = jax.nn.log_softmax(logits)
  of_label = jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]
  return -(1.0 - smoothing) * of_label - smoothing * log_p.mean(axis=1)


def _squared(statistics):
  """Means and variances of a batch -> what may be averaged over batches."""
  if 'mean' in statistics:
    mean = statistics['mean']
    return {'mean': mean, 'square': statistics['var'] + mean**2}
  return {name: _squared(part) for name, part in statistics.items()}


def statistics_of(averaged):
  """`Tester.moments`, averaged over batches -> what `Tester.logits` takes."""
  if 'square' in averaged:
    mean = averaged['mean']
    return {'mean': mean, 'var': averaged['square'] - mean**2}
  return {name: statistics_of(part) for name, part in averaged.items()}


def check(recipe, image_size):
  """Refuses a recipe that cannot be, naming the key."""
  if not 0 < recipe.size <= image_size:
    raise ValueError(
      f'method.size is {recipe.size}, of images of {image_size} pixels '
      '(pipeline.image_size): it is the side of a crop of them.'
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
