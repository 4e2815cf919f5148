"""Every item is drawn once, and all items of a group by one process."""

import jax
import numpy as np
import pytest

from cdm.distributed import device_mesh
from cdm.sampling import row_queues


def holders(monkeypatch, counts):
  """Rows of a batch, one process after the other."""
  rows = np.repeat(np.arange(len(counts)), counts)
  monkeypatch.setattr(
    row_queues.device_mesh, 'row_holders', lambda mesh, size: rows
  )
  return rows


@pytest.mark.parametrize('counts', [(4,), (2, 2), (1, 1, 2)])
@pytest.mark.parametrize('sizes', [(1,) * 9, (3, 1, 5), (), (7,)])
def test_every_item_is_in_one_row_of_the_process_of_its_group(
  monkeypatch, counts, sizes
):
  rows = holders(monkeypatch, counts)
  groups = [g for g, size in enumerate(sizes) for _ in range(size)]
  queues = row_queues.share_out(groups, 4, None)
  seen, process_of = [], {}
  for numbers in row_queues.batches(queues, 4):
    for row, item in enumerate(numbers):
      if item != row_queues.NONE:
        seen.append(item)
        process = process_of.setdefault(groups[item], rows[row])
        assert process == rows[row]
  assert sorted(seen) == list(range(len(groups)))
  if len(counts) == 1:  # One process keeps the order.
    assert seen == sorted(seen)


def test_processes_get_equally_much(monkeypatch):
  holders(monkeypatch, (1, 1))
  queues = row_queues.share_out(['long'] * 4 + list('abcd'), 2, None)
  assert [len(q.items) for q in queues.values()] == [4, 4]
  assert len(list(row_queues.batches(queues, 2))) == 4


def test_the_rows_of_a_batch_are_where_they_are_held():
  mesh = device_mesh.make_mesh(data=4, tensor=2)
  assert device_mesh.row_holders(mesh, 8).tolist() == [0] * 8
  batch = np.arange(24).reshape(8, 3)
  split = device_mesh.shard_batch(batch, mesh)
  np.testing.assert_array_equal(device_mesh.local_part(split), batch)
  assert jax.device_count() == 8
