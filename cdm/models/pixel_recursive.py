"""Defines the network of pixel recursive super-resolution, [PRSR].

  p(y_s | x, y_<s) = softmax(A_s(x) + B_s(y_<s))

A, the conditioning network, sees the low-res image x: residual blocks, and a
transposed convolution wherever the size doubles. B, the prior, is a PixelCNN
over the high-res image y (see `pixelcnn`). Parameters are named

  conditioning {conv_in, block_x1_0, ..., deconv_x2, block_x2_0, ..., logits}
  prior {first_above, first_left, gated_0 {above, link, left, out}, ..., hidden,
         logits}

and fit images of any size.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from cdm.models import enlarging_resnet, layers, pixelcnn
from cdm.models.pixelcnn import COLOURS, LEVELS, PixelCNN, unit_scaled

# The least of each number of a network, and the most.
RANGES = {
  'features': (COLOURS, 65_536),
  'num_layers': (0, 1000),
  'hidden_features': (COLOURS, 65_536),
  'conditioning_features': (1, 65_536),
  'conditioning_blocks': (0, 1000),
  'norm_groups': (1, 65_536),
}


class ConditioningNetwork(nn.Module):
  """Predicts every sub-pixel from the low-res image alone.

  Attributes:
    magnification: H / h, a power of two.
    features: width; 32 in [PRSR].
    num_blocks: residual blocks at each size; 6 in [PRSR].
    norm_groups, norm_eps: of GroupNorm; see `group_norm.group_count`.
    dtype: dtype of computation; logits are float32.
  """

  magnification: int
  features: int
  num_blocks: int
  norm_groups: int
  norm_eps: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, lowres):
    """lowres: [B, h, w, 3] in [-1, 1] -> logits float32 [B, H, W, 3, 256]."""
    h = enlarging_resnet.enlarged_features(
      lowres,
      magnification=self.magnification,
      features=self.features,
      num_blocks=self.num_blocks,
      norm_groups=self.norm_groups,
      norm_eps=self.norm_eps,
      dtype=self.dtype,
    )
    # The logits start at zero, and so every level is as likely as any other.
    logits = layers.dense(
      COLOURS * LEVELS, kernel_init=layers.ZERO, name='logits'
    )
    h = logits(h)
    return h.reshape(*h.shape[:-1], COLOURS, LEVELS)


class PixelRecursive(nn.Module):
  """Both networks of [PRSR]; sizes as in its tables are the defaults.

  Attributes:
    magnification: H / h, a power of two.
    features: width of the prior.
    num_layers: gated layers of the prior after its first.
    hidden_features: width of the prior's layer before the logits.
    conditioning_features: width of the conditioning network.
    conditioning_blocks: its residual blocks at each size.
    norm_groups, norm_eps: of its GroupNorm; see `group_norm.group_count`.
    dtype: 'float32' or 'bfloat16', the dtype of computation. Parameters and
      logits are float32.
  """

  magnification: int
  features: int = 64
  num_layers: int = 20
  hidden_features: int = 1024
  conditioning_features: int = 32
  conditioning_blocks: int = 6
  norm_groups: int = 8
  norm_eps: float = 1e-5
  dtype: str = 'float32'

  # The network takes no labels.
  num_classes = None
  null_class = False

  def setup(self):
    self.conditioning = ConditioningNetwork(
      self.magnification,
      self.conditioning_features,
      self.conditioning_blocks,
      self.norm_groups,
      self.norm_eps,
      dtype=jnp.dtype(self.dtype),
    )
    self.prior = self._prior()

  def __call__(
    self, levels: jax.Array, *, lowres: jax.Array, train: bool
  ) -> tuple[jax.Array, jax.Array]:
    """Computes the logits of all sub-pixels of known images.

    Args:
      levels: [B, H, W, 3] in 0..255.
      lowres: [B, h, w, 3] in [-1, 1].
      train: as of every network; nothing depends on it here.

    Returns:
      (logits of the conditioning network A, logits of the prior B), both
      float32 [B, H, W, 3, 256].
    """
    return self.condition(lowres), self.prior(levels)

  def condition(self, lowres: jax.Array) -> jax.Array:
    """lowres: [B, h, w, 3] in [-1, 1] -> A, float32 [B, H, W, 3, 256]."""
    return self.conditioning(lowres)

  @nn.nowrap
  def walk(
    self,
    params: Any,
    lowres: jax.Array,
    pick: Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]],
  ) -> tuple[jax.Array, Any]:
    """Goes through the sub-pixels of images in their order, picking each.

    What the layers computed for earlier rows and pixels is kept, so a sub-pixel
    costs the features of one pixel, and an image a time that grows with the
    number of its pixels.

    Args:
      params: parameters of the network.
      lowres: [B, h, w, 3] in [-1, 1].
      pick: `(A + B float32 [B, 256], s int32 []) -> (levels int [B], notes)`
        for the sub-pixel s = 3 (i W + j) + channel; notes are any tree.

    Returns:
      (levels int32 [B, H, W, 3], notes [H, W, 3, ...]).
    """
    # Every layer works at every sub-pixel, so split parameters are gathered
    # once, before the loop.
    params = meta.unbox(params)
    conditioning: Any = self.apply(
      {'params': params}, lowres, method='condition'
    )
    prior, bound = self._prior(), {'params': params['prior']}
    b, height, width = conditioning.shape[:3]

    def one_row(carry, given):
      i, of_row = given  # of_row: [B, W, 3, 256]
      known, kept = carry
      above, kept = prior.apply(bound, known, kept, method='row')

      def one_sub_pixel(carry, n):
        pixels, kept = carry
        j, colour = n // COLOURS, n % COLOURS
        logits, kept = prior.apply(
          bound, j, above, pixels, kept, method='column'
        )
        logits += jax.lax.dynamic_index_in_dim(of_row, j, 1, keepdims=False)
        logits = jax.lax.dynamic_index_in_dim(logits, colour, 1, keepdims=False)
        level, notes = pick(logits, i * width * COLOURS + n)
        pixels = jax.lax.dynamic_update_slice(
          pixels,
          unit_scaled(level)[:, None, None],
          (0, j + pixelcnn.FIRST // 2, colour),
        )
        return (pixels, kept), (level.astype(jnp.int32), notes)

      left = prior.nothing_left(b, width)
      (pixels, _), (levels, notes) = jax.lax.scan(
        one_sub_pixel, left, jnp.arange(width * COLOURS)
      )
      margin = pixelcnn.FIRST // 2
      row = jnp.pad(pixels, ((0, 0), (0, margin), (0, 0)))[:, None]
      known = jnp.concatenate([known[:, 1:], row], axis=1)
      return (known, kept), (levels, notes)

    _, (levels, notes) = jax.lax.scan(
      one_row,
      prior.nothing_above(b, width),
      (jnp.arange(height), jnp.moveaxis(conditioning, 1, 0)),
    )
    levels = jnp.moveaxis(levels, 2, 0)  # [B, H, 3 W]
    notes = jax.tree.map(
      lambda x: x.reshape(height, width, COLOURS, *x.shape[2:]), notes
    )
    return levels.reshape(b, height, width, COLOURS), notes

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter.

    Normalisations and the layers of the logits are used in float32.

    Args:
      name: name of the parameter, such as 'prior/gated_0/left/kernel'.
    """
    *modules, _ = name.split('/')
    if modules[-1] == 'logits' or modules[-1].startswith('norm'):
      return jnp.dtype(jnp.float32)
    return jnp.dtype(self.dtype)

  @nn.nowrap
  def _prior(self):
    return PixelCNN(
      self.features,
      self.num_layers,
      self.hidden_features,
      dtype=jnp.dtype(self.dtype),
    )


def check(net: PixelRecursive) -> None:
  """Raises ValueError for a field that no network can have; it is named."""
  enlarging_resnet.check_fields(net, RANGES)
