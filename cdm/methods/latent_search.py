"""Searches a generator's latents for an image with given low-res pixels.

  minimise  100 max(|D(G(w, n)) - z|^2, eps) + 0.05 GEOCROSS(w)   over v and n
  w = lrelu_0.2(v std + mean),  |v_l| = |v_l at the start|   [PULSE] sec. 3.2

v_l in R^E is drawn from a normal for each layer l of the generator G, n are
maps of noise, D shrinks an image, and z is the low-res image; both images are
on the scale [0, 1] there. The Gaussian (mean, std) makes v look like what the
mapping network makes of a normal z, before its last leaky ReLU. A vector on the
sphere of its start is as likely as the start was. The numbers are those of the
authors' code; where that and the paper differ, the code is followed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.ops import pixels
from cdm.ops.reflected_bicubic import shrink

BETA_1, BETA_2, ADAM_EPS = 0.9, 0.999, 1e-8
# Added to squared norms, so that a zero has a gradient.
TINY = 1e-9
SLOPE = 0.2  # of the leaky ReLU


class Search(NamedTuple):
  """How latents are searched; the `method.search` section of a config.

  Attributes:
    steps: steps of the optimizer from each start.
    learning_rate: its largest learning rate.
    schedule: the factor of the learning rate over the steps, a name from
      `SCHEDULES`.
    restarts: random starts for each image, of which the best result is kept.
    eps: an image is found if the mean squared difference of its low-res pixels,
      on the scale [0, 1], is at most eps; the loss asks for no less.
    l2_weight: weight of that difference.
    geocross_weight: weight of GEOCROSS, which draws the w_l together.
    noise_maps: number of the noise maps, from the first layer on, that are
      searched too; the others stay as they are drawn, and the last one is zero.
  """

  steps: int = 100
  learning_rate: float = 0.4
  schedule: str = 'linear1cycledrop'
  restarts: int = 1
  eps: float = 2e-3
  l2_weight: float = 100.0
  geocross_weight: float = 0.05
  noise_maps: int = 5


class Space(NamedTuple):
  """What is searched.

  Attributes:
    draw: `(w [N, L, E], noise: L times [N, h, w]) -> [N, H, W, 3]`.
    mean, std: [E], the Gaussian of lrelu_5(w), see `pulse.gaussian_fit`.
    noise_sides: h = w of each of the L noise maps.
  """

  draw: Callable[[jax.Array, Sequence[jax.Array]], jax.Array]
  mean: jax.Array
  std: jax.Array
  noise_sides: Sequence[int]


class _Best(NamedTuple):
  """The best point of each search so far: its loss [N] and variables."""

  loss: jax.Array
  point: Any


def search(
  space: Space, lowres: jax.Array, *, keys: jax.Array, options: Search
) -> jax.Array:
  """Searches for an image for each low-res image.

  The best of all points is kept, not the last one. differs: it is the best as
  it will be written, clipped to [-1, 1] and rounded to uint8, so that its file
  tells whether it is found.

  Args:
    space: what is searched.
    lowres: float32 [B, h, w, 3] in [-1, 1].
    keys: [B], one per image; a result depends on its own key and low-res image.
    options: how it is searched.

  Returns:
    float32 [B, H, W, 3] in [-1, 1].
  """
  count, restarts = keys.shape[0], options.restarts
  point, fixed = _starts(space, keys, options)
  target = jnp.repeat(lowres, restarts, axis=0)  # [N, h, w, 3], N = B restarts

  def losses(point):
    """Returns (the sum of the losses [N], (images, GEOCROSS [N]))."""
    w = w_of_v(point['latent'], space.mean, space.std)
    image = space.draw(w, _maps(point['noise'], fixed, space.noise_sides))
    spread = options.geocross_weight * geocross(w)
    value = _l2_loss(image, target, options) + spread
    return value.sum(), (image, spread)

  def step(carry, now):
    point, moments, best = carry
    gradient, (image, spread) = jax.grad(losses, has_aux=True)(point)
    loss = _l2_loss(_as_written(image), target, options) + spread
    better = loss < best.loss  # [N]
    best = _Best(
      jnp.where(better, loss, best.loss), _choose(better, point, best.point)
    )
    point, moments = spherical_adam(point, gradient, moments, radii, *now)
    return (point, moments, best), None

  radii = jax.tree.map(_norm, point)
  moments = jax.tree.map(lambda x: (jnp.zeros_like(x),) * 2, point)
  best = _Best(jnp.full(count * restarts, jnp.inf), point)
  rates = options.learning_rate * SCHEDULES[options.schedule](options.steps)
  now = (np.arange(options.steps) + 1.0, rates)
  (_, _, best), _ = jax.lax.scan(
    step,
    (point, moments, best),
    tuple(jnp.asarray(x, jnp.float32) for x in now),
  )
  chosen = best.loss.reshape(count, restarts).argmin(axis=1)  # [B]
  chosen += restarts * jnp.arange(count)
  point, fixed = jax.tree.map(lambda x: x[chosen], (best.point, fixed))
  w = w_of_v(point['latent'], space.mean, space.std)
  image = space.draw(w, _maps(point['noise'], fixed, space.noise_sides))
  return jnp.clip(image, -1.0, 1.0)


def w_of_v(v: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  """Turns normal latents into the generator's: [N, L, E] -> [N, L, E]."""
  return jax.nn.leaky_relu(v * std[None, None] + mean[None, None], SLOPE)


