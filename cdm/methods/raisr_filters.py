"""Sorts pixels into buckets, each with a fitted filter, [RAISR] sec. II.

  (a b; b c) = sum over a window of w (gx, gy)^T (gx, gy)
  angle = atan2(2 b, a - c) / 2,  strength = sqrt(l1),
  coherence = (sqrt(l1) - sqrt(l2)) / (sqrt(l1) + sqrt(l2))
  h = (Q + ridge I)^-1 V,  Q = sum of p p^T,  V = sum of p t      in each bucket

l1 >= l2 are the eigenvalues of the matrix in the first line. p is the patch of
the enlarged image around a pixel, and t the pixel of the original, both less
the pixel of the enlarged image itself. differs: [RAISR] subtracts nothing. So
a flat patch stays as it is, sums are small and lose few digits, and a bucket
without patches has the filter that changes nothing.

A bucket is (pixel type, angle, strength, coherence). The pixel type is the
place of a pixel in the s x s pixels that one low-res pixel becomes. An image
that is turned or mirrored is as likely as the image, so that [RAISR] sec. II-D
adds Q and V of all 8 positions. Here every patch is turned to the position in
which its bucket has the lowest number, which gives the same sums in an eighth
of the memory: buckets that turn into each other share a `class`.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.ops import blur, normal_equations

POSITIONS = [(t, r, c) for t in (0, 1) for r in (0, 1) for c in (0, 1)]
GROUP = 64  # patches of one bucket that are multiplied at once
CHUNK = 256  # groups that are in memory at once


@dataclasses.dataclass(frozen=True)
class Hash:
  """How pixels are sorted into buckets.

  Attributes:
    factor: s, the magnification.
    patch: side of a filter, odd.
    window: side of the window over which gradients are summed, odd.
    window_sigma: standard deviation of its Gaussian weights, in pixels.
    angles: number of angles, even.
    strength_edges: increasing bounds between the strengths, for images in
      [0, 1].
    coherence_edges: increasing bounds between the coherences, in [0, 1].

  Raises:
    ValueError: a value is out of range; the message names its key.
  """

  factor: int
  patch: int
  window: int
  window_sigma: float
  angles: int
  strength_edges: tuple[float, ...]
  coherence_edges: tuple[float, ...]

  def __post_init__(self):
    for key in ('patch', 'window'):
      if getattr(self, key) < 1 or getattr(self, key) % 2 == 0:
        raise ValueError(
          f'method.{key} is {getattr(self, key)}; it must be odd, so that it '
          'has a middle pixel.'
        )
    if self.window_sigma <= 0:
      raise ValueError(
        f'method.window_sigma is {self.window_sigma}; it must be above 0.'
      )
    if self.angles < 2 or self.angles % 2:
      raise ValueError(
        f'method.angles is {self.angles}; it must be even, so that an image '
        'that is turned by 90 degrees has the same angles.'
      )
    for key in ('strength_edges', 'coherence_edges'):
      edges = getattr(self, key)
      if list(edges) != sorted(set(edges)) or any(edge <= 0 for edge in edges):
        raise ValueError(
          f'method.{key} is {tuple(edges)}; it must be positive and increasing.'
        )

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """Numbers of pixel types, angles, strengths and coherences."""
    return (
      self.factor**2,
      self.angles,
      len(self.strength_edges) + 1,
      len(self.coherence_edges) + 1,
    )

  @property
  def reach(self) -> int:
    """Pixels of the enlarged image that count on each side of a pixel."""
    return max(self.patch // 2, self.window // 2 + 1)


class Classes(NamedTuple):
  """Which buckets turn into each other.

  Attributes:
    count: number of classes.
    of_bucket: int32 [buckets], the class of each bucket.
    position: int32 [buckets], the number in `POSITIONS` by which a patch of
      the bucket is turned.
    order: int32 [8, patch^2]; pixel j of a turned patch is pixel order[p, j].
    turned_into_itself: bool [classes, 8], positions in which the bucket of a
      class stays the same.
  """

  count: int
  of_bucket: np.ndarray
  position: np.ndarray
  order: np.ndarray
  turned_into_itself: np.ndarray


def _turn(image, position):
  """Transposes an array [H, W], then mirrors its rows and columns."""
  transposed, rows, columns = position
  image = image.T if transposed else image
  image = image[::-1] if rows else image
  return image[:, ::-1] if columns else image


@functools.lru_cache(maxsize=8)
def classes(hash_: Hash) -> Classes:
  """Returns the classes of the buckets of a hash."""
  numbers = np.arange(np.prod(hash_.shape)).reshape(hash_.shape)
  pixels = np.arange(hash_.patch**2).reshape(hash_.patch, hash_.patch)
  angle = np.arange(hash_.angles)
  images = []  # of every position: the bucket that each bucket becomes
  for position in POSITIONS:
    transposed, rows, columns = position
    # Entry [r, c] is the type that was there before the turn.
    before = _turn(
      np.arange(hash_.factor**2).reshape(hash_.factor, -1), position
    )
    turned = (hash_.angles // 2 - angle) if transposed else angle
    turned = -turned if rows != columns else turned
    becomes = np.empty_like(numbers)
    becomes[before.reshape(-1)] = numbers[:, turned % hash_.angles]
    images.append(becomes.reshape(-1))
  images = np.stack(images)  # [8, buckets]
  lowest, of_bucket = np.unique(images.min(axis=0), return_inverse=True)
  return Classes(
    count=len(lowest),
    of_bucket=of_bucket.astype(np.int32).reshape(-1),
    position=images.argmin(axis=0).astype(np.int32),
    order=np.stack([_turn(pixels, p).reshape(-1) for p in POSITIONS]),
    turned_into_itself=(images[:, lowest] == lowest).T,
  )


def buckets(enlarged: jax.Array, hash_: Hash) -> jax.Array:
  """Returns the bucket of every pixel, [RAISR] alg. 1.

  differs: the angles are centred at multiples of pi / angles rather than
  between them, so that edges along the axes, which are the most common ones,
  do not fall into two buckets by their last digits.

  Args:
    enlarged: float32 [B, H, W] in [0, 1]; H and W are multiples of the factor.
    hash_: how pixels are sorted.

  Returns:
    int32 [B, H, W].
  """
  height, width = enlarged.shape[1:]
  padded = jnp.pad(enlarged, ((0, 0), (1, 1), (1, 1)), mode='edge')
  gx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
  gy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
  summed = blur.gaussian_blur(
    jnp.stack([gx * gx, gx * gy, gy * gy], axis=-1),
    jnp.full(len(enlarged), hash_.window_sigma),
    size=hash_.window,
  )
  a, b, c = (summed[..., i] for i in range(3))
  half = jnp.sqrt(((a - c) / 2) ** 2 + b**2)
  large = jnp.sqrt((a + c) / 2 + half)
  small = jnp.sqrt(jnp.maximum((a + c) / 2 - half, 0.0))
  coherence = (large - small) / jnp.maximum(large + small, 1e-12)
  turns = jnp.arctan2(2 * b, a - c) / (2 * jnp.pi)  # in [-1/2, 1/2]
  angle = jnp.round(turns * hash_.angles).astype(jnp.int32) % hash_.angles
  kind = (jnp.arange(height) % hash_.factor)[:, None] * hash_.factor
  kind = kind + jnp.arange(width)[None] % hash_.factor
  number = jnp.broadcast_to(kind[None], enlarged.shape)
  for size, part in zip(
    hash_.shape[1:],
    (
      angle,
      _interval(large, hash_.strength_edges),
      _interval(coherence, hash_.coherence_edges),
    ),
    strict=True,
  ):
    number = number * size + part
  return number.astype(jnp.int32)


def _interval(x, edges):
  """Returns the number of edges at or below x, int32."""
  return jnp.searchsorted(jnp.asarray(edges, x.dtype), x, side='right')


def products(
  enlarged: jax.Array, original: jax.Array, hash_: Hash
) -> jax.Array:
  """Sums the products of patches with themselves and with their targets.

  Pixels whose patch or window reaches beyond the image are left out.

  Args:
    enlarged, original: float32 [B, H, W] in [0, 1].
    hash_: how pixels are sorted.

  Returns:
    float32 [classes, n + 2, n + 2], the sums of r r^T for the rows r = (p_1,
    ..., p_n, t, 1) of each class, with n = patch^2.
  """
  found, reach = classes(hash_), hash_.reach + hash_.factor
  number, height, width = enlarged.shape
  inner = buckets(enlarged, hash_)[:, reach:-reach, reach:-reach]
  flat = np.arange(number * height * width, dtype=np.int32)
  pixel = flat.reshape(enlarged.shape)[:, reach:-reach, reach:-reach]
  assert pixel.size, 'the images are too small for a patch'
  inner, pixel = inner.reshape(-1), jnp.asarray(pixel.reshape(-1))
  class_, position = (
    jnp.asarray(table)[inner] for table in (found.of_bucket, found.position)
  )
  place, group_class = normal_equations.groups(
    class_, found.count, size=GROUP, chunk=CHUNK
  )
  grid = np.arange(hash_.patch) - hash_.patch // 2
  offset = (grid[:, None] * width + grid).reshape(-1)[found.order]  # [8, n]
  levels, targets = enlarged.reshape(-1), original.reshape(-1)

  def add(total, group):
    members, owner = group  # [chunk, group], [chunk]
    there = members < pixel.size
    member = jnp.minimum(members, pixel.size - 1)
    at, turn = pixel[member], position[member]
    patches = levels[at[..., None] + jnp.asarray(offset)[turn]]
    middle = levels[at]
    target = (targets[at] - middle)[..., None]
    ones = jnp.ones_like(target)
    rows = jnp.concatenate([patches - middle[..., None], target, ones], axis=-1)
    rows = jnp.where(there[..., None], rows, 0.0)
    products = jnp.einsum(
      'gmi,gmj->gij', rows, rows, precision=jax.lax.Precision.HIGHEST
    )
    return total.at[owner].add(products), None

  side = hash_.patch**2 + 2
  start = jnp.zeros((found.count, side, side))
  parts = place.reshape(-1, CHUNK, GROUP), group_class.reshape(-1, CHUNK)
  return jax.lax.scan(add, start, parts)[0]


def solve(sums: jax.Array, hash_: Hash, *, ridge: float) -> jax.Array:
  """Solves for the filter of every bucket.

  Args:
    sums: [classes, n + 2, n + 2], see `products`, over all patches.
    hash_: how pixels are sorted.
    ridge: added to the diagonal of Q; the fewer patches a bucket has, the
      nearer its filter is to the one that changes nothing.

  Returns:
    float32 [buckets, n], the filters of p.
  """
  found = classes(hash_)
  q, v, _, _ = _equations(sums, hash_)
  filters = normal_equations.ridge_solve(q, v, ridge=ridge)
  inverse = jnp.asarray(np.argsort(found.order, axis=1))
  return jnp.take_along_axis(
    filters[found.of_bucket], inverse[found.position], axis=1
  )


def errors(
  sums: jax.Array, hash_: Hash, *, ridge: float
) -> tuple[jax.Array, jax.Array]:
  """Returns how well filters fit the patches that they are solved from.

  Args:
    sums, hash_, ridge: see `solve`.

  Returns:
    (mean squared error of the filtered patches, that of the patches as they
    are), float32 [] each.
  """
  q, v, squares, counts = _equations(sums, hash_)
  h = normal_equations.ridge_solve(q, v, ridge=ridge)
  # |t - h^T p|^2 summed; (q + ridge I) h = v makes it this.
  gain = (h * v).sum(axis=1) + ridge * (h * h).sum(axis=1)
  count = jnp.maximum(counts.sum(), 1.0)
  return (squares - gain).sum() / count, squares.sum() / count


def _equations(sums, hash_):
  """Returns Q, V, the sum of t^2 and the number of patches of every class.

  A bucket that is turned into itself has sums of one position of each patch
  only; they are averaged over all positions.
  """
  found, n = classes(hash_), hash_.patch**2
  tail = np.broadcast_to([n, n + 1], (8, 2))
  order = np.concatenate([found.order, tail], axis=1)
  total = jnp.zeros_like(sums)
  for turned, at in zip(order, found.turned_into_itself.T, strict=True):
    total += jnp.where(at[:, None, None], sums[:, turned][:, :, turned], 0.0)
  scale = found.turned_into_itself.sum(axis=1)[:, None, None]
  total = total / scale.astype(np.float32)
  return total[:, :n, :n], total[:, :n, n], total[:, n, n], total[:, n + 1, -1]


def apply(enlarged: jax.Array, filters: jax.Array, hash_: Hash) -> jax.Array:
  """Filters every pixel with the filter of its bucket.

  Args:
    enlarged: float32 [B, H, W] in [0, 1]. Beyond its border stands its nearest
      pixel.
    filters: [buckets, n], see `solve`.
    hash_: how pixels are sorted.

  Returns:
    float32 [B, H, W].
  """
  height, width = enlarged.shape[1:]
  radius = hash_.patch // 2
  number = buckets(enlarged, hash_)
  padded = jnp.pad(enlarged, ((0, 0), *[(radius, radius)] * 2), mode='edge')

  def add(total, tap):
    weights, row, column = tap
    there = jax.lax.dynamic_slice(
      padded, (0, row, column), (len(enlarged), height, width)
    )
    return total + weights[number] * (there - enlarged), None

  rows, columns = np.divmod(np.arange(hash_.patch**2), hash_.patch)
  taps = filters.T, jnp.asarray(rows), jnp.asarray(columns)
  return jax.lax.scan(add, enlarged, taps)[0]
