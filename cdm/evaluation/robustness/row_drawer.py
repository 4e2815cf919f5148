"""Super-resolves the images of a study in batches, each process its own rows.

An item is a pair whose first member is the index of an image. All items of an
image belong to one process, which alone reads it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from cdm.distributed import device_mesh
from cdm.ops.keys import seed_pairs
from cdm.sampling import row_queues
from cdm.sampling.upscaler import Upscaler

Item = TypeVar('Item', bound=tuple[int, Any])


class RowDrawer:
  """Draws the rows of batches that this process provides.

  All batches have one size. Another size would be another compiled program,
  which may round otherwise, and a run that is continued must give the same
  bytes. Every method is a collective: all processes must call it.
  """

  def __init__(self, upscale: Upscaler, seed: int):
    """Keeps the arguments.

    Args:
      upscale: super-resolves with the stage.
      seed: seed of the samples.
    """
    self._upscaler, self._seed = upscale, seed
    self._rows = upscale.local_rows(upscale.batch_size).tolist()

  def batches(
    self, items: Sequence[Item]
  ) -> Iterator[tuple[dict[int, Item], int]]:
    """Yields ({row: item} of this process, number of all items) of batches.

    Args:
      items: the items, the same in all processes.
    """
    size = self._upscaler.batch_size
    queues = row_queues.share_out(
      [n for n, _ in items], size, self._upscaler.mesh
    )
    for numbers in row_queues.batches(queues, size):
      there = numbers != row_queues.NONE
      own = {r: items[numbers[r]] for r in self._rows if there[r]}
      yield own, int(there.sum())

  def shrink(
    self, originals: Mapping[int, np.ndarray]
  ) -> dict[int, np.ndarray]:
    """Returns {row: low-res image}, given {row: original}."""
    side = self._upscaler.image_size
    low = self._upscaler.shrink_rows(
      self._filled(originals, (side, side, 3), np.uint8)
    )
    both = zip(self._rows, low, strict=True)
    return {r: image for r, image in both if r in originals}

  def upscale(
    self,
    given: Mapping[int, np.ndarray],
    indices: Mapping[int, int],
    labels: Mapping[int, int],
  ) -> dict[int, np.ndarray]:
    """Returns {row: super-resolved image} of the rows that this process holds.

    Args:
      given: {row: low-res image} of the rows that this process provides.
      indices: {row: index of its noise}.
      labels: {row: its label}.
    """
    side = self._upscaler.lowres_size
    x = self._upscaler.start_rows(
      self._filled(given, (side, side, 3), np.uint8),
      keys=seed_pairs(self._seed, self._filled(indices, (), np.int64)),
      label=self._filled(labels, (), np.int32),
    )
    return {r: image for r, image in device_mesh.local_images(x) if r in given}

  def _filled(self, values, shape, dtype) -> np.ndarray:
    """Returns [b, ...], the value of every row, 0 for rows that have none."""
    filled = np.zeros((len(self._rows), *shape), dtype)
    for i, r in enumerate(self._rows):
      if r in values:
        filled[i] = values[r]
    return filled
