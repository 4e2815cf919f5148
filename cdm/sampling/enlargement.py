"""Enlarges pictures to any size: passes of a stage, resizes, back-projection.

  low-res -> [stage -> resize]  for each pass  -> back-projection -> bands

Everything is pulled by bands of rows, so that memory does not grow with the
height of a picture, and with its width only as a row of blocks does.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cdm.data.low_res_inputs import Degradation
from cdm.sampling import (
  canvas_plan,
  drawing_batch,
  drawing_cost,
  enlarged_size,
  picture_rows,
)
from cdm.sampling.canvas_upscaler import CanvasUpscaler, Task
from cdm.sampling.wrapped_picture import Torus


class Drawn(NamedTuple):
  """How pictures are drawn, beside their size.

  Attributes:
    seed: seed of the run.
    numbers: number of each picture among all, which seeds it.
    label: class of all pictures, or None.
    back_projections: rounds of back-projection at the end; it copies noise and
      damage of the low-res picture back, so that it is for clean ones.
    damage: see `Task`; of the first pass, whose result is clean.
    on_windows: callback that gets the number of windows of each evaluated
      batch.
    torus: where the low-res pictures repeat, see `wrapped_picture`; it takes
      one pass.
    origin: see `Task`; of the first pass.
  """

  seed: int = 0
  numbers: Sequence[int] = (0,)
  label: int | None = None
  back_projections: int = 1
  damage: Sequence[Degradation] | None = None
  on_windows: Callable[[int], object] = lambda count: None
  torus: Torus | None = None
  origin: tuple[int, int] = (0, 0)


class Enlargement(NamedTuple):
  """How pictures of one size become larger.

  Attributes:
    upscaler: the stage.
    size: the size that they get.
    plans: how each pass is drawn.
  """

  upscaler: CanvasUpscaler
  size: enlarged_size.Size
  plans: tuple[canvas_plan.Plan, ...]

  @classmethod
  def of(
    cls,
    upscaler: CanvasUpscaler,
    size: enlarged_size.Size,
    *,
    count: int = 1,
    memory: int = canvas_plan.MEMORY,
    at_once: int | None = None,
  ) -> 'Enlargement':
    """Plans how pictures are enlarged.

    Args:
      upscaler: the stage.
      size: what `enlarged_size.choose` returns.
      count: number of pictures that are drawn together.
      memory: see `canvas_plan.plan`.
      at_once: windows of a batch, see `CanvasUpscaler.plan`; None takes what
        suits the last pass, the largest.
    """
    plan = functools.partial(upscaler.plan, count=count, memory=memory)
    if at_once is None:
      at_once = plan(size.passes[-1]).at_once
    plans = tuple(plan(made, at_once=at_once) for made in size.passes)
    return cls(upscaler, size, plans)

  @property
  def num_windows(self) -> int:
    """Windows that the network is given in all passes."""
    return sum(plan.num_windows for plan in self.plans)

  @property
  def is_exact(self) -> bool:
    """Whether blocks make the same picture as a drawing of the whole."""
    return all(plan.is_exact for plan in self.plans)

  @property
  def flops(self) -> float:
    """FLOPs of all evaluations of the network, which is traced for it.

    The stage must have been built from a config.
    """
    (cost,) = drawing_cost.of_stages([self.upscaler.stage])
    windows = sum(plan.num_windows / plan.evaluations for plan in self.plans)
    return windows * self.upscaler.window_share * cost['flops']

  @property
  def bytes(self) -> int:
    """Memory of the host that drawing occupies, an estimate; a collective.

    It counts the network only where it runs on the CPU. The low-res pictures
    and the program itself are not counted.
    """
    total = sum(plan.bytes for plan in self.plans)
    stage = self.upscaler.stage
    if drawing_batch.device_bytes(stage.mesh) is None:
      total += drawing_batch.parameter_bytes(stage.params)
      images = self.plans[0].at_once * self.upscaler.window_share
      total += round(images * drawing_batch.image_bytes(stage))
    return total

  def bands(
    self, lowres: picture_rows.Rows, drawn: Drawn
  ) -> Iterator[np.ndarray]:
    """Yields the enlarged pictures by bands, from the top to the bottom.

    Nothing is drawn before the first band is asked for. With several processes,
    all must take all bands.

    Args:
      lowres: the low-res pictures.
      drawn: how they are drawn.

    Returns:
      float32 [N, n, W, 3], in [-1, 1] but for an overshoot; see
      `picture_rows.levels`.
    """
    assert (lowres.height, lowres.width) == self.size.inputs[0]
    assert self.upscaler.stage.lowres is not None
    down = self.upscaler.stage.lowres.downsample
    ends = [*self.size.inputs[1:], (self.size.height, self.size.width)]
    x = lowres
    for turn, (plan, end) in enumerate(zip(self.plans, ends, strict=True)):
      task = Task(
        lowres=x,
        numbers=drawn.numbers,
        seed=drawn.seed,
        turn=turn,
        label=drawn.label,
        damage=None if turn else drawn.damage,
        on_windows=drawn.on_windows,
        channels=self.upscaler.stage.channels,
        torus=drawn.torus,
        origin=(
          round(drawn.origin[0] * x.height / lowres.height),
          round(drawn.origin[1] * x.width / lowres.width),
        ),
      )
      drawing = self.upscaler.draw(task, plan)
      x = picture_rows.StreamedRows(drawing, plan.height, plan.width)
      if (x.height, x.width) != end:
        x = picture_rows.ResizedRows(x, *end, down)
    for _ in itertools.repeat(None, drawn.back_projections):
      x = picture_rows.BackProjectedRows(x, lowres, down=down, up='bicubic')
    return picture_rows.bands(x)
