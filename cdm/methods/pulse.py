"""Trains StyleGAN, and super-resolves by searching its latents, [PULSE].

  L = L_G + L_D    non-saturating losses with R1, [StyleGAN] app. C
  x = G(w, n) where w and n are searched for D(x) = z_0,  see `latent_search`

The generator is trained without low-res images; only the search has one. A
stage without a `lowres` section draws images from normal latents.

The parameters are {'generator': ..., 'discriminator': ...}. differs: images are
trained at their full size from the start, not grown block by block.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.core import meta

from cdm.methods import adversarial, latent_search, lowres_conditioning
from cdm.methods.base import Method
from cdm.ops import pixels
from cdm.ops.keys import example_keys

GENERATOR, DISCRIMINATOR, FIT = 'generator', 'discriminator', 'fit'
INVERSE_SLOPE = 5.0  # A leaky ReLU of 5 undoes one of 0.2.
FIT_SEED = 0  # as in the authors' code
_FIT_BLOCK = 10_000  # latents that are mapped at once


class PulseOptions(NamedTuple):
  """How StyleGAN is trained and searched; the `method` section of a config.

  Attributes:
    r1_weight: of the gradient penalty of the discriminator, see `adversarial`.
    style_mixing: share of the training images that are drawn from two latents,
      one for the layers up to a random one and one for those after it,
      [StyleGAN] sec. 3.1.
    fit_samples: latents that the Gaussian of the search is fitted to; None if
      the parameters hold the Gaussian in the place of a mapping network.
    search: how latents are searched.
  """

  r1_weight: float = 10.0
  style_mixing: float = 0.9
  fit_samples: int | None = 1_000_000
  search: latent_search.Search = latent_search.Search()


@dataclasses.dataclass(frozen=True, eq=False)
class Pulse:
  """A generator, the discriminator it plays against, and how it is searched.

  Attributes:
    net: the generator, a `models.stylegan.Generator`.
    discriminator: the other player, `(image [B, H, W, 3]) -> [B]`; None for a
      generator that is not trained here.
    options: `PulseOptions`.
    lowres: how low-res images are made; None draws from normal latents.

  Raises:
    ValueError: an option is out of range, or contradicts the others.
  """

  net: Any
  discriminator: Any
  options: PulseOptions
  lowres: lowres_conditioning.Lowres | None = None

  def __post_init__(self):
    check(self)

  def init(self, key: jax.Array) -> dict:
    """Returns the parameters of both networks, see `Method.init`."""
    keys = jax.random.split(key)
    size, n = self.net.latent_size, self.net.num_layers
    noise = [jnp.zeros((1, side, side)) for side in self.net.noise_sides]
    if self.options.fit_samples is None:
      w = jnp.zeros((1, n, size))
      made = self.net.init(keys[0], w, noise, method='image')
      fit = {'mean': jnp.zeros(size), 'std': jnp.ones(size)}
      return {GENERATOR: made['params'], FIT: fit}
    made = self.net.init(keys[0], jnp.zeros((1, size)), noise)
    params = {GENERATOR: made['params']}
    if self.discriminator is not None:
      side = self.net.image_size
      made = self.discriminator.init(keys[1], jnp.zeros((1, side, side, 3)))
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
      params: parameters of both networks.
      batch: see `Method.loss`.
      key: one key for the whole batch.
      train: the loss is the same in training and evaluation.

    Returns:
      ([B], the scalars of `adversarial.losses`).

    Raises:
      ValueError: there is no discriminator.
    """
    del train
    if self.discriminator is None:
      raise ValueError(
        'config.model.discriminator is None, so this generator is not trained '
        'here; give the section of a discriminator, or import weights.'
      )
    originals = pixels.to_float(batch['image'])  # [B, H, W, 3]
    examples = batch.get('example', jnp.arange(originals.shape[0]))
    generated = self._draw(
      params[GENERATOR],
      example_keys(key, examples),
      mixing=self.options.style_mixing,
    )
    game = adversarial.losses(
      lambda given, x: self.discriminator.apply({'params': given}, x),
      params[DISCRIMINATOR],
      generated=generated,
      originals=originals,
      r1_weight=self.options.r1_weight,
    )
    return game.generator + game.discriminator, game.scalars

  def prepare(self, params: dict) -> dict:
    """Fits the Gaussian of the search, and leaves the discriminator out."""
    kept = {k: v for k, v in params.items() if k != DISCRIMINATOR}
    if self.lowres is not None:
      kept[FIT] = self._fit(params)
    return kept

  def sample(
    self,
    params: dict,
    *,
    keys: jax.Array,
    label: jax.Array | None = None,
    lowres: jax.Array | None = None,
    level: jax.Array | None = None,
    stop_logsnr: float | None = None,
    tuned: Any = None,
  ) -> jax.Array:
    """Searches for images with given low-res pixels, or draws any images.

    Args:
      params: parameters, best those that `prepare` returned.
      keys: [B], one per image.
      lowres: [B, h, w, 3] in [-1, 1]; None draws from normal latents.
      label, level, stop_logsnr, tuned: not used.

    Returns:
      float32 [B, H, W, 3] in [-1, 1].
    """
    del label, level, stop_logsnr, tuned
    generator = params[GENERATOR]
    if lowres is None:
      return jnp.clip(self._draw(generator, keys), -1.0, 1.0)
    fit = self._fit(params)
    space = latent_search.Space(
      lambda w, noise: self._image(generator, w, noise),
      fit['mean'],
      fit['std'],
      self.net.noise_sides,
    )
    return latent_search.search(
      space, lowres, keys=keys, options=self.options.search
    )

  def is_found(self, image: jax.Array, lowres: jax.Array) -> jax.Array:
    """Tells which images have the pixels of their low-res image, up to eps.

    Args:
      image: [B, H, W, 3] in [-1, 1], what `sample` returned.
      lowres: [B, h, w, 3] in [-1, 1], what it was given.

    Returns:
      bool [B].
    """
    return latent_search.l2(image, lowres) <= self.options.search.eps

  def _fit(self, params):
    """Returns the Gaussian in the parameters, or fits it."""
    if FIT in params:
      return meta.unbox(params[FIT])
    assert self.options.fit_samples is not None  # see `init`
    return gaussian_fit(
      lambda z: self._w_of_z(params[GENERATOR], z),
      latent_size=self.net.latent_size,
      num_samples=self.options.fit_samples,
      key=jax.random.key(FIT_SEED),
    )

  def _draw(self, generator, keys, *, mixing=0.0):
    """Draws images from normal latents: keys [B] -> [B, H, W, 3]."""
    size, sides = self.net.latent_size, self.net.noise_sides

    def normals(key):
      z_key, layer_key, *map_keys = jax.random.split(key, 2 + len(sides))
      maps = [
        jax.random.normal(map_key, (side, side))
        for map_key, side in zip(map_keys, sides, strict=True)
      ]
      first = first_layer(layer_key, len(sides), mixing)
      return jax.random.normal(z_key, (2, size)), maps, first

    z, noise, first = jax.vmap(normals)(keys)
    w = self._w_of_z(generator, z if mixing else z[:, :1])  # [B, 1 or 2, E]
    second = jnp.arange(len(sides))[None] >= first[:, None]  # [B, L]
    w = jnp.where(second[..., None], w[:, -1:], w[:, :1])  # [B, L, E]
    return self._image(generator, w, noise)

  def _w_of_z(self, generator, z):
    return self.net.apply({'params': generator}, z, method='w_of_z')

  def _image(self, generator, w, noise):
    return self.net.apply({'params': generator}, w, noise, method='image')


