"""Trains FSRNet, and FSRGAN where there is a discriminator, [FSRNet].

  x = upsample(z_0),  (y^, y_c, p^) = FSRNet(x)
  L_FSRNet = 1/2 (|y - y_c|^2 + |y - y^|^2 + |p - p^|^2)
  L_FSRGAN = L_FSRNet + w_adv L_G + w_per |f(y) - f(y^)|^2, and L_D of its own

z_0 is y shrunk, p are maps of landmarks and facial parts, f the features of a
classifier, and L_G and L_D the losses of `methods.adversarial`. Every |.|^2 is
a mean over its values, because the paper's weights were used so by the
unofficial port. The weights 1/2, 1e-3 and 1e-1 were not read in the paper
(UNVERIFIED-M).

A batch may have the maps as `prior`; the term |p - p^|^2 is there if it has.

The parameters are {'generator': ...} for FSRNet, and
{'generator': ..., 'discriminator': ...} for FSRGAN. The discriminator sees the
enlarged low-res image beside the image, as in [pix2pix] (UNVERIFIED-M; the
unofficial port shows it the image alone).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.methods import adversarial, lowres_conditioning
from cdm.methods.base import Method
from cdm.ops import pixels

GENERATOR, DISCRIMINATOR = 'generator', 'discriminator'


class FsrganOptions(NamedTuple):
  """How FSRNet is trained; the `method` section of a config.

  Attributes:
    adversarial_weight: w_adv; 0 trains FSRNet alone, and then the section
      `model.discriminator` is not used.
    r1_weight: of the gradient penalty of the discriminator, see `adversarial`.
    perceptual_weight: w_per; 0 computes no features.
    feature_network: the classifier of the features, from `lpips.BACKBONES`:
      'vgg' (VGG-16), 'alex' or 'squeeze'.
    feature_weights: path of torchvision's file of its weights. Without it the
      perceptual loss is off, and a warning says so.
    feature_layer: which of the network's feature maps are compared, from 1; of
      VGG-16, 5 is relu5_3.
  """

  adversarial_weight: float = 1e-3
  r1_weight: float = 0.0
  perceptual_weight: float = 1e-1
  feature_network: str = 'vgg'
  feature_weights: str = ''
  feature_layer: int = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Fsrgan:
  """FSRNet, the discriminator that it plays against, and how it is trained.

  Attributes:
    net: the generator, a `models.fsrnet.FsrNet`.
    discriminator: the other player, a `models.discriminator.Discriminator`;
      None trains FSRNet alone.
    options: the weights of the losses.
    image_size: H = W of the images.
    lowres: how the low-res input is made.
    features: `([B, H, W, 3] in [-1, 1]) -> [B, h, w, c]`, the features of the
      perceptual loss; None leaves it out.

  Raises:
    ValueError: an option is out of range, or contradicts the others.
  """

  net: Any
  discriminator: Any
  options: FsrganOptions
  image_size: int
  lowres: lowres_conditioning.Lowres
  features: Callable[[jax.Array], jax.Array] | None = None

  def __post_init__(self):
    check(self.options, self.lowres)

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of both networks, see `Method.init`."""
    keys = jax.random.split(key)
    x = jnp.zeros((1, self.image_size, self.image_size, 3))
    params = {GENERATOR: self.net.init(keys[0], x)['params']}
    if self.discriminator is not None:
      made = self.discriminator.init(keys[1], x, x)
      params[DISCRIMINATOR] = made['params']
    return params

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the loss of every example, of both players together.

    Args:
      params: parameters of the networks.
      batch: see `Method.loss`; it may hold `prior` [B, H/2, W/2, K], the maps
        of landmarks and parts, float in [0, 1] or uint8 that counts 1/255, and
        what `Method.draw` drew.
      key: one key for the whole batch.
      train: the loss is the same in training and evaluation.

    Returns:
      ([B], {name: [B]}): the losses of both players and their parts, and the
      scalars of `adversarial.losses`.
    """
    del train
    y = pixels.to_float(batch['image'])  # [B, H, W, 3]
    x = self._enlarged(y, batch, key=key)
    output = self.net.apply({'params': params[GENERATOR]}, x)
    scalars = {
      'coarse_loss': _mean_square(y - output.coarse) / 2,
      'fine_loss': _mean_square(y - output.image) / 2,
    }
    if 'prior' in batch:
      maps = jnp.asarray(batch['prior'], jnp.float32)
      if batch['prior'].dtype == jnp.uint8:
        maps /= 255
      scalars['prior_loss'] = _mean_square(maps - output.maps) / 2
    value = sum(scalars.values(), jnp.zeros(len(y)))
    if self.features is not None:
      difference = self.features(output.image) - self.features(y)
      scalars['perceptual_loss'] = _mean_square(difference)
      value += self.options.perceptual_weight * scalars['perceptual_loss']
    if self.discriminator is None:
      return value, scalars
    game = adversarial.losses(
      self._discriminate(x),
      params[DISCRIMINATOR],
      generated=output.image,
      originals=y,
      r1_weight=self.options.r1_weight,
    )
    value += self.options.adversarial_weight * game.generator
    scalars['generator_loss'] = value
    return value + game.discriminator, scalars | game.scalars

  def sample(
    self,
    params: dict,
    *,
    keys: jax.Array | None = None,
    label: jax.Array | None = None,
    lowres: jax.Array | None = None,
    level: jax.Array | None = None,
    stop_logsnr: float | None = None,
    tuned: Any = None,
  ) -> jax.Array:
    """Super-resolves images; there is nothing random in it.

    Args:
      params: parameters of the networks, of which the generator's are used.
      lowres: [B, h, w, 3] in [-1, 1].
      keys, label, level, stop_logsnr, tuned: not used.

    Returns:
      float32 [B, H, W, 3] in [-1, 1].
    """
    del keys, label, level, stop_logsnr, tuned
    assert lowres is not None, 'FSRNet draws from low-res images'
    x = lowres_conditioning.upsample(lowres, self.image_size, self.lowres)
    image = self.net.apply({'params': params[GENERATOR]}, x).image
    return jnp.clip(image, -1.0, 1.0)

  def _enlarged(self, y, batch, *, key):
    """Returns the enlarged low-res images [B, H, W, 3] of a batch."""
    z_0 = lowres_conditioning.downsample(y, self.lowres)
    z, _ = lowres_conditioning.augment_train(
      z_0,
      self.lowres,
      key=key,
      u=batch.get('u_lowres'),
      examples=batch.get('example'),
    )
    return lowres_conditioning.upsample(z, self.image_size, self.lowres)

  def _discriminate(self, x):
    """Returns the discriminator as `adversarial.losses` takes it."""
    net = self.discriminator
    assert net is not None  # `loss` asks only where there is one
    return lambda params, image: net.apply({'params': params}, image, x)


def fsrgan(
  net: Any,
  discriminator: Any,
  options: FsrganOptions,
  *,
  image_size: int,
  lowres: lowres_conditioning.Lowres,
  features: Callable[[jax.Array], jax.Array] | None = None,
) -> Method:
  """Returns the `Method` of an `Fsrgan` with these fields."""
  bound = Fsrgan(net, discriminator, options, image_size, lowres, features)
  return Method(
    bound.init, bound.loss, bound.sample, draw=lowres_conditioning.draw_batch
  )


def check(options: FsrganOptions, lowres: lowres_conditioning.Lowres) -> None:
  """Raises ValueError, naming the key, if an option is invalid."""
  for name in ('adversarial_weight', 'r1_weight', 'perceptual_weight'):
    if not getattr(options, name) >= 0.0:
      raise ValueError(
        f'method.{name} is {getattr(options, name)}; it must be at least 0.'
      )
  if lowres.augment == 'noise':
    raise ValueError(
      "lowres.augment is 'noise', but FSRNet does not take the level of the "
      'noise as input; use --config.lowres.augment=none or blur.'
    )


def _mean_square(x):
  return (x**2).mean(axis=(1, 2, 3))
