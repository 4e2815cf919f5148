"""Reads what is known of a block of a canvas: its low-res picture, enlarged."""

from typing import Any, NamedTuple

import numpy as np

from cdm.methods import lowres_conditioning
from cdm.ops import partial_resize, windows
from cdm.sampling import cascade
from cdm.sampling.canvas_plan import Plan
from cdm.sampling.drawing_stage import Stage

# The use of noise that augments, folded into the key of a picture; see
# `canvas_upscaler` for the others.
AUGMENT = 2


class Given(NamedTuple):
  """What is known of a block.

  Attributes:
    lowres: float32 [N, h, w, 3], augmented; None for any factor.
    upsampled: float32 [N, H, W, 3].
    start: the same of the clean picture, or None.
  """

  lowres: np.ndarray | None
  upsampled: np.ndarray
  start: np.ndarray | None


class Source:
  """The low-res pictures of a row of blocks."""

  def __init__(
    self,
    stage: Stage,
    settings: cascade.Settings,
    task: Any,
    plan: Plan,
    interval: windows.Interval,
  ):
    """Reads the rows that a row of blocks comes from.

    Args:
      stage, settings: the stage and its settings.
      task: the `canvas_upscaler.Task`.
      plan: how it is drawn.
      interval: the rows of the canvas.
    """
    self._stage, self._task, self._plan = stage, task, plan
    self.top = interval[0]
    self.height = interval[1] - interval[0]
    self._settings = settings
    self._axis = _Axis.of(
      self._stage, plan.cut, task.lowres.height, plan.height, interval
    )
    self._rows = task.lowres.rows(self._axis.first, self._axis.last)

  def columns(self, left: int, right: int) -> Given:
    """Returns what is known of a block: its columns [left, right)."""
    lowres, settings = self._stage.lowres, self._settings
    assert lowres is not None
    y = self._axis
    width = self._task.lowres.width
    x = _Axis.of(
      self._stage, self._plan.cut, width, self._plan.width, (left, right)
    )
    z_0 = z = self._rows[:, :, x.first : x.last]
    if settings.noised:
      top, side = self._task.origin
      eps = self._task.noise(
        (top + y.first, side + x.first),
        z.shape[1:3],
        AUGMENT,
        0,
        of=(self._task.lowres.height, width),
      )
      level = np.full(len(z), settings.level, np.float64)
      z = lowres_conditioning.augment_at(z_0, lowres, level=level, eps=eps)
      z = np.asarray(z, np.float32)
    start = None
    if cascade.starts(settings):
      start = _enlarged(z_0, y, x)
    low = None
    if y.lowres is not None:
      low = z[:, y.lowres][:, :, x.lowres]
    return Given(low, _enlarged(z, y, x), start)


class _Axis(NamedTuple):
  """Where an axis of a block comes from.

  Attributes:
    first, last: the low-res pixels that are read.
    lowres: int [h], those of the block among them; None for any factor.
    taps: how they are enlarged.
    enlarged: int [H], the pixels of the block among the enlarged ones.
  """

  first: int
  last: int
  lowres: np.ndarray | None
  taps: partial_resize.Taps
  enlarged: np.ndarray

  @classmethod
  def of(cls, stage, cut, length, whole, interval):
    """Returns where pixels [first, last) of a canvas come from.

    Beyond the end of the picture, its mirror image stands.

    Args:
      stage, cut: the stage, and how its pictures are cut.
      length: of the axis, in low-res pixels.
      whole: of the axis of the result.
      interval: (first, last).
    """
    first, last = interval
    enlarged = windows.mirrored(np.arange(first, last), whole)
    taps = partial_resize.taps(
      length,
      whole,
      int(enlarged.min()),
      int(enlarged.max()) + 1,
      stage.lowres.upsample,
    )
    enlarged = enlarged - enlarged.min()
    if cut.factor is None:
      return cls(taps.first, taps.last, None, taps, enlarged)
    low = windows.mirrored(
      np.arange(first // cut.factor, last // cut.factor), length
    )
    begin, end = min(taps.first, low.min()), max(taps.last, low.max() + 1)
    return cls(int(begin), int(end), low - begin, taps, enlarged)


def _enlarged(z, y: _Axis, x: _Axis):
  """Enlarges low-res pixels: [N, h, w, 3] -> [N, H, W, 3] of the block."""
  used = z[
    :,
    y.taps.first - y.first : y.taps.last - y.first,
    x.taps.first - x.first : x.taps.last - x.first,
  ]
  big = partial_resize.rectangle(used, y.taps, x.taps)
  return big[:, y.enlarged][:, :, x.enlarged]