def geocross(w: jax.Array) -> jax.Array:
  """Returns how far apart the latents of the layers are, as angles.

  mean over i, j of (E theta_ij^2) / 8, theta_ij = 2 atan2(|w_i - w_j|,
  |w_i + w_j|).

  Args:
    w: [N, L, E].

  Returns:
    [N].
  """
  a, b = w[:, :, None], w[:, None]
  difference = jnp.sqrt(((a - b) ** 2).sum(axis=-1) + TINY)  # [N, L, L]
  total = jnp.sqrt(((a + b) ** 2).sum(axis=-1) + TINY)
  theta = 2.0 * jnp.arctan2(difference, total)
  return w.shape[-1] * (theta**2).mean(axis=(1, 2)) / 8.0


def l2(image: jax.Array, lowres: jax.Array) -> jax.Array:
  """Returns the mean squared difference of the low-res pixels, on [0, 1].

  Args:
    image: [N, H, W, 3] in [-1, 1].
    lowres: [N, h, w, 3] in [-1, 1].

  Returns:
    [N].
  """
  difference = shrink(image, lowres.shape[1]) - lowres
  return (difference**2).mean(axis=(1, 2, 3)) / 4.0


def spherical_adam(
  point: Any,
  gradient: Any,
  moments: Any,
  radii: Any,
  count: jax.Array | float,
  rate: jax.Array | float,
) -> tuple[Any, Any]:
  """Makes a step of Adam and returns to the spheres, [PULSE] sec. 3.2.

  Args:
    point: tree of variables [..., n], each with a vector along its last axis.
    gradient: the same tree.
    moments: the same tree of pairs (mean, mean square) of the gradients.
    radii: the same tree of norms [..., 1] that the vectors keep.
    count: number of this step, from 1.
    rate: its learning rate.

  Returns:
    (point, moments) after the step.
  """
  leaves, tree = jax.tree.flatten(point)
  made = []
  for x, g, (m, v), radius in zip(
    leaves,
    jax.tree.leaves(gradient),
    tree.flatten_up_to(moments),
    jax.tree.leaves(radii),
    strict=True,
  ):
    m = BETA_1 * m + (1.0 - BETA_1) * g
    v = BETA_2 * v + (1.0 - BETA_2) * g**2
    scale = jnp.sqrt(v / (1.0 - BETA_2**count)) + ADAM_EPS
    x = x - rate * (m / (1.0 - BETA_1**count)) / scale
    made.append((x / _norm(x) * radius, (m, v)))
  points, moments = zip(*made, strict=True)
  return tree.unflatten(points), tree.unflatten(moments)