def pulse(
  net: Any,
  discriminator: Any,
  options: PulseOptions,
  *,
  lowres: lowres_conditioning.Lowres | None = None,
) -> Method:
  """Returns the `Method` of a `Pulse` with these fields."""
  bound = Pulse(net, discriminator, options, lowres)
  return Method(
    bound.init,
    bound.loss,
    bound.sample,
    prepare=bound.prepare,
    is_found=None if lowres is None else bound.is_found,
  )


def first_layer(key: jax.Array, num_layers: int, mixing: float) -> jax.Array:
  """Draws the first layer of the second latent, [StyleGAN] sec. 3.1.

  Returns:
    int [], from 1 to L - 1 with the probability `mixing`, else L: there is no
    second latent.
  """
  layer_key, is_mixed_key = jax.random.split(key)
  layer = jax.random.randint(layer_key, (), 1, num_layers)
  is_mixed = jax.random.bernoulli(is_mixed_key, mixing)
  return jnp.where(is_mixed, layer, num_layers)


def gaussian_fit(
  w_of_z: Callable[[jax.Array], jax.Array],
  *,
  latent_size: int,
  num_samples: int,
  key: jax.Array,
) -> dict[str, jax.Array]:
  """Fits a Gaussian to lrelu_5(w) of standard normal z.

  Args:
    w_of_z: the mapping network, [N, E] -> [N, E].
    latent_size: E.
    num_samples: number of z, which are drawn in blocks.
    key: one key.

  Returns:
    {'mean': [E], 'std': [E]}, the latter with num_samples - 1 in its
    denominator.
  """
  size = min(num_samples, _FIT_BLOCK)
  blocks = -(-num_samples // size)

  def add(sums, block):
    z = jax.random.normal(jax.random.fold_in(key, block), (size, latent_size))
    w = jax.nn.leaky_relu(w_of_z(z), INVERSE_SLOPE)
    # The last block may be needed in part only.
    counts = (block * size + jnp.arange(size) < num_samples)[:, None]
    n = counts.sum()
    mean = jnp.where(counts, w, 0.0).sum(axis=0) / n
    squares = jnp.where(counts, (w - mean[None]) ** 2, 0.0).sum(axis=0)
    return _merged(sums, (n.astype(jnp.float32), mean, squares)), None

  zero = jnp.zeros(latent_size)
  (n, mean, squares), _ = jax.lax.scan(
    add, (jnp.zeros(()), zero, zero), jnp.arange(blocks)
  )
  return {'mean': mean, 'std': jnp.sqrt(squares / (n - 1.0))}


def _merged(a, b):
  """Merges (count, mean, sum of squared deviations) of two sets."""
  (n_a, mean_a, squares_a), (n_b, mean_b, squares_b) = a, b
  n, apart = n_a + n_b, mean_b - mean_a
  mean = mean_a + apart * (n_b / n)
  return n, mean, squares_a + squares_b + apart**2 * (n_a * n_b / n)


def check(method: Pulse) -> None:
  """Raises ValueError, naming the key, if options cannot be used together."""
  options, lowres = method.options, method.lowres
  latent_search.check(options.search)
  if not options.r1_weight >= 0.0:
    raise ValueError(
      f'method.r1_weight is {options.r1_weight}; it must be at least 0.'
    )
  if not 0.0 <= options.style_mixing <= 1.0:
    raise ValueError(
      f'method.style_mixing is {options.style_mixing}; it must be a share of '
      'the images, between 0 and 1.'
    )
  samples, layers = options.fit_samples, method.net.mapping_layers
  if samples is not None and samples < 2:
    raise ValueError(
      f'method.fit_samples is {samples}; a Gaussian is fitted to at least 2.'
    )
  if (samples is None) == (layers > 0):
    raise ValueError(
      f'method.fit_samples is {samples} and model.mapping_layers is {layers}; '
      'the Gaussian of the search is either fitted to a mapping network or, '
      'with fit_samples=None and mapping_layers=0, a parameter.'
    )
  if samples is None and (method.discriminator is not None or lowres is None):
    raise ValueError(
      'method.fit_samples is None, so there is no mapping network: such a '
      'generator can be searched only, with a lowres section and with '
      'model.discriminator=None.'
    )
  if lowres is None:
    return
  for key, known in (('downsample', 'bicubic'), ('augment', 'none')):
    if getattr(lowres, key) != known:
      raise ValueError(
        f'lowres.{key} is {getattr(lowres, key)!r}; PULSE searches with '
        f'{known!r}.'
      )
  if method.net.image_size % (2 * lowres.size):
    raise ValueError(
      f'lowres.size is {lowres.size}, which does not divide '
      f'pipeline.image_size = {method.net.image_size} by an even number.'
    )
