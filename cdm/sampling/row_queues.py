"""Shares work out over the rows of batches, so that each process has its own.

A batch that is drawn is split over the devices of all processes. Every process
has a queue of items and puts the next of them into the rows that its devices
hold. So it reads, holds and writes what belongs to its own items only.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from cdm.distributed import device_mesh

NONE = -1  # stands in a row for which its process has no item left


class Queue(NamedTuple):
  """What one process draws.

  Attributes:
    rows: int [r], the rows of every batch that it holds, ascending.
    items: the numbers of its items, in their order.
  """

  rows: np.ndarray
  items: list[int]


def share_out(
  groups: Sequence[Hashable], batch_size: int, mesh: jax.sharding.Mesh | None
) -> dict[int, Queue]:
  """Shares items out over the processes, the same in all processes.

  Args:
    groups: the group of every item; the items of a group go to one process, the
      one that has the fewest rows to fill so far.
    batch_size: number of rows of a batch, over all processes.
    mesh: the mesh that a batch is split over; None is one device.

  Returns:
    {process: its queue}. A process whose devices hold only copies of the rows
    of others has none.
  """
  holders = device_mesh.row_holders(mesh, batch_size)
  queues = {
    int(process): Queue(np.flatnonzero(holders == process), [])
    for process in np.unique(holders)
  }
  members: dict[Hashable, list[int]] = {}
  for item, group in enumerate(groups):
    members.setdefault(group, []).append(item)
  for items in members.values():
    shortest = min(queues.values(), key=lambda q: len(q.items) / len(q.rows))
    shortest.items.extend(items)
  return queues


def batches(
  queues: Mapping[int, Queue], batch_size: int
) -> Iterator[np.ndarray]:
  """Yields the number of the item in every row of a batch, int [B], or NONE."""
  counts = [-(-len(q.items) // len(q.rows)) for q in queues.values()]
  for b in range(max(counts, default=0)):
    numbers = np.full(batch_size, NONE)
    for queue in queues.values():
      part = queue.items[b * len(queue.rows) :][: len(queue.rows)]
      numbers[queue.rows[: len(part)]] = part
    yield numbers
