"""Trains and samples pixel recursive super-resolution, [PRSR].

  p(y | x) = prod_s softmax(A_s(x) + B_s(y_<s))_{y_s}         [PRSR] eq. 5
  loss     = - mean_s log softmax(A_s + B_s)_{y_s}
             - mean_s log softmax(A_s)_{y_s}                  [PRSR] eq. 6
  sampling   y_s ~ softmax(tau (A_s + B_s))                   [PRSR] sec. 3.4

A sub-pixel s is one of three colours of a pixel and has 256 levels. The second
cross-entropy is that of the conditioning network alone. Without it the prior,
which sees the neighbours of a pixel, explains so much that the network never
learns to use the low-res image.

The first term, in bits, is the negative log-likelihood per dimension. It is
exact, so models can be compared by it.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.methods import lowres_conditioning
from cdm.methods.base import Method
from cdm.ops import pixels


class Options(NamedTuple):
  """How images are drawn; the `method` section of a config.

  Attributes:
    temperature: tau, by which logits are multiplied in sampling. 1 draws from
      the model; a larger one prefers likely levels, and 1.0 to 1.3 are those of
      [PRSR].
  """

  temperature: float = 1.0


class Tuned(NamedTuple):
  """The settings of sampling as arguments of a compiled program.

  Attributes:
    temperature: float32 [], see `Options`.
  """

  temperature: np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class PixelRecursive:
  """A network, and how it is trained and sampled.

  Attributes:
    net: a `models.pixel_recursive.PixelRecursive`.
    options: its `Options`.
    image_size: H = W of an image.
    lowres: how the low-res input is made.

  Raises:
    ValueError: options contradict each other.
  """

  net: Any
  options: Options
  image_size: int
  lowres: lowres_conditioning.Lowres

  def __post_init__(self):
    check(self.net, self.options, self.lowres)

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of the network, see `Method.init`."""
    h, size = self.lowres.size, self.image_size
    levels, lowres = jnp.zeros((1, size, size, 3)), jnp.zeros((1, h, h, 3))
    return self.net.init(key, levels, lowres=lowres, train=False)['params']

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes both cross-entropies, [PRSR] eq. 6, in nats per sub-pixel.

    Args:
      params: parameters of the network.
      batch: see `Method.loss`; the labels are not used.
      key: one key for the whole batch. It draws the blur of low-res images, if
        any.
      train: True for training; see the network.

    Returns:
      ([B], {'bits_per_dim': [B], 'conditioning_bits_per_dim': [B]}), bits per
      sub-pixel of the model and of its conditioning network alone.
    """
    z, _ = lowres_conditioning.augment_train(
      self._shrunk(batch['image']),
      self.lowres,
      key=key,
      u=batch.get('u_lowres'),
      examples=batch.get('example'),
    )
    conditioning, prior = self.net.apply(
      {'params': params}, batch['image'], lowres=z, train=train
    )
    of_model = -log_p(conditioning + prior, batch['image']).mean((1, 2, 3))
    of_conditioning = -log_p(conditioning, batch['image']).mean((1, 2, 3))
    return of_model + of_conditioning, {
      'bits_per_dim': of_model / math.log(2),
      'conditioning_bits_per_dim': of_conditioning / math.log(2),
    }

  def bits_per_dim(
    self, params: dict, image: jax.Array, lowres: jax.Array | None = None
  ) -> jax.Array:
    """Computes the negative log-likelihood of images, in bits per sub-pixel.

    Args:
      params: parameters of the network.
      image: uint8 [B, H, W, 3].
      lowres: [B, h, w, 3] in [-1, 1]; None shrinks the images.

    Returns:
      float32 [B].
    """
    z = self._shrunk(image) if lowres is None else lowres
    conditioning, prior = self.net.apply(
      {'params': params}, image, lowres=z, train=False
    )
    nats = -log_p(conditioning + prior, image).mean(axis=(1, 2, 3))
    return nats / math.log(2)

  def sample(
    self,
    params: dict,
    *,
    keys: jax.Array,
    label: jax.Array | None = None,
    lowres: jax.Array | None = None,
    level: jax.Array | None = None,
    stop_logsnr: float | None = None,
    tuned: Tuned | None = None,
  ) -> jax.Array:
    """Draws images, one sub-pixel after another.

    Args:
      params: parameters of the network.
      keys: [B], one per image.
      label: not used, as the network takes no label.
      lowres: [B, h, w, 3] in [-1, 1].
      level: not used, as low-res images are not noised.
      stop_logsnr: not used, as there is no diffusion to stop.
      tuned: what `tune` returned, in the place of `options`.

    Returns:
      float32 [B, H, W, 3] in [-1, 1].
    """
    assert lowres is not None, 'the network has a low-res input'
    tau = (self.tune() if tuned is None else tuned).temperature

    def pick(logits, s):
      # The largest of logits with Gumbel noise is a draw of their softmax.
      noise = jax.vmap(
        lambda key: jax.random.gumbel(
          jax.random.fold_in(key, s), logits.shape[1:]
        )
      )(keys)
      return jnp.argmax(tau * logits + noise, axis=-1), ()

    levels, _ = self.net.walk(params, lowres, pick)
    return pixels.to_float(levels)

  def tune(self, stop_logsnr: float | None = None) -> Tuned:
    """Returns the settings of sampling as arguments of a program.

    Args:
      stop_logsnr: not used, see `sample`.
    """
    return Tuned(np.asarray(self.options.temperature, np.float32))

  def _shrunk(self, image):
    """uint8 [B, H, W, 3] -> float32 [B, h, w, 3], the clean low-res images."""
    return lowres_conditioning.downsample(pixels.to_float(image), self.lowres)


def pixel_recursive(
  net: Any,
  options: Options,
  *,
  image_size: int,
  lowres: lowres_conditioning.Lowres,
) -> Method:
  """Returns the `Method` of a `PixelRecursive` with these fields."""
  bound = PixelRecursive(net, options, image_size, lowres)
  return Method(
    bound.init,
    bound.loss,
    bound.sample,
    bound.tune,
    draw=lowres_conditioning.draw_batch,
  )


def log_p(logits: jax.Array, levels: jax.Array) -> jax.Array:
  """Returns the log-probability of each level, in nats.

  Args:
    logits: [..., 256].
    levels: int [...] in 0..255.

  Returns:
    [...].
  """
  index = levels.astype(jnp.int32)[..., None]
  of_level = jnp.take_along_axis(logits, index, axis=-1)[..., 0]
  return of_level - jax.nn.logsumexp(logits, axis=-1)


def check(
  net: Any, options: Options, lowres: lowres_conditioning.Lowres
) -> None:
  """Raises ValueError, naming the key, if an option is invalid."""
  if not 0.0 < options.temperature < math.inf:
    raise ValueError(
      f'method.temperature is {options.temperature}; logits are multiplied by '
      'it, so it must be above 0, e.g. 1.1.'
    )
  lowres_conditioning.check_doublings(net.magnification, lowres)
  if lowres.augment == 'noise':
    raise ValueError(
      "lowres.augment is 'noise', whose level this network is not told; use "
      "'none' or 'blur'."
    )
