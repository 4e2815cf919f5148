"""Enlarges a part of a photograph, as it is in the whole enlarged photograph.

A part is drawn with a margin around it. Its noise is that of its place in the
whole, and what degraded the photograph is estimated of the whole. So where the
scale is a whole number and the margin holds the reach of all evaluations of the
network, the pixels are those of the whole; else they differ little, most at the
border.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cdm.data.low_res_inputs import Degradation
from cdm.data.photographs.photograph import Photograph
from cdm.sampling import (
  enlarged_files,
  enlarged_size,
  picture_damage,
  picture_rows,
)
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlargement import Drawn, Enlargement

# Parts begin at multiples of it, low-res pixels: so do the squares of 8 that
# networks work on, at every whole scale.
UNIT = 8
# Low-res pixels around a part, at most and where the reach is not known. Ours:
# a part of 256 pixels with 32 around it costs 1.6 times as much as without.
MOST_MARGIN = 32
# What resizing and back-projection look at, low-res pixels.
_FILTERS = 6


class Part(NamedTuple):
  """A rectangle of a photograph, in its own pixels.

  Attributes:
    top, left, height, width: where it is.
  """

  top: int
  left: int
  height: int
  width: int

  def within(self, size: tuple[int, int]) -> 'Part':
    """Returns the part moved, and cut, into a photograph of (height, width)."""
    height, width = min(self.height, size[0]), min(self.width, size[1])
    top = min(max(0, self.top), size[0] - height)
    left = min(max(0, self.left), size[1] - width)
    return Part(top, left, height, width)

  def of(self, samples: np.ndarray) -> np.ndarray:
    """Returns the part of samples [H, W, ...]."""
    rows = slice(self.top, self.top + self.height)
    return samples[rows, self.left : self.left + self.width]


class PartDrawing:
  """Draws one part of a photograph, by several seeds and details.

  Attributes:
    size: (height, width) of the result.
  """

  def __init__(
    self,
    upscaler: CanvasUpscaler,
    one: Photograph,
    part: Part,
    settings: Settings,
  ):
    """Plans the drawing.

    Args:
      upscaler: the stage.
      one: the whole photograph.
      part: the part, within the photograph.
      settings: the scale, rounds of back-projection, label and damage; seed and
        detail come later.

    Raises:
      ValueError: the scale is impossible.
    """
    self._upscaler, self._one = upscaler, one
    self._part, self._settings = part, settings
    whole = one.samples.shape[:2]
    sizes = self._size(whole)
    self._scale = sizes.height / whole[0], sizes.width / whole[1]
    self._damage = picture_damage.of_picture(one, upscaler, settings.damage)
    self._rounds = picture_damage.rounds_of(
      one, sizes, self._damage, settings.back_projections
    )
    self.size = self._enlarged(part.height, part.width)
    self._around = self._with_margin(whole)
    self._cut = _only(one, self._around)

  @property
  def damage(self) -> Degradation:
    """What degraded the photograph."""
    return self._damage

  def num_windows(self, detail: float) -> int:
    """Returns the number of windows that one draw takes.

    Args:
      detail: see `Settings`.
    """
    return self._enlargement(detail).num_windows

  def bicubic(self) -> np.ndarray:
    """Returns the part, enlarged by interpolation alone; see `draw`."""
    size = self._size(self._cut.samples.shape[:2])
    colours = enlarged_files.colour(self._cut)[None]
    rows = picture_rows.ResizedRows(
      picture_rows.WholePictures(colours), size.height, size.width, 'bicubic'
    )
    bands = (band[0] for band in picture_rows.bands(rows))
    return self._finished(bands, size)

  def draw(
    self,
    number: int,
    seed: int,
    detail: float,
    on_windows: Callable[[int], object] = lambda count: None,
  ) -> np.ndarray:
    """Returns the enlarged part, [H, W, C] of the photograph's dtype.

    Args:
      number: number of the photograph, see `enlarged_jobs.number_of`.
      seed, detail: see `Settings`.
      on_windows: callback that gets the number of windows of each batch.
    """
    made = self._enlargement(detail)
    drawn = Drawn(
      seed=seed,
      numbers=[number],
      label=self._settings.label,
      back_projections=self._rounds,
      damage=[self._damage],
      on_windows=on_windows,
      origin=(self._around.top, self._around.left),
    )
    channels = made.upscaler.stage.channels
    colours = enlarged_files.colour(self._cut, channels)[None]
    bands = made.bands(picture_rows.WholePictures(colours), drawn)
    return self._finished((band[0] for band in bands), made.size)

  def _enlargement(self, detail):
    size = self._size(self._cut.samples.shape[:2])
    upscaler = dataclasses.replace(self._upscaler, detail=detail)
    return Enlargement.of(upscaler.fitted(size.passes), size)

  def _size(self, size):
    return enlarged_size.choose(
      size,
      self._upscaler.factor,
      self._settings.asked,
      any_factor=self._upscaler.takes_any_factor,
    )

  def _enlarged(self, *pixels):
    """Returns lengths along height and width, or places, of the result."""
    return tuple(
      round(n * scale) for n, scale in zip(pixels, self._scale, strict=True)
    )

  def _with_margin(self, whole):
    """Returns the part that is drawn, which has one size wherever it is."""
    reach = self._upscaler.cut.reach * self._upscaler.evaluations
    needed = math.ceil(reach / min(self._scale)) + _FILTERS
    margin = min(needed, MOST_MARGIN) if reach else MOST_MARGIN
    margin = -(-margin // UNIT) * UNIT
    part = self._part
    # One unit more than is needed: the start is moved to a multiple of it.
    around = Part(
      part.top - margin,
      part.left - margin,
      part.height + 2 * margin + UNIT,
      part.width + 2 * margin + UNIT,
    ).within(whole)
    top, left = (n // UNIT * UNIT for n in (around.top, around.left))
    height, width = around.height, around.width
    if around.top + height == whole[0]:
      height = whole[0] - top
    if around.left + width == whole[1]:
      width = whole[1] - left
    return Part(top, left, height, width)

  def _finished(self, rows, size):
    """Returns the rows of the part alone, as they would be written."""
    made = list(enlarged_files.finished(rows, self._cut, size))
    top, left = self._enlarged(
      self._part.top - self._around.top, self._part.left - self._around.left
    )
    height, width = self.size
    whole = np.concatenate(made)
    return whole[top : top + height, left : left + width]


def _only(one, part):
  """Returns a photograph of a part of another."""
  alpha = None if one.alpha is None else part.of(one.alpha)
  return one._replace(samples=part.of(one.samples), alpha=alpha)
