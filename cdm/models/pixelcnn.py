"""Defines the PixelCNN of pixel recursive super-resolution, the prior.

  log p(y) = sum_s log softmax(B_s(y_<s))_{y_s},   s = 3 (i W + j) + channel

Sub-pixels come row by row, pixel by pixel and red, green, blue within a pixel
([PixelRNN] sec. 2). Two stacks of features let every pixel see all that is
above and left of it, without a blind spot ([PixelCNN] sec. 2.2):

  above_l(i, j)  sees the rows above row i, of which all is known
  left_l(i, j)   sees above_l(i, j), the row left of j, and colours before its
                 own in the pixel itself

Each layer gates both: tanh(a) sigmoid(b), [PixelCNN] eq. 2. A k x k masked
convolution ([PRSR] has 7 x 7, then 5 x 5) is here its rows above the centre in
one stack and its taps left of the centre in the other.

Features of the second stack belong to a colour each, in thirds: red, green,
blue. Within a pixel a feature sees those of its own colour and earlier ones
(mask B), and in the first layer, whose input are the colours themselves,
earlier ones only (mask A), [PixelRNN] sec. 3.4.

The same layers work in two ways, which differ only in where they take the
neighbours of a pixel from: `__call__` shifts whole images, for training;
`row` and `column` take what is kept of earlier rows and pixels, so that a new
sub-pixel costs one column of features (see `PixelRecursive.walk`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cdm.models import layers, precision

COLOURS = 3
LEVELS = 256  # of a sub-pixel
FIRST, LATER = 7, 5  # sides of the masked windows, [PRSR]


def unit_scaled(levels: jax.Array) -> jax.Array:
  """Maps levels 0..255 to float32 in [-1, 1]."""
  return (2.0 * jnp.asarray(levels, jnp.float32) - 255.0) * np.float32(1 / 255)


class ColourDense(nn.Module):
  """A masked convolution over a pixel and the pixels left of it.

  Attributes:
    features: width of the output, in thirds that belong to red, green, blue.
    strict: True is mask A, by which a colour does not see itself in the pixel;
      False is mask B.
    gates: number of outputs of that width, side by side.
  """

  features: int
  strict: bool = False
  gates: int = 1
  kernel_init: Any = layers.INIT
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, taps):
    """taps: [..., k, C], the pixel itself last -> [..., gates * features]."""
    k, c = taps.shape[-2:]
    width = self.gates * self.features
    kernel = self.param('kernel', self.kernel_init, (k, c, width))
    bias = self.param('bias', nn.initializers.zeros, (width,))
    kernel = kernel.astype(self.dtype) * self._mask(k, c)
    y = jnp.einsum(
      '...kc,kcf->...f',
      taps.astype(self.dtype),
      kernel,
      precision=precision.of(self.dtype),
    )
    return y + jnp.reshape(bias.astype(self.dtype), (1,) * (y.ndim - 1) + (-1,))

  @nn.nowrap
  def _mask(self, k, c):
    """Returns [k, c, width], 1 where an output may see an input, else 0."""
    given, own = (
      colours(c)[:, None],
      np.tile(colours(self.features), self.gates),
    )
    mask = np.ones((k, c, len(own)), np.float32)
    mask[-1] = given < own if self.strict else given <= own
    return jnp.asarray(mask, self.dtype)


def colours(features: int) -> np.ndarray:
  """Returns int [features], the colour that each feature belongs to."""
  return np.arange(features) * COLOURS // features


class GatedLayer(nn.Module):
  """One layer of both stacks, [PixelCNN] fig. 2."""

  features: int
  dtype: Any = jnp.float32

  def setup(self):
    self.above = nn.Conv(
      2 * self.features,
      (LATER // 2 + 1, LATER),
      padding='VALID',
      kernel_init=layers.INIT,
      dtype=self.dtype,
      precision=precision.of(self.dtype),
    )
    self.link = nn.Dense(
      2 * self.features,
      kernel_init=layers.INIT,
      dtype=self.dtype,
      precision=precision.of(self.dtype),
    )
    self.left = ColourDense(self.features, gates=2, dtype=self.dtype)
    self.out = ColourDense(self.features, dtype=self.dtype)

  def rows(self, above):
    """Computes the stack of the rows above.

    Args:
      above: [B, n + 2, W + 4, F], with a margin of 2 above, left and right.

    Returns:
      (the layer's output [B, n, W, F], its link to the other stack
      [B, n, W, 2 F]).
    """
    x = self.above(above)
    return _gate(x), self.link(x)

  def pixels(self, taps, link):
    """taps: [..., 3, F], link: [..., 2 F] -> [..., F], pixels of one row."""
    x = _gate(self.left(taps) + link)
    return taps[..., -1, :] + self.out(x[..., None, :])


class PixelCNN(nn.Module):
  """A gated PixelCNN over images of 256 levels.

  Attributes:
    features: width of both stacks; 64 in [PRSR].
    num_layers: gated layers after the first; 20 in [PRSR].
    hidden_features: width of the layer before the logits; 1024 in [PRSR].
    dtype: dtype of computation; logits are float32.
  """

  features: int
  num_layers: int
  hidden_features: int
  dtype: Any = jnp.float32

  def setup(self):
    self.first_above = nn.Conv(
      self.features,
      (FIRST // 2, FIRST),
      padding='VALID',
      kernel_init=layers.INIT,
      dtype=self.dtype,
      precision=precision.of(self.dtype),
    )
    self.first_left = ColourDense(self.features, strict=True, dtype=self.dtype)
    self.gated = [
      GatedLayer(self.features, dtype=self.dtype)
      for _ in range(self.num_layers)
    ]
    self.hidden = ColourDense(self.hidden_features, dtype=self.dtype)
    # The logits start at zero, and so every level is as likely as any other.
    self.logits = ColourDense(COLOURS * LEVELS, kernel_init=layers.ZERO)

  def __call__(self, levels):
    """levels: [B, H, W, 3] in 0..255 -> logits float32 [B, H, W, 3, 256]."""
    x = unit_scaled(levels)
    margin = FIRST // 2
    # One row less at the bottom: a pixel sees the rows above its own.
    above = self.first_above(_with_margin(x, margin)[:, :-1])
    left = above + self.first_left(_taps(x, margin + 1))
    for layer in self.gated:
      above, link = layer.rows(_with_margin(above, LATER // 2))
      left = layer.pixels(_taps(left, LATER // 2 + 1), link)
    return self.classify(left)

  def classify(self, left):
    """left: [..., F], the last layer's -> logits float32 [..., 3, 256]."""
    x = nn.relu(self.hidden(left[..., None, :]))
    y = self.logits(x[..., None, :])
    return y.reshape(*y.shape[:-1], COLOURS, LEVELS)

  def row(self, known, kept):
    """Computes all that a row needs of the rows above it.

    Args:
      known: [B, 3, W + 6, 3], the last 3 rows in [-1, 1], with a margin of
        zeros.
      kept: for each layer [B, 2, W + 4, F], its input of the last 2 rows.

    Returns:
      (`(first layer's output [B, W, F], link of each layer [B, W, 2 F])` for
      `column`, `kept` of the next row).
    """
    above = first = self.first_above(known)  # [B, 1, W, F]
    links, next_kept = [], []
    for layer, rows in zip(self.gated, kept, strict=True):
      newest = _with_margin(above, LATER // 2)[:, -1:]
      rows = jnp.concatenate([rows, newest], axis=1)  # [B, 3, W + 4, F]
      above, link = layer.rows(rows)
      links.append(link[:, 0])
      next_kept.append(rows[:, 1:])
    return (first[:, 0], links), next_kept

  def column(self, j, row, pixels, kept):
    """Computes the features of one pixel.

    Args:
      j: int [], the pixel's place in its row.
      row: what `row` returned for this row.
      pixels: [B, W + 3, 3], this row's pixels in [-1, 1] after a margin of
        zeros; those before the next sub-pixel are known.
      kept: for each layer [B, W + 2, F], its input in this row after a margin
        of zeros; those of pixels before j are known.

    Returns:
      (logits float32 [B, 3, 256], of which those up to the next sub-pixel's
      colour are right; `kept` with pixel j in it).
    """
    above, links = row
    width = FIRST // 2 + 1
    taps = jax.lax.dynamic_slice_in_dim(pixels, j, width, axis=1)
    left = _at(above, j) + self.first_left(taps)  # [B, F]
    width = LATER // 2 + 1
    next_kept = []
    for layer, link, inputs in zip(self.gated, links, kept, strict=True):
      inputs = jax.lax.dynamic_update_index_in_dim(
        inputs, left.astype(inputs.dtype), j + width - 1, axis=1
      )
      taps = jax.lax.dynamic_slice_in_dim(inputs, j, width, axis=1)
      left = layer.pixels(taps, _at(link, j))
      next_kept.append(inputs)
    return self.classify(left), next_kept

  @nn.nowrap
  def nothing_above(self, b: int, width: int) -> tuple[jax.Array, list]:
    """Returns (`known`, `kept`) of `row` for the first row: zeros."""
    known = jnp.zeros((b, FIRST // 2, width + 2 * (FIRST // 2), COLOURS))
    shape = (b, LATER // 2, width + 2 * (LATER // 2), self.features)
    return known, [jnp.zeros(shape, self.dtype)] * self.num_layers

  @nn.nowrap
  def nothing_left(self, b: int, width: int) -> tuple[jax.Array, list]:
    """Returns (`pixels`, `kept`) of `column` for a row's first pixel: zeros."""
    pixels = jnp.zeros((b, width + FIRST // 2, COLOURS))
    shape = (b, width + LATER // 2, self.features)
    return pixels, [jnp.zeros(shape, self.dtype)] * self.num_layers


def _gate(x):
  """x: [..., 2 F] -> [..., F], [PixelCNN] eq. 2."""
  a, b = jnp.split(x, 2, axis=-1)
  return jnp.tanh(a) * jax.nn.sigmoid(b)


def _with_margin(x, n):
  """x: [B, H, W, C] -> [B, n + H, n + W + n, C], with zeros around."""
  return jnp.pad(x, ((0, 0), (n, 0), (n, n), (0, 0)))


def _taps(x, n):
  """x: [B, H, W, C] -> [B, H, W, n, C]: n - 1 pixels to the left, the pixel."""
  width = x.shape[2]
  x = jnp.pad(x, ((0, 0), (0, 0), (n - 1, 0), (0, 0)))
  return jnp.stack([x[:, :, k : k + width] for k in range(n)], axis=3)


def _at(x, j):
  """x: [B, W, C], j: [] -> [B, C]."""
  return jax.lax.dynamic_index_in_dim(x, j, axis=1, keepdims=False)
