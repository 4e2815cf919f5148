"""Keeps what the settings of a sweep share: programs, parameters and images.

While only settings of later stages vary, the images of the earlier stages stay
the same. They are kept as uint8, which is what passes between stages, in memory
up to a bound and on disk above it. A stage that is stopped early, for a
truncated follower, passes on more than uint8 and is drawn again.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np

from cdm.data.files import atomic_files
from cdm.ops import pixels
from cdm.sampling import cascade
from cdm.sampling.drawing_stage import jit_batches
from cdm.sampling.restored_parameters import RestoredParameters

MEMORY = 2**30  # bytes of images, in each process


class Kept:
  """What the settings of one sweep share.

  Attributes:
    programs: compiled programs, see `cascade.sampler`.
    parameters: restored parameters, see `restore.restored_cascade`.
    wanted: the numbers of the stages whose images another setting will need.
  """

  def __init__(self, folder: str | os.PathLike, *, memory_bytes: int = MEMORY):
    """Starts empty; what a killed sweep has left in the folder is removed.

    Args:
      folder: folder for the images that exceed the memory; it is made when it
        is needed.
      memory_bytes: bytes of images that are kept in memory.
    """
    self.programs: dict[Any, Any] = {}
    self.parameters = RestoredParameters()
    self.wanted: Collection[int] = ()
    self._folder = pathlib.Path(folder) / f'process-{jax.process_index()}'
    self._free = memory_bytes
    self._images: dict[tuple[int, str], _Batch] = {}
    self.forget()

  def forget(self, stages: Collection[int] | None = None) -> None:
    """Drops the images of some stages; None drops all, and the folder."""
    for key in list(self._images):
      if stages is None or key[0] in stages:
        batch = self._images.pop(key)
        if isinstance(batch.parts, np.ndarray):
          self._free += batch.parts.nbytes
        else:
          batch.parts.unlink(missing_ok=True)
    if stages is None:
      shutil.rmtree(self._folder, ignore_errors=True)
      with contextlib.suppress(OSError):  # Other processes may use it.
        self._folder.parent.rmdir()

  def put(self, stage: int, key: str, image: jax.Array) -> None:
    """Keeps this process's part of the images of a stage.

    Args:
      stage: number of the stage.
      key: identifies the images.
      image: uint8 [B, H, W, 3], possibly split over a mesh.
    """
    shards = {
      _place(s.index): np.asarray(s.data) for s in image.addressable_shards
    }
    parts: np.ndarray | pathlib.Path = np.stack(list(shards.values()))
    size = parts.nbytes
    if size <= self._free:
      self._free -= size
    else:
      self._folder.mkdir(parents=True, exist_ok=True)
      path = self._folder / f'{stage}-{key}.npy'
      with atomic_files.write_atomically(path, durable=False) as partial:
        with open(partial, 'wb') as file:
          np.save(file, parts)
      parts = path
    self._images[stage, key] = _Batch(
      image.shape, image.sharding, list(shards), parts
    )

  def get(self, stage: int, key: str) -> jax.Array | None:
    """Returns the images that were kept as `key`, or None."""
    batch = self._images.get((stage, key))
    return None if batch is None else batch.array()


class _Batch:
  """The images of one batch that this process holds."""

  def __init__(self, shape, sharding, places, parts):
    self._shape, self._sharding, self._places = shape, sharding, places
    self.parts = parts  # an array, or the path of one

  def array(self) -> jax.Array:
    """Returns them as they were, split over the mesh."""
    parts = self.parts
    if not isinstance(parts, np.ndarray):
      parts = np.load(parts)
    at = dict(zip(self._places, parts, strict=True))
    return jax.make_array_from_callback(
      self._shape, self._sharding, lambda index: at[_place(index)]
    )


def _place(index):
  """Returns the slices of a part of an array, as something to look up."""
  return tuple((part.start or 0, part.stop) for part in index)


def sampler(
  stages: Sequence[cascade.Stage], kept: Kept
) -> Callable[..., list[jax.Array]]:
  """Returns a function that draws with a cascade, from the last images kept.

  Args:
    stages: see `cascade.sampler`; all of them know their `program`.
    kept: what is kept; images of its `wanted` stages are added.

  Returns:
    `draw(seed, indices, label)` as `cascade.sampler` returns it, but for the
    list, which holds the images of the last stage alone.
  """
  runs = cascade.stage_runs(stages, kept.programs)
  texts = _texts(stages)
  last = len(stages) - 1

  def draw(seed, indices, label):
    batch = [np.uint32(seed), np.asarray(indices, np.uint32), label]
    keys = [_digest([text, *batch]) for text in texts]
    first, z = 0, None
    for i in reversed(range(last)):
      image = kept.get(i, keys[i])
      if image is not None:
        first, z = i + 1, _to_float(kept, stages[i])(image)
        break
    for i in range(first, last + 1):
      z, image = runs[i](stages[i].params, seed, indices, label, z)
      stops = cascade.stop_logsnr_of(stages[i + 1]) if i < last else None
      if i < last and i in kept.wanted and stops is None:
        kept.put(i, keys[i], image)
    return [image]

  return draw


def _to_float(kept, stage):
  key = ('to_float', stage.mesh)
  if key not in kept.programs:
    kept.programs[key] = jit_batches(pixels.to_float, stage.mesh)
  return kept.programs[key]


def _texts(stages):
  """Returns for each stage what its images depend on beside their numbers."""
  texts, before = [], ''
  for i, stage in enumerate(stages):
    follower = stages[i + 1] if i + 1 < len(stages) else None
    settings = jax.tree.leaves(cascade.settings_of(stage, follower))
    before = _digest([before, stage.program, *settings])
    texts.append(before)
  return texts


def _digest(values):
  found = hashlib.sha256()
  for value in values:
    data = repr(value).encode()
    if isinstance(value, np.ndarray | np.generic):
      data = repr((value.shape, str(value.dtype))).encode() + value.tobytes()
    found.update(b'%d:' % len(data) + data)
  return found.hexdigest()[:32]
