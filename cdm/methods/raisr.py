"""Super-resolves with filters chosen by the local gradients, [RAISR].

  u = upsample(lowres);  y = u + sum_j h_j(bucket) p_j         on the luma Y
  image = bicubic(lowres) + (y - Y(bicubic(lowres)))       in all three colours

The filters are fitted by least squares, see `raisr_filters`: `accumulate` adds
up the products of the patches of a batch, and `prepare` solves for the filters.
Colours are enlarged by bicubic, and only their common brightness is filtered.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from cdm.methods import lowres_conditioning, raisr_filters
from cdm.methods.base import Method
from cdm.ops import blur, census, normal_equations, pixels, resize

BLENDINGS = ('none', 'randomness', 'structure')
LUMA = (0.299, 0.587, 0.114)  # Y of R, G, B in BT.601


@dataclasses.dataclass(frozen=True)
class RaisrOptions:
  """The `method` section of a config.

  Attributes:
    patch, window, window_sigma, angles, strength_edges, coherence_edges: see
      `raisr_filters.Hash`.
    ridge: see `raisr_filters.solve`; for images in [0, 1].
    blending: what takes filtered pixels back towards those of the enlarged
      image, [RAISR] sec. IV: 'none', 'randomness' (where the neighbours of a
      pixel form no structure) or 'structure' (where the filter changed their
      structure, as sharpening does).
    sharpen: how much of the detail of the originals is added to them before
      the filters are fitted; 0 leaves them as they are. differs: [RAISR]
      sharpens with a method of its own.

  Raises:
    ValueError: a value is out of range; the message names its key.
  """

  patch: int = 11
  window: int = 9
  window_sigma: float = 2.0
  angles: int = 24
  strength_edges: tuple[float, ...] = (0.02, 0.05)
  coherence_edges: tuple[float, ...] = (0.25, 0.5)
  ridge: float = 0.1
  blending: str = 'none'
  sharpen: float = 0.0

  def __post_init__(self):
    if self.blending not in BLENDINGS:
      raise ValueError(
        f'method.blending is {self.blending!r}; known are {list(BLENDINGS)}.'
      )
    if self.ridge <= 0:
      raise ValueError(
        f'method.ridge is {self.ridge}; it must be above 0, so that buckets '
        'without patches have a filter.'
      )
    if self.sharpen < 0:
      raise ValueError(
        f'method.sharpen is {self.sharpen}; it must be 0 or above.'
      )
    self.hash(1)

  def hash(self, factor: int) -> raisr_filters.Hash:
    """Returns how pixels are sorted for a magnification."""
    return raisr_filters.Hash(
      factor=factor,
      patch=self.patch,
      window=self.window,
      window_sigma=self.window_sigma,
      angles=self.angles,
      strength_edges=tuple(self.strength_edges),
      coherence_edges=tuple(self.coherence_edges),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Raisr:
  """The filters of one magnification, and how they are fitted and applied.

  Attributes:
    options: the `method` section.
    image_size: H = W of the originals.
    lowres: how low-res images are made; its `upsample` enlarges them before
      they are filtered, for which [RAISR] takes 'bilinear'.

  Raises:
    ValueError: the low-res images are changed, which no filter here undoes, or
      the originals are smaller than a patch.
  """

  options: RaisrOptions
  image_size: int
  lowres: lowres_conditioning.Lowres

  def __post_init__(self):
    if self.lowres.augment != 'none':
      raise ValueError(
        f'lowres.augment is {self.lowres.augment!r}; RAISR is fitted to clean '
        "low-res images, so use 'none'."
      )
    least = 2 * (self.hash.reach + self.factor) + 1
    if self.image_size < least:
      raise ValueError(
        f'lowres.size is {self.lowres.size}, so images have {self.image_size} '
        f'pixels a side; RAISR needs {least} around a patch and its window.'
      )

  @property
  def factor(self) -> int:
    """The magnification."""
    return self.image_size // self.lowres.size

  @property
  def method(self) -> Method:
    """Its functions as a `Method`."""
    return Method(
      init=self.init,
      loss=None,
      sample=self.sample,
      prepare=self.prepare,
      accumulate=self.accumulate,
    )

  @functools.cached_property
  def hash(self) -> raisr_filters.Hash:
    """How pixels are sorted."""
    return self.options.hash(self.factor)

  @property
  def margin(self) -> int:
    """Low-res pixels on each side of a pixel on which its image depends."""
    resized = 2  # that bicubic reaches, the widest filter in use
    return -(-self.hash.reach // self.factor) + resized

  def init(self, key: jax.Array) -> dict:
    """Returns the sums over no patches; they do not depend on the key."""
    del key
    side = self.hash.patch**2 + 2
    shape = raisr_filters.classes(self.hash).count, side, side
    return {'sums': jnp.zeros(shape), 'rounding': jnp.zeros(shape)}

  def accumulate(
    self, params: dict, batch: dict[str, jax.Array]
  ) -> tuple[dict, dict[str, jax.Array]]:
    """Adds the patches of a batch of images to the sums.

    Args:
      params: the sums; `rounding` is what float32 has lost of them.
      batch: see `Method.loss`.

    Returns:
      (params, scalars): `loss` is the mean squared error of the filters on all
      patches so far, to which they are fitted; `loss_unfiltered` is that of
      the enlarged images.
    """
    x_0 = pixels.to_float(batch['image'])
    z_0 = lowres_conditioning.downsample(x_0, self.lowres)
    more = raisr_filters.products(
      self._enlarged(z_0), self._target(x_0), self.hash
    )
    sums, rounding = normal_equations.add_exactly(
      params['sums'], params['rounding'], more
    )
    left, before = raisr_filters.errors(
      sums + rounding, self.hash, ridge=self.options.ridge
    )
    scalars = {'loss': left, 'loss_unfiltered': before}
    return {'sums': sums, 'rounding': rounding}, scalars

  def prepare(self, params: dict) -> dict:
    """Returns {'filters': [buckets, patch^2]} of the sums."""
    sums = params['sums'] + params['rounding']
    filters = raisr_filters.solve(sums, self.hash, ridge=self.options.ridge)
    return {'filters': filters}

  def sample(
    self,
    params: dict,
    *,
    lowres: jax.Array,
    keys: jax.Array | None = None,
    label: jax.Array | None = None,
    level: jax.Array | None = None,
    stop_logsnr: float | None = None,
    tuned: None = None,
  ) -> jax.Array:
    """Super-resolves images of any size.

    Args:
      params: what `prepare` returns.
      lowres: [B, h, w, 3] float32 in [-1, 1].
      keys, label, level, stop_logsnr, tuned: without effect; there is nothing
        random about the filters.

    Returns:
      [B, h * factor, w * factor, 3] float32 in [-1, 1].
    """
    del keys, label, level, stop_logsnr, tuned
    size = tuple(self.factor * n for n in lowres.shape[1:3])
    coloured = resize.resize(lowres, size, method='bicubic')
    enlarged = self._enlarged(lowres)
    filtered = raisr_filters.apply(enlarged, params['filters'], self.hash)
    filtered = self._blended(enlarged, filtered)
    change = 2.0 * filtered - 1.0 - luma(coloured)  # on the scale [-1, 1]
    return jnp.clip(coloured + change[..., None], -1.0, 1.0)

  def _enlarged(self, z):
    """Returns the luma of enlarged low-res images, [B, H, W] in [0, 1]."""
    size = tuple(self.factor * n for n in z.shape[1:3])
    y = (luma(z)[..., None] + 1.0) / 2.0
    return resize.resize(y, size, method=self.lowres.upsample)[..., 0]

  def _target(self, x_0):
    """Returns the luma of originals, sharpened if asked for, in [0, 1]."""
    y = (luma(x_0) + 1.0) / 2.0
    if self.options.sharpen:
      sigma = jnp.ones(len(y))
      smooth = blur.gaussian_blur(y[..., None], sigma, size=5)[..., 0]
      y = y + self.options.sharpen * (y - smooth)
    return y

  def _blended(self, enlarged, filtered):
    if self.options.blending == 'none':
      return filtered
    if self.options.blending == 'randomness':
      weight = census.structure_weight(enlarged)
    else:
      weight = census.unchanged_weight(enlarged, filtered)
    return enlarged + weight * (filtered - enlarged)


def luma(x: jax.Array) -> jax.Array:
  """Returns the luma of RGB images [..., 3], on the same scale, [...]."""
  red, green, blue = LUMA
  return red * x[..., 0] + green * x[..., 1] + blue * x[..., 2]
