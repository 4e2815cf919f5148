"""Which pictures a process draws alone, and which all draw together."""

import numpy as np
import pytest

from cdm.sampling import picture_tiles, upscale_inputs, upscaler


def tasks(counts):
  return [
    picture_tiles.Task(n, upscale_inputs.Picture(None, None, count), 0)
    for n, count in enumerate(counts)
  ]


@pytest.mark.parametrize(
  ('processes', 'counts', 'shared_out', 'together'),
  [
    # One process draws all of one size in the same batches.
    (1, (1, 3, 4, 1, 20), {1: [0, 3], 4: [1, 2], 8: [4]}, []),
    # Of two processes each finds a picture of every size, or tiles for all.
    (2, (1, 1, 4, 3), {2: [0, 1], 4: [2, 3]}, []),
    (2, (1, 4, 20), {2: [0]}, [1, 2]),
    (2, (20, 20, 20), {8: [0, 1, 2]}, []),
  ],
)
def test_pictures_are_shared_out_where_there_are_enough(
  monkeypatch, processes, counts, shared_out, together
):
  stage = upscaler.Upscaler(None, 8, None, None, batch_size=8)
  # A batch divides over the processes.
  monkeypatch.setattr(
    upscaler.Upscaler,
    'padded_count',
    lambda self, n: max(1 << (n - 1).bit_length(), processes),
  )
  monkeypatch.setattr(
    picture_tiles.device_mesh,
    'row_holders',
    lambda mesh, size: np.repeat(np.arange(processes), size // processes),
  )
  found = picture_tiles.plan(stage, tasks(counts))
  numbers = {s: [t.number for t in some] for s, some in found[0].items()}
  assert numbers == shared_out
  assert [task.number for task in found[1]] == together
