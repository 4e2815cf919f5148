"""Super-resolves the tiles of many pictures in batches.

Every picture is drawn by a program of the size that it would have alone. The
rows that it would leave empty are filled with tiles of other pictures, and each
process reads and finishes pictures of its own, as far as there are enough.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cdm.distributed import collectives, device_mesh
from cdm.ops import tiling
from cdm.ops.keys import seed_pairs
from cdm.sampling import row_queues, upscale_inputs
from cdm.sampling.upscaler import Upscaler


class Task(NamedTuple):
  """A picture that is to be super-resolved.

  Attributes:
    number: its number among all pictures.
    picture: the picture.
    first: number of its first tile among the tiles of all pictures.
  """

  number: int
  picture: upscale_inputs.Picture
  first: int


class Made(NamedTuple):
  """The super-resolved tiles of a picture.

  Attributes:
    task: the picture.
    tiles: uint8 [n, T, T, 3].
    places: (top, left) of each tile in low-res pixels.
    shape: (h, w) of the low-res picture.
  """

  task: Task
  tiles: np.ndarray
  places: list[tuple[int, int]]
  shape: tuple[int, ...]

  def join(self, upscaler: Upscaler) -> np.ndarray:
    """Returns the whole picture, uint8 [H, W, 3].

    Args:
      upscaler: what has super-resolved its tiles.
    """
    return tiling.blend(
      self.tiles,
      self.places,
      shape=self.shape,
      factor=upscaler.factor,
      margin=upscaler.margin,
    )


class Drawing(NamedTuple):
  """How pictures are super-resolved.

  Attributes:
    upscaler: super-resolves tiles.
    inputs: the pictures; see `upscale_inputs.check`.
    label: class of all pictures, or None.
    seed: seed of the samples.
    on_batch: callback that gets the number of tiles of each finished batch.
  """

  upscaler: Upscaler
  inputs: upscale_inputs.Inputs
  label: int | None
  seed: int
  on_batch: Callable[[int], object]

  def keys(self, task: Task) -> np.ndarray:
    """Returns the keys of the tiles of a picture, uint32 [n, 2]."""
    numbers = np.arange(task.first, task.first + task.picture.num_tiles)
    return seed_pairs(self.seed, numbers)

  def labels(self, count: int) -> np.ndarray | None:
    """Returns the labels of `count` tiles, int32, or None."""
    return None if self.label is None else np.full(count, self.label, np.int32)


def super_resolve(
  drawing: Drawing, tasks: Sequence[Task], errors: dict[int, Exception]
) -> Iterator[Made]:
  """Yields the pictures that this process finishes.

  A collective: every process must consume the whole iterator.

  Args:
    drawing: how they are super-resolved.
    tasks: the pictures, the same in all processes.
    errors: gets {number: error} of the pictures of this process that cannot be
      read any more.

  Raises:
    ValueError: such a picture, if all processes share its tiles.
  """
  shared_out, together = plan(drawing.upscaler, tasks)
  for size, some in shared_out.items():
    yield from _shared_out(drawing, size, some, errors)
  for task in together:
    yield from _together(drawing, task)


def plan(
  upscaler: Upscaler, tasks: Sequence[Task]
) -> tuple[dict[int, list[Task]], list[Task]]:
  """Returns which pictures are shared out, and which all processes share.

  A picture of many tiles is split over all processes if there are fewer
  pictures of its size than processes, because most would have nothing to do.

  Returns:
    ({size of the batches: pictures}, pictures that all draw together).
  """
  by_size: dict[int, list[Task]] = {}
  for task in tasks:
    size = upscaler.padded_count(
      min(upscaler.batch_size, task.picture.num_tiles)
    )
    by_size.setdefault(size, []).append(task)
  shared_out, together = {}, []
  for size, some in sorted(by_size.items()):
    holders = device_mesh.row_holders(upscaler.mesh, size)
    rows = np.unique(holders, return_counts=True)[1]
    if len(some) < len(rows):
      wide = [t for t in some if t.picture.num_tiles > rows.min()]
      together += wide
      some = [t for t in some if t not in wide]
    if some:
      shared_out[size] = some
  return shared_out, together


def _shared_out(drawing, size, tasks, errors) -> Iterator[Made]:
  """Draws pictures in batches of `size` tiles, each by one process."""
  upscaler, side = drawing.upscaler, drawing.inputs.tile
  items = [(task, t) for task in tasks for t in range(task.picture.num_tiles)]
  queues = row_queues.share_out(
    [task.number for task, _ in items], size, upscaler.mesh
  )
  rows = upscaler.local_rows(size)
  # Pictures of which some tiles are drawn, and their tiles that are finished.
  opened, finished = {}, {}
  for numbers in row_queues.batches(queues, size):
    tiles = np.zeros((len(rows), side, side, 3), np.uint8)
    keys = np.zeros((len(rows), 2), np.uint32)
    for i, number in enumerate(numbers[rows]):
      if number == row_queues.NONE:
        continue
      task, t = items[number]
      if task.number not in opened:
        opened[task.number] = _read(drawing, task, errors)
      if opened[task.number] is not None:
        tiles[i] = opened[task.number][1][t]
        keys[i] = drawing.keys(task)[t]
    x = upscaler.start_rows(tiles, keys=keys, label=drawing.labels(len(rows)))
    for row, tile in device_mesh.local_images(x):
      if numbers[row] != row_queues.NONE:
        finished.setdefault(items[numbers[row]][0].number, []).append(tile)
    drawing.on_batch(int((numbers != row_queues.NONE).sum()))
    for number in numbers[rows]:
      if number == row_queues.NONE:
        continue
      task, t = items[number]
      if t == task.picture.num_tiles - 1:
        cut, made = opened.pop(task.number), finished.pop(task.number, None)
        if cut is not None and made is not None:
          image, _, places = cut
          yield Made(task, np.stack(made), places, image.shape[:2])


def _read(drawing, task, errors):
  """Returns the picture and its tiles; None if it cannot be read any more."""
  try:
    return upscale_inputs.read_again(drawing.inputs, task.picture)
  except ValueError as error:
    errors[task.number] = error
    return None


def _together(drawing, task) -> Iterator[Made]:
  """Draws one picture on all processes; process 0 finishes it."""
  image, tiles, places = upscale_inputs.read_again(drawing.inputs, task.picture)
  made = drawing.upscaler(
    tiles,
    keys=drawing.keys(task),
    label=drawing.labels(len(tiles)),
    on_batch=drawing.on_batch,
  )
  if collectives.is_first():
    yield Made(task, made, places, image.shape[:2])
