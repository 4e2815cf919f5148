"""Plans how a picture of any size is drawn: windows, blocks, memory, work.

  window  what the network sees at once, as large as the images of the stage
  block   windows that are drawn together, from noise to the end
  canvas  the picture, filled up to whole units, or to one window if it is less

With one evaluation of the network, blocks are joined as windows are, and it
makes no difference where they end. With more, they overlap by whole windows. A
pixel depends on what is at most `reach` away, once for each evaluation. Blocks
that share twice as much make the same picture as one block; if so much is too
expensive, or the reach is not known, they share one row or column of windows,
whose results are joined by a ramp. Both see the same noise and the same low-res
picture.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from cdm.distributed import device_mesh
from cdm.methods.canvas_drawing import AnyFactor
from cdm.ops import windows
from cdm.sampling import cascade

# Bytes of the host, or of one device, that drawing a canvas may occupy beside
# the network.
MEMORY = 1 << 30
# Arrays of the size of a block that samplers hold at once: x_t, x_0 and eps of
# two evaluations, the enlarged picture, and results of the operations. With the
# rows that it becomes part of, a block of 4 million pixels occupied 8.3 (DDIM)
# to 11.4 (DPM-Solver++(3M)) such arrays on a CPU.
ARRAYS = 10
CHANNEL_BYTES = 4
# Part of a window that neighbours share where the reach is not known.
OVERLAP = 0.25
# Exact blocks may cost so many times as much as blocks that are not.
MOST_FOR_EXACT = 2.0
# Sides of windows where the network takes any. Larger ones evaluate less twice,
# but that of a small picture should not be mostly empty.
WINDOWS = (256, 512, 1024)


class Cut(NamedTuple):
  """How the pictures of a stage are cut into windows.

  Attributes:
    size: side of a window, in pixels of the result.
    factor: pixels of the result for one low-res pixel; None for any.
    unit: windows begin at multiples of it, and a canvas ends at one.
    overlap: pixels that neighbouring windows share.
    reach: pixels around a pixel on which an evaluation of the network depends,
      which do not count at the border of a window; 0 if it is not known.
    channels: C of the pictures.
  """

  size: int
  factor: int | None
  unit: int
  overlap: int
  reach: int
  channels: int = 3

  @property
  def pixel_bytes(self) -> int:
    """Bytes of a pixel of a picture that is drawn."""
    return CHANNEL_BYTES * self.channels

  def length(self, pixels: int) -> int:
    """Returns the length of the canvas of so many pixels along an axis."""
    return max(self.size, -(-pixels // self.unit) * self.unit)

  def intervals(self, pixels: int) -> list[windows.Interval]:
    """Returns the windows along an axis of so many pixels."""
    first = windows.starts(self.length(pixels), self.size, self.overlap)
    return [(start, start + self.size) for start in first]

  def evaluated(self, size: tuple[int, int]) -> int:
    """Returns the pixels that are evaluated for a result (height, width)."""
    rows, columns = (len(self.intervals(pixels)) for pixels in size)
    return rows * columns * self.size**2


def cut_of(stage: cascade.Stage, *, overlap: float = OVERLAP) -> Cut:
  """Returns how the pictures of a stage are cut into windows.

  Args:
    stage: a super-resolution stage. Its `margin`, if it has one, is the reach
      of its network, in low-res pixels.
    overlap: part of a window that neighbours share at least if the reach is
      not known, or too long for the window; from 0 to 1/2.

  Raises:
    ValueError: the overlap is out of range.
  """
  assert stage.lowres is not None
  if not 0.0 <= overlap <= 0.5:
    raise ValueError(
      f'The overlap of windows is {overlap}; use a part of a window from 0 to '
      '0.5.'
    )
  if stage.canvas is not None and stage.canvas.any_factor is not None:
    return any_factor(stage.canvas.any_factor, WINDOWS[-1])
  size = stage.image_size
  factor = size // stage.lowres.size
  # Networks that halve their input work alike on windows that begin at
  # multiples of their coarsest pixel.
  squares = min(size & -size, 1 << max(size // 8, 1).bit_length() - 1)
  unit = math.lcm(factor, squares)
  reach = stage.margin * factor
  shared = -(-2 * reach // unit) * unit
  if not reach or shared >= size:
    reach = 0
    shared = min(-(-round(overlap * size) // unit) * unit, size - unit)
  return Cut(size, factor, unit, shared, reach, stage.channels)


def any_factor(stated: AnyFactor, least: int) -> Cut:
  """Returns how pictures are cut for a network that takes windows of any size.

  Args:
    stated: what its method states.
    least: side of a window; it becomes larger where the reach asks for it.
  """
  shared = -(-2 * stated.reach // stated.unit) * stated.unit
  # At least half of a window counts.
  size = -(-max(least, 2 * shared) // stated.unit) * stated.unit
  return Cut(size, None, stated.unit, shared, stated.reach)


def fitting(stated: AnyFactor, sizes: Sequence[tuple[int, int]]) -> Cut:
  """Returns the windows that evaluate the fewest pixels for some results.

  Args:
    stated: what the method states.
    sizes: (height, width) of each result.
  """
  cuts = [any_factor(stated, side) for side in WINDOWS]
  return min(cuts, key=lambda cut: sum(cut.evaluated(size) for size in sizes))


class Plan(NamedTuple):
  """How pictures of one size are drawn.

  Attributes:
    cut: how they are cut.
    height, width: of a result, in pixels.
    count: number of pictures that are drawn together.
    evaluations: how often a window is evaluated.
    block_rows, block_columns: the blocks along each axis, as (first window,
      last window + 1).
    shared: windows that neighbouring blocks share.
    margin: pixels along a border of a block that do not count.
    is_exact: whether the blocks make the same picture as one block.
    at_once: windows that the network evaluates at once.
  """

  cut: Cut
  height: int
  width: int
  count: int
  evaluations: int
  block_rows: tuple[tuple[int, int], ...]
  block_columns: tuple[tuple[int, int], ...]
  shared: int
  margin: int
  is_exact: bool
  at_once: int

  @property
  def rows(self) -> list[windows.Interval]:
    """The windows along the height of the canvas."""
    return self.cut.intervals(self.height)

  @property
  def columns(self) -> list[windows.Interval]:
    """The windows along the width of the canvas."""
    return self.cut.intervals(self.width)

  def weights(
    self, of: Sequence[windows.Interval], blocks: Sequence[tuple[int, int]]
  ) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Returns what blocks count, and in each block its windows.

    Args:
      of: `rows` or `columns`.
      blocks: `block_rows` or `block_columns`.

    Returns:
      See `windows.grouped`.
    """
    reach = self.cut.reach
    if not self.shared:
      return windows.grouped(of, blocks, margin=reach)
    ends = [(of[i][0], of[j - 1][1]) for i, j in blocks]
    inner = [windows.weights(of[i:j], margin=reach) for i, j in blocks]
    return windows.weights(ends, margin=self.margin), inner

  @property
  def block_windows(self) -> int:
    """Windows of the first block, of all pictures that are drawn together."""
    (first, last), (left, right) = self.block_rows[0], self.block_columns[0]
    return self.count * (last - first) * (right - left)

  @property
  def num_windows(self) -> int:
    """Windows that the network is given in all, one count per evaluation."""
    rows = sum(last - first for first, last in self.block_rows)
    columns = sum(last - first for first, last in self.block_columns)
    return self.count * rows * columns * self.evaluations

  @property
  def work(self) -> float:
    """Pixels that are evaluated, for one pixel of the result."""
    evaluated = self.num_windows * self.cut.size**2 / self.evaluations
    return evaluated / (self.count * self.height * self.width)

  @property
  def bytes(self) -> int:
    """Memory that drawing occupies beside the network, an estimate."""
    (first, last), (left, right) = self.block_rows[0], self.block_columns[0]
    rows, columns = self.rows, self.columns
    height = rows[last - 1][1] - rows[first][0]
    width = columns[right - 1][1] - columns[left][0]
    pixel = self.cut.pixel_bytes
    held = _held(height, width, columns[-1][1], self.count * pixel)
    return held + 4 * self.at_once * self.cut.size**2 * pixel


