"""Trains and tests an image classifier, for the CAS metric.

  loss = - sum_c q_c log softmax(logits)_c
  q = (1 - smoothing) [c = label] + smoothing / K

CAS is the classification accuracy score. The network normalises by the batch,
and only its parameters are trained and stored. The statistics that it is tested
with are computed after training, over batches of the training data (differs:
not a running average over the steps, which lags behind the parameters;
[Wu and Johnson 2021] sec. 3, "PreciseBN"):

  mean = E m_b,   var = E (v_b + m_b^2) - mean^2    over batches b
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.methods.base import Method
from cdm.ops import augmentation, resize


class ClassifierOptions(NamedTuple):
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
      `moments_to_statistics` turns the average into statistics.
    logits: `(params, statistics, image uint8 [B, H, W, 3]) -> [B, K]` of the
      centre crop of each image.
  """

  moments: Callable[..., dict]
  logits: Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
  """A network and the options by which it is trained and tested.

  Attributes:
    net: a `models.resnet.ResNet50` whose statistics are those of its current
      batch (momentum 0).
    options: its `ClassifierOptions`.
    normalise: `(levels 0..255) -> input of the network`.
  """

  net: Any
  options: ClassifierOptions
  normalise: Callable[[jax.Array], jax.Array]

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of the network, see `Method.init`."""
    x = jnp.zeros((1, self.options.size, self.options.size, 3))
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
      logits, batch['label'], smoothing=self.options.label_smoothing
    )
    right = jnp.argmax(logits, axis=1) == batch['label']
    return value, {'top1': right.astype(jnp.float32)}

  def moments(
    self, params: dict, batch: dict[str, jax.Array], *, key: jax.Array
  ) -> dict:
    """Returns the moments of a batch, see `Tester.moments`."""
    return _squared(self._apply(params, batch, key)[1])

  def logits(
    self, params: dict, statistics: dict, image: jax.Array
  ) -> jax.Array:
    """Returns the logits of centre crops, see `Tester.logits`."""
    x = resize.center_crop(image, self.options.size)
    variables = {'params': params, 'batch_stats': statistics}
    return self.net.apply(variables, self.normalise(x), train=False).logits

  def _apply(self, params, batch, key):
    """Returns (logits [B, K], batch-normalisation statistics of the batch)."""
    x = batch['image'].astype(jnp.float32)
    x = augmentation.random_crop_and_flip(
      x,
      key=key,
      examples=batch.get('example', jnp.arange(x.shape[0])),
      size=self.options.size,
      scale=self.options.crop_scale,
      ratio=self.options.crop_ratio,
      flip=self.options.flip,
    )
    output, new = self.net.apply(
      {'params': params}, self.normalise(x), train=True, mutable='batch_stats'
    )
    return output.logits, new['batch_stats']


def classifier(
  net: Any,
  options: ClassifierOptions,
  *,
  image_size: int,
  normalise: Callable[[jax.Array], jax.Array],
) -> tuple[Method, Tester]:
  """Binds a network and its options into a method and its tester.

  Args:
    net, options, normalise: see `Classifier`.
    image_size: H = W of the images.

  Returns:
    (Method without `sample`, Tester).

  Raises:
    ValueError: an option is out of range for images of that size.
  """
  check(options, image_size)
  bound = Classifier(net, options, normalise)
  method = Method(bound.init, bound.loss, sample=None)
  return method, Tester(bound.moments, bound.logits)


def cross_entropy(
  logits: jax.Array, label: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
  """Returns the cross-entropy with smoothed labels, [Szegedy et al. 2016].

  Args:
    logits: [B, K].
    label: int [B].
    smoothing: share of the target that is spread evenly over all classes.

  Returns:
    [B], in nats.
  """
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


def moments_to_statistics(averaged: dict) -> dict:
  """Turns averaged moments into statistics for `Tester.logits`.

  Args:
    averaged: results of `Tester.moments`, averaged over batches.

  Returns:
    Nested dicts that end in `{'mean', 'var'}`.
  """
  if 'square' in averaged:
    mean = averaged['mean']
    return {'mean': mean, 'var': averaged['square'] - mean**2}
  return {name: moments_to_statistics(part) for name, part in averaged.items()}


def check(options: ClassifierOptions, image_size: int) -> None:
  """Raises ValueError, naming the key, if an option is invalid."""
  if not 0 < options.size <= image_size:
    raise ValueError(
      f'method.size is {options.size} but images have {image_size} pixels '
      '(pipeline.image_size); the side of a crop must be above 0 and up to '
      'that.'
    )
  low, high = options.crop_scale
  if not 0.0 < low <= high <= 1.0:
    raise ValueError(
      f'method.crop_scale is {options.crop_scale}; it must be (low, high) '
      'shares of the area, above 0 and up to 1.'
    )
  low, high = options.crop_ratio
  if not 0.0 < low <= high:
    raise ValueError(
      f'method.crop_ratio is {options.crop_ratio}; it must be (low, high), '
      'width over height, above 0.'
    )
  if not 0.0 <= options.label_smoothing < 1.0:
    raise ValueError(
      f'method.label_smoothing is {options.label_smoothing}; it must be at '
      'least 0 and below 1.'
    )
  if options.statistics_batches < 1:
    raise ValueError(
      f'method.statistics_batches is {options.statistics_batches}; it must '
      'be at least 1.'
    )
