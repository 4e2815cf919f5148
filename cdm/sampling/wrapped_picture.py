"""Enlarges textures that repeat, so that they repeat without a seam.

A picture that wraps is continued by itself on all sides, as far as the network
looks, and what came of the margin is cut off again. Noise repeats with the
picture, so that a pixel of the margin is drawn as the pixel that it repeats.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cdm.data.photographs.photograph import Photograph
from cdm.ops.noise_plane import NoisePlane
from cdm.sampling.enlarged_size import Size

# Low-res pixels that filters of resizes and of back-projection look at.
_FILTERS = 8


class Torus(NamedTuple):
  """Where a picture repeats.

  Attributes:
    margin: (rows, columns) before the first pixel of the picture itself.
    period: (height, width) of the picture itself.
  """

  margin: tuple[int, int]
  period: tuple[int, int]

  def scaled(self, size: tuple[int, int], given: tuple[int, int]) -> 'Torus':
    """Returns the same in pixels of a larger picture.

    Args:
      size: (height, width) of it, with its margins.
      given: the same of what `self` is of.
    """
    return Torus(
      *(
        (n[0] * size[0] // given[0], n[1] * size[1] // given[1])
        for n in (self.margin, self.period)
      )
    )


class Wrapped(NamedTuple):
  """How a picture that wraps is drawn.

  Attributes:
    torus: in low-res pixels.
    size: what is drawn, with margins.
  """

  torus: Torus
  size: Size

  @classmethod
  def of(
    cls, given: tuple[int, int], size: Size, reach: int, evaluations: int
  ) -> 'Wrapped':
    """Chooses the margins.

    Args:
      given: (height, width) of the low-res picture.
      size: what it becomes, without margins.
      reach: pixels of the result around a pixel on which an evaluation of the
        network depends.
      evaluations: their number.

    Raises:
      ValueError: it takes more than one pass to reach the size.
    """
    if len(size.passes) > 1:
      raise ValueError(
        '--wrap: this size takes more than one pass through the stage; enlarge '
        'in two commands, the second with --wrap too.'
      )
    goal = (size.height, size.width)
    margin = tuple(
      _margin(n, whole, reach * evaluations)
      for n, whole in zip(given, goal, strict=True)
    )
    torus = Torus((margin[0], margin[1]), given)

    def with_margins(pixels):
      y, x = (
        side + 2 * side * m // n
        for side, m, n in zip(pixels, margin, given, strict=True)
      )
      return y, x

    height, width = with_margins(goal)
    return cls(
      torus,
      Size(
        height,
        width,
        (with_margins(given),),
        (with_margins(size.passes[0]),),
        size.warning,
      ),
    )

  def padded(self, one: Photograph) -> Photograph:
    """Returns a picture with its margins.

    Args:
      one: the picture.
    """
    margin = [(n, n) for n in self.torus.margin]
    samples = np.pad(one.samples, (*margin, (0, 0)), mode='wrap')
    alpha = one.alpha
    if alpha is not None:
      alpha = np.pad(alpha, margin, mode='wrap')
    return one._replace(samples=samples, alpha=alpha)

  def cut(self, bands: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the rows of the result without its margins.

    Args:
      bands: [n, W, C], from the top to the bottom; all are taken.
    """
    (top, left), (height, width) = self.torus.scaled(
      (self.size.height, self.size.width), self.size.inputs[0]
    )
    first = 0
    for band in bands:
      inside = band[max(0, top - first) : max(0, top + height - first)]
      first += len(band)
      if len(inside):
        yield inside[:, left : left + width]


def _margin(length, goal, reach):
  """Returns the low-res pixels of a margin, whole pixels of the result too."""
  step = length // math.gcd(length, goal)
  least = math.ceil(reach * length / goal) + _FILTERS
  return -(-least // step) * step


def noise(
  plane: NoisePlane,
  corner: tuple[int, int],
  size: tuple[int, int],
  torus: Torus | None,
  channels: int,
) -> np.ndarray:
  """Returns noise of a rectangle, float32 [h, w, C].

  Args:
    plane: the noise.
    corner: (top, left) of the rectangle.
    size: (h, w) of it.
    torus: where it repeats; None for nowhere.
    channels: C.
  """
  if torus is None:
    return plane.rectangle(*corner, *size, channels=channels)
  rows, columns = (
    _runs(first, n, margin, period)
    for first, n, margin, period in zip(
      corner, size, torus.margin, torus.period, strict=True
    )
  )
  return np.concatenate(
    [
      np.concatenate(
        [
          plane.rectangle(y, x, height, width, channels=channels)
          for x, width in columns
        ],
        axis=1,
      )
      for y, height in rows
    ]
  )


def _runs(first, count, margin, period):
  """Returns [(first pixel, count), ...], where an axis of a torus is cut."""
  found, end = [], first + count
  while first < end:
    place = (first - margin) % period
    length = min(period - place, end - first)
    found.append((place, length))
    first += length
  return found