def _held(height, width, whole_width, pixel_bytes):
  """Returns the bytes of a block, and of the rows that it becomes part of."""
  return pixel_bytes * height * (ARRAYS * width + 2 * whole_width)


def plan(
  cut: Cut,
  size: tuple[int, int],
  *,
  evaluations: int,
  at_once: int,
  count: int = 1,
  memory: int = MEMORY,
) -> Plan:
  """Plans the blocks of pictures: as few windows as fit the memory.

  If not even the smallest blocks fit, these are taken; `Plan.bytes` tells.

  Args:
    cut: how the pictures are cut.
    size: (height, width) of a result, in pixels.
    evaluations: how often the sampler evaluates the network.
    at_once: windows that are evaluated at once.
    count: number of pictures that are drawn together.
    memory: bytes that a block and its rows may occupy.
  """
  rows, columns = (cut.intervals(pixels) for pixels in size)
  step = cut.size - cut.overlap
  rows, columns = (cut.intervals(pixels) for pixels in size)
  search = functools.partial(_blocks, cut, rows, columns, count, memory)
  shared, margin = (0 if evaluations == 1 else 1), 0
  chosen = search(shared)
  is_single = chosen.num == (len(rows), len(columns))
  if cut.reach and shared and not is_single:
    reach = cut.reach * evaluations
    enough = max(1, -(-(2 * reach - cut.size) // step) + 1)
    exact = search(enough)
    cheap = exact.work <= MOST_FOR_EXACT * chosen.work
    if cheap and (exact.fits or exact == chosen):
      chosen, shared, margin = exact, enough, reach
  return Plan(
    cut,
    *size,
    count,
    evaluations,
    *chosen.blocks,
    shared=shared,
    margin=margin,
    is_exact=is_single or not shared or margin > 0,
    at_once=at_once,
  )


class _Blocks(NamedTuple):
  """Blocks of windows: the size of the largest, where, and what they cost."""

  num: tuple[int, int]
  blocks: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
  work: int
  fits: bool


def _blocks(cut, rows, columns, count, memory, shared):
  """Returns the blocks that cost the fewest windows within the memory.

  Args:
    cut, count, memory: see `plan`.
    rows, columns: the windows of each axis.
    shared: windows that neighbouring blocks share.
  """
  step = cut.size - cut.overlap
  best, best_cost = None, None
  for n in _sizes(len(rows), shared):
    for m in _sizes(len(columns), shared):
      height, width = (step * (k - 1) + cut.size for k in (n, m))
      bytes_ = _held(height, width, columns[-1][1], count * cut.pixel_bytes)
      blocks = _places(n, len(rows), shared), _places(m, len(columns), shared)
      work = math.prod(sum(j - i for i, j in places) for places in blocks)
      num_blocks = len(blocks[0]) * len(blocks[1])
      fits = bytes_ <= memory
      cost = (not fits, work if fits else bytes_, num_blocks, bytes_)
      if best_cost is None or cost < best_cost:
        best, best_cost = _Blocks((n, m), blocks, work, fits), cost
  assert best is not None
  return best


def _sizes(total, shared):
  """Returns the numbers of windows that a block may have along an axis."""
  return [*range(min(shared + 1, total), total), total]


def _places(size, total, shared):
  """Returns (first window, last + 1) of the blocks along an axis.

  They are equally large. Those that share no windows may have one less.
  """
  if size == total:
    return ((0, total),)
  if not shared:
    count = -(-total // size)
    ends = [-(-i * total // count) for i in range(count + 1)]
    return tuple(itertools.pairwise(ends))
  turns = -(-(total - size) // (size - shared))
  first = [round(i * (total - size) / turns) for i in range(turns + 1)]
  return tuple((start, start + size) for start in first)


def windows_at_once(
  counts: Sequence[int], batch_size: int, mesh: jax.sharding.Mesh | None
) -> int:
  """Returns the size of the batches in which windows are evaluated.

  The last batch of a block is filled up with windows that count for nothing.
  One size serves all pictures of a run, so that one program is compiled; it is
  the one with the least work, and the largest of these.

  Args:
    counts: windows of a block of each picture.
    batch_size: the most.
    mesh: the device mesh; None is one device.
  """
  shards = 1 if mesh is None else device_mesh.num_batch_shards(mesh)
  most = max(1, batch_size // shards)
  given, times = np.unique(np.asarray(counts, np.int64), return_counts=True)

  def work(each):
    size = each * shards
    turns = -(-given // size)
    # Small batches are less efficient, as if each had some windows more.
    return float((times * turns).sum()) * (size + 0.1 * most * shards)

  return shards * min(range(most, 0, -1), key=work)