def _norm(x):
  """Returns the norm of each vector: [..., n] -> [..., 1]."""
  return jnp.sqrt((x * x).sum(axis=-1, keepdims=True) + TINY)


def _cycle(share):
  """Returns 0.1 -> 1 -> 0.1 over shares from 0 to 1."""
  return (9.0 * (1.0 - 2.0 * np.abs(share - 0.5)) + 1.0) / 10.0


def _linear1cycledrop(num_steps):
  share = np.arange(num_steps) / num_steps
  drop = 0.1 + (share - 0.9) / 0.1 * (1e-3 - 0.1)
  return np.where(share < 0.9, _cycle(share / 0.9), drop)


# {name: number of steps -> factor of the learning rate of each, [steps]}.
SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {
  'fixed': lambda n: np.ones(n),
  'linear1cycle': lambda n: _cycle(np.arange(n) / n),
  'linear1cycledrop': _linear1cycledrop,
}


def _l2_loss(image, target, options):
  return options.l2_weight * jnp.maximum(l2(image, target), options.eps)


def _as_written(image):
  """Returns images as they are read from a file: clipped and rounded."""
  return pixels.to_float(pixels.to_uint8(image))


def _starts(space, keys, options):
  """Draws the starts of all searches, from the keys of the images [B].

  Returns:
    ({'latent': [N, L, E], 'noise': [[N, h * w], ...]}, noise maps that are not
    searched: [[N, h, w], ...]), all standard normal but the last map, which is
    zero.
  """
  sides = space.noise_sides
  layers, latent_size = len(sides), space.mean.shape[0]
  searched = min(options.noise_maps, layers - 1)

  def draw(key, restart):
    latent_key, *map_keys = jax.random.split(
      jax.random.fold_in(key, restart), layers
    )
    latent = jax.random.normal(latent_key, (layers, latent_size))
    maps = [
      jax.random.normal(map_key, (side, side))
      for map_key, side in zip(map_keys, sides, strict=False)
    ]
    noise = [x.reshape(-1) for x in maps[:searched]]
    rest = [*maps[searched:], jnp.zeros((sides[-1], sides[-1]))]
    return {'latent': latent, 'noise': noise}, rest

  restarts = jnp.tile(jnp.arange(options.restarts), keys.shape[0])
  return jax.vmap(draw)(jnp.repeat(keys, options.restarts), restarts)


def _maps(searched, fixed, sides):
  """Returns all noise maps, [N, h, w] each, from the parts of `_starts`."""
  own = [
    x.reshape(-1, side, side) for x, side in zip(searched, sides, strict=False)
  ]
  return [*own, *fixed]


def _choose(mask, a, b):
  """Returns the rows of a where the mask [N] holds, else those of b."""

  def choose(x, y):
    return jnp.where(jnp.expand_dims(mask, range(1, x.ndim)), x, y)

  return jax.tree.map(choose, a, b)


def check(options: Search) -> None:
  """Raises ValueError, naming the key, if an option is out of range."""
  for key, least in (('steps', 1), ('restarts', 1), ('noise_maps', 0)):
    if getattr(options, key) < least:
      raise ValueError(
        f'method.search.{key} is {getattr(options, key)}; it must be at least '
        f'{least}.'
      )
  for key in ('learning_rate', 'eps', 'l2_weight'):
    if not getattr(options, key) > 0.0:
      raise ValueError(
        f'method.search.{key} is {getattr(options, key)}; it must be above 0.'
      )
  if not options.geocross_weight >= 0.0:
    raise ValueError(
      f'method.search.geocross_weight is {options.geocross_weight}; it must be '
      'at least 0.'
    )
  if options.schedule not in SCHEDULES:
    raise ValueError(
      f'method.search.schedule is {options.schedule!r}; known are '
      f'{", ".join(SCHEDULES)}.'
    )
