"""Super-resolves pictures of any size with a stage, window by window.

See `methods.canvas_drawing` for how windows are joined, and `canvas_plan` for
how a picture is cut. The network is one program of one shape, whatever the
picture; everything else runs on the host, step by step.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from cdm.data import low_res_inputs
from cdm.data.low_res_inputs import Degradation
from cdm.diffusion import sampler_steps
from cdm.distributed import device_mesh
from cdm.methods.canvas_drawing import Canvas, Views
from cdm.ops import windows
from cdm.ops.noise_plane import NoisePlane
from cdm.sampling import canvas_plan, cascade, picture_rows, wrapped_picture
from cdm.sampling.canvas_plan import Plan
from cdm.sampling.canvas_source import Source
from cdm.sampling.drawing_stage import Stage
from cdm.sampling.one_ahead import one_ahead
from cdm.sampling.wrapped_picture import Torus

# The uses of noise, folded into the key of a picture; 2 is that of
# `canvas_source`.
START, STEP = 0, 1


class NotFinite(ValueError):
  """A network gave values that are not finite."""


class Task(NamedTuple):
  """Pictures of one size that are drawn together.

  Attributes:
    lowres: the low-res pictures.
    numbers: number of each among all pictures, which seeds it.
    seed: seed of the run.
    turn: number of the pass, if the result is enlarged again.
    label: class of all pictures, or None.
    damage: what degraded each, as a method that enlarges by any factor is told
      it; None for clean pictures.
    on_windows: callback that gets the number of windows of each evaluated
      batch.
    channels: C of the pictures.
    torus: where noise repeats, as low-res pictures that wrap do with their
      margins; None for nowhere.
    origin: (top, left) of the low-res pictures in larger ones, whose noise they
      get there.
  """

  lowres: picture_rows.Rows
  numbers: Sequence[int] = (0,)
  seed: int = 0
  turn: int = 0
  label: int | None = None
  damage: Sequence[Degradation] | None = None
  on_windows: Callable[[int], object] = lambda count: None
  channels: int = 3
  torus: Torus | None = None
  origin: tuple[int, int] = (0, 0)

  def noise(
    self,
    corner: tuple[int, int],
    size: tuple[int, int],
    *use: int,
    of: tuple[int, int],
  ) -> np.ndarray:
    """Returns noise of a rectangle of every picture, float32 [N, h, w, C].

    Args:
      corner: (top, left).
      size: (h, w).
      use: what it is used for.
      of: (height, width) of the picture that the rectangle lies in.
    """
    path = (self.turn, *use)
    torus = self.torus
    if torus is not None:
      torus = torus.scaled(of, (self.lowres.height, self.lowres.width))
    return np.stack(
      [
        wrapped_picture.noise(
          NoisePlane(self.seed, number, path),
          corner,
          size,
          torus,
          self.channels,
        )
        for number in self.numbers
      ]
    )


@dataclasses.dataclass(frozen=True)
class CanvasUpscaler:
  """Super-resolves pictures of any size with one stage.

  Attributes:
    stage: the stage, whose method draws canvases.
    cut: how pictures are cut into windows.
    batch_size: windows that are evaluated at once, at most, over all devices.
    program: evaluates a batch of windows.
    settings: those of the stage, see `cascade.settings_of`.
    detail: see `canvas_drawing.Canvas`.
  """

  stage: Stage
  cut: canvas_plan.Cut
  batch_size: int
  program: Callable[..., dict[str, Any]]
  settings: cascade.Settings
  detail: float = 1.0

  @classmethod
  def of(
    cls,
    stage: Stage,
    *,
    batch_size: int,
    overlap: float = canvas_plan.OVERLAP,
    programs: dict[Any, Any] | None = None,
  ) -> Self:
    """Makes an upscaler of a stage.

    Args:
      stage: a super-resolution stage.
      batch_size: see the class.
      overlap: see `canvas_plan.cut_of`.
      programs: compiled programs of stages with the same `program`, to which
        that of this stage is added.

    Raises:
      ValueError: the method of the stage draws no canvases.
    """
    if stage.canvas is None:
      raise ValueError(
        f'The method of stage {stage.name!r} draws pictures of one size only; '
        'use a diffusion model or a regression.'
      )
    programs = {} if programs is None else programs
    key = ('canvas', object() if stage.program is None else stage.program)
    if key not in programs:
      programs[key] = _jit_windows(stage.without_params())
    cut = canvas_plan.cut_of(stage, overlap=overlap)
    settings = cascade.settings_of(stage)
    return cls(stage, cut, batch_size, programs[key], settings)

  def fitted(self, sizes: Sequence[tuple[int, int]]) -> Self:
    """Returns the upscaler with the windows that suit some results best.

    Only a method that enlarges by any factor takes windows of any size.

    Args:
      sizes: (height, width) of each result.
    """
    assert self.stage.canvas is not None
    stated = self.stage.canvas.any_factor
    if stated is None or not sizes:
      return self
    return dataclasses.replace(self, cut=canvas_plan.fitting(stated, sizes))

  @property
  def takes_any_factor(self) -> bool:
    """Whether a pass may enlarge by less than `factor`."""
    return self.cut.factor is None

  @property
  def factor(self) -> int:
    """How far a pass enlarges, at most."""
    assert self.stage.lowres is not None
    return self.stage.image_size // self.stage.lowres.size

  @property
  def window_share(self) -> float:
    """How many images of the stage a window is worth."""
    return (self.cut.size / self.stage.image_size) ** 2

  @property
  def most_at_once(self) -> int:
    """Windows that are evaluated at once, at most, over all devices."""
    return max(1, int(self.batch_size / self.window_share))

  @property
  def evaluations(self) -> int:
    """How often a sampler evaluates a window, guidance counted once."""
    assert self.stage.canvas is not None
    steps = getattr(self.settings.tuned, 'steps', None)
    if steps is None:
      return self.stage.evaluations
    drawn = len(sampler_steps.levels_of(steps))
    if not self.stage.canvas.draws_mean:
      return drawn
    return 1 + drawn if self.detail else 1

  def plan(
    self,
    size: tuple[int, int],
    *,
    count: int = 1,
    memory: int = canvas_plan.MEMORY,
    at_once: int | None = None,
  ) -> Plan:
    """Plans how pictures are drawn, see `canvas_plan.plan`.

    Args:
      size: (height, width) of a result.
      count: number of pictures that are drawn together.
      memory: see there.
      at_once: windows of a batch, for a program that serves other pictures
        too; None takes what suits these.
    """
    planned = canvas_plan.plan(
      self.cut,
      size,
      evaluations=self.evaluations,
      at_once=at_once or 1,
      count=count,
      memory=memory,
    )
    if at_once is None:
      at_once = canvas_plan.windows_at_once(
        [planned.block_windows], self.most_at_once, self.stage.mesh
      )
    return planned._replace(at_once=at_once)

  def draw(self, task: Task, plan: Plan) -> Iterator[np.ndarray]:
    """Yields the super-resolved pictures, by bands from the top to the bottom.

    With several processes, all must draw the same pictures in step.

    Args:
      task: the pictures.
      plan: what `plan` returns for their size and number.

    Returns:
      float32 [N, n, W, 3], in [-1, 1] but for an overshoot.

    Raises:
      NotFinite: so are the values of the network.
    """
    assert len(task.numbers) == plan.count
    rows, columns = (
      [(of[i][0], of[j - 1][1]) for i, j in blocks]
      for of, blocks in (
        (plan.rows, plan.block_rows),
        (plan.columns, plan.block_columns),
      )
    )
    row_weights, of_rows = plan.weights(plan.rows, plan.block_rows)
    column_weights, of_columns = plan.weights(plan.columns, plan.block_columns)
    channels = self.stage.channels
    carried = np.zeros((plan.count, 0, columns[-1][1], channels), np.float32)
    for i, (top, bottom) in enumerate(rows):
      shape = (plan.count, bottom - top, columns[-1][1], channels)
      total = np.zeros(shape, np.float32)
      total[:, : carried.shape[1]] = carried
      source = Source(self.stage, self.settings, task, plan, (top, bottom))
      for j, (left, right) in enumerate(columns):
        inner = _Joined(
          plan.rows[slice(*plan.block_rows[i])],
          plan.columns[slice(*plan.block_columns[j])],
          of_rows[i],
          of_columns[j],
        )
        x = self._draw_block(task, plan, source, inner)
        x *= row_weights[i][:, None, None]
        x *= column_weights[j][:, None]
        total[:, :, left:right] += x
      last = i + 1 == len(rows)
      done = plan.height - top if last else rows[i + 1][0] - top
      carried = total[:, done:].copy()
      for first in range(0, done, picture_rows.BAND):
        end = min(first + picture_rows.BAND, done)
        yield total[:, first:end, : plan.width].copy()
      del total, source

  def _draw_block(self, task, plan, source, joined):
    """Draws one block from noise to the end: float32 [N, H, W, 3]."""
    left, right = joined.columns[0][0], joined.columns[-1][1]
    low, whole = task.lowres, (plan.height, plan.width)
    corner = (
      source.top + round(task.origin[0] * plan.height / low.height),
      left + round(task.origin[1] * plan.width / low.width),
    )
    size = (source.height, right - left)
    given = source.columns(left, right)
    views = _Windows(self, task, plan, given, joined)
    assert self.stage.canvas is not None  # `of` refuses such a stage
    canvas = Canvas(
      upsampled=given.upsampled,
      start=given.start,
      start_noise=lambda: task.noise(corner, size, START, 0, of=whole),
      step_noise=lambda j: jnp.asarray(
        task.noise(corner, size, STEP, j, of=whole)
      ),
      detail=self.detail,
    )
    return np.array(
      self.stage.canvas.draw(views.evaluate, canvas, self.settings.tuned)
    )


class _Joined(NamedTuple):
  """The windows of a block.

  Attributes:
    rows, columns: the windows along each axis.
    row_weights, column_weights: what they count, float32 [S] for each.
  """

  rows: list[windows.Interval]
  columns: list[windows.Interval]
  row_weights: list[np.ndarray]
  column_weights: list[np.ndarray]


class _Windows:
  """Evaluates the network on the windows of a block, and joins the results."""

  def __init__(self, upscaler, task, plan, given, joined):
    self._upscaler, self._task, self._plan = upscaler, task, plan
    self._given, self._joined = given, joined
    self._damage = _damage(task, plan)
    origin = joined.rows[0][0], joined.columns[0][0]
    self._places = [
      (n, top - origin[0], left - origin[1], i, j)
      for n in range(plan.count)
      for i, (top, _) in enumerate(joined.rows)
      for j, (left, _) in enumerate(joined.columns)
    ]

  def evaluate(self, x_t, logsnr, known=None):
    """Returns {name: [N, H, W, C]}, see `canvas_drawing.Evaluate`."""
    x_t, logsnr, known = jax.tree.map(np.asarray, (x_t, logsnr, known))
    shape = self._given.upsampled.shape[:3]
    totals: dict[str, np.ndarray] = {}
    for numbers, found in one_ahead(self._begin(x_t, logsnr, known)):
      for name, values in found.items():
        values = device_mesh.fetch(values)
        if not np.isfinite(values).all():
          raise NotFinite(
            'the network gives values that are not finite; its parameters may '
            'be damaged, or what it computes in (config.model.dtype) is too '
            'small for this picture.'
          )
        if name not in totals:
          totals[name] = np.zeros((*shape, values.shape[-1]), np.float32)
        for number, value in zip(numbers, values, strict=False):
          self._add(totals[name], number, value)
      self._task.on_windows(len(numbers))
    return {name: jnp.asarray(total) for name, total in totals.items()}

  def _begin(self, x_t, logsnr, known):
    """Begins one batch of windows after the other."""
    at_once, upscaler = self._plan.at_once, self._upscaler
    settings, factor = upscaler.settings, self._plan.cut.factor
    for first in range(0, len(self._places), at_once):
      numbers = range(first, min(first + at_once, len(self._places)))
      filled = np.resize(np.asarray(numbers), at_once)
      label = self._task.label
      if upscaler.stage.num_classes is None:
        label = None
      pictures = [self._places[i][0] for i in filled]
      low = None
      if factor is not None:
        low = self._cut(self._given.lowres, filled, factor)
      views = Views(
        low,
        self._cut(self._given.upsampled, filled),
        np.full(at_once, settings.level, np.float32),
        None if label is None else np.full(at_once, label, np.int32),
        None if factor is not None else self._damage[pictures],
        self._cut_all(known, filled),
      )
      noisy = None if x_t is None else self._cut(x_t, filled)
      level = None if logsnr is None else logsnr[pictures]
      yield (
        numbers,
        upscaler.program(
          upscaler.stage.params, settings.tuned, views, noisy, level
        ),
      )

  def _cut_all(self, known, numbers):
    """Returns windows of {name: [N, H, W, C]}, or None."""
    if known is None:
      return None
    return {name: self._cut(x, numbers) for name, x in known.items()}

  def _cut(self, x, numbers, shrunk=1):
    """Returns windows of x [N, H, W, C], which may be shrunk by a factor."""
    size = self._plan.cut.size // shrunk
    parts = []
    for number in numbers:
      n, top, left, _, _ = self._places[number]
      y, z = top // shrunk, left // shrunk
      parts.append(x[n, y : y + size, z : z + size])
    return np.stack(parts)

  def _add(self, total, number, value):
    """Adds what the network predicts of a window, as far as it counts."""
    n, top, left, i, j = self._places[number]
    size = self._plan.cut.size
    joined = self._joined
    weight = joined.row_weights[i][:, None] * joined.column_weights[j]
    total[n, top : top + size, left : left + size] += weight[..., None] * value


def _damage(task, plan):
  """Returns float32 [N, K], what a network is told of each low-res picture."""
  given = task.lowres
  factor = math.sqrt(plan.height * plan.width / (given.height * given.width))
  damage = task.damage or [low_res_inputs.CLEAN] * plan.count
  return np.stack([low_res_inputs.levels(factor, one) for one in damage])


def _jit_windows(stage):
  """Compiles `evaluate(params, tuned, Views, x_t, logsnr)` of a stage."""

  @stage.jit
  def evaluate(params, tuned, views, x_t, logsnr):
    views, x_t, logsnr = stage.split((views, x_t, logsnr))
    return stage.canvas.evaluate(stage.boxed(params), views, x_t, logsnr, tuned)

  return evaluate
