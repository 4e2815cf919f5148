"""Draws samples that are no RGB images of 8 bits, into one array.

OUT/samples.npy holds [N, H, W, C]: grey levels uint8, or of a stage that was
trained on arrays float32, in the units of its training data if their range was
given, else in [-1, 1].
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cdm.data.arrays import npy_file, value_range
from cdm.data.arrays.array_layout import Layout
from cdm.data.files import atomic_files
from cdm.distributed import collectives, device_mesh
from cdm.reporting import progress
from cdm.sampling import cascade, generate, output_folder

NAME = 'samples.npy'


@output_folder.held_by('cdm sample')
def draw_to_folder(
  out: str | os.PathLike,
  stages: Sequence[cascade.Stage],
  *,
  manifest: Any,
  num: int,
  batch_size: int,
  overwrite: bool = False,
) -> None:
  """Draws images 0 to num - 1; the file appears whole or not at all.

  Args:
    out: folder; made if it is missing. If it holds the samples of this
      manifest, nothing is drawn.
    stages: the stages of the cascade, the base model first.
    manifest: see `generate.Manifest`.
    num: number of images.
    batch_size: number of images that are drawn at once.
    overwrite: whether what other settings wrote into the folder is removed.

  Raises:
    ValueError: the folder has another manifest, or another run draws into it.
  """
  out = pathlib.Path(out)
  values = stages[-1].values
  labels = generate.label_cycle(manifest['labels'], num)
  seed = manifest['seed']
  manifest = {**manifest, 'num': num}
  output_folder.make_room(
    out, manifest, name='sampling.json', writes=(NAME,), overwrite=overwrite
  )
  output_folder.claim(out, manifest, name='sampling.json')
  path, last = out / NAME, stages[-1]
  side, is_array = last.image_size, last.is_array
  if collectives.call_in_first(path.exists):
    if collectives.is_first():
      print(f'{path} is there already.')
    return
  dtype = np.dtype(np.float32 if is_array else np.uint8)
  layout = Layout('NPY', (num, side, side, last.channels), 'PHWC', dtype)
  runs = cascade.stage_runs(stages)
  size = generate.padded_batch_size(stages, num, batch_size)

  def drawn():
    for first in range(0, num, size):
      indices = np.arange(first, first + size)
      label = None if labels is None else labels[np.minimum(indices, num - 1)]
      z: Any = None
      image: Any = None
      for stage, run in zip(stages, runs, strict=True):
        z, image = run(stage.params, seed, indices, label, z)
      found = device_mesh.fetch(z if is_array else image)
      yield found[: num - first]

  with progress.Progress('sampling', total=num, unit='image') as bar:
    bar.compiling()
    if not collectives.is_first():
      for batch in drawn():
        bar.advance(len(batch))
    else:
      _write(path, layout, drawn(), values, bar)
  collectives.barrier('the samples')
  if collectives.is_first():
    print(
      f'{num} of {side}x{side} pixels and {last.channels} channel(s), '
      f'{dtype.name}, in {path}'
    )


def _write(path, layout, batches, values, bar):
  with atomic_files.write_atomically(path) as partial:
    npy_file.begin(partial, layout)
    with open(partial, 'ab') as file:
      for batch in batches:
        if layout.dtype == np.float32 and values is not None:
          batch = value_range.given(*values, '').to_values(batch)
        file.write(np.ascontiguousarray(batch, layout.dtype).data)
        bar.advance(len(batch))
