"""Writes which training image each result of `cdm upscale` was taken from."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from cdm.data.files import atomic_files
from cdm.data.printable_name import printable
from cdm.distributed import collectives
from cdm.sampling.upscaler import Upscaler

FILE = 'neighbours.json'


def write(
  out: str | os.PathLike,
  upscaler: Upscaler,
  read: Callable[[], tuple[Sequence[str], Sequence[np.ndarray]]],
) -> None:
  """Writes neighbours.json, if results are training images.

  It is a list with an entry for each low-res image: `image`, its name,
  `index` and `name` of the training image, and their `squared_distance`.

  A collective: every process must call it.

  Args:
    out: output folder.
    upscaler: what made the results.
    read: returns the names of results, and their low-res images uint8
      [h, w, 3], a name once for each of its tiles; called in process 0.
  """
  if upscaler.neighbours is None:
    return
  names: list[str] = []

  def low_res_images():
    found, images = read()
    names.extend(found)
    return [np.stack(images)] if len(images) else []

  arrays = collectives.arrays_from_first(low_res_images)
  if not arrays:
    return
  low, size = arrays[0], max(1, upscaler.batch_size)
  found = []
  for start in range(0, len(low), size):
    found += upscaler.neighbours(low[start : start + size])
  if collectives.is_first():
    rows = [
      {'image': name, **one._asdict()}
      for name, one in zip(names, found, strict=True)
    ]
    path = pathlib.Path(out) / FILE
    atomic_files.write_text_atomically(path, json.dumps(rows, indent=1) + '\n')
    print(f'{printable(path)}: the training image of each result')
