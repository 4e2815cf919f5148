"""Packs a trained stage into one file, and reads it.

The file is in the safetensors format. It holds one average of the parameters,
which may be rounded to float16, and in its metadata the config and the step:
all that drawing takes. Nothing in it is executed.

  photo.safetensors   {'block_0/conv1/kernel': float16 [3, 3, 48, 48], ...}
    __metadata__      format, config, step, sha256 (of the arrays), and notes
"""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from cdm.checkpointing import model_check
from cdm.data.files import atomic_files
from cdm.data.files.damaged_file import DamagedFile

SUFFIX = '.safetensors'
FORMAT = 'cdm stage 1'
# Keys of the metadata that are not notes.
OWN = ('format', 'config', 'step', 'sha256')
DTYPES = ('float32', 'float16')
CLASSES = 'classes'  # the note that names them, a JSON list


class Packed(NamedTuple):
  """A stage in one file.

  Attributes:
    config: its config, a JSON text.
    step: the step of the checkpoint that it was packed from.
    arrays: {name: array} of its parameters, such as 'block_0/conv1/kernel'.
    sha256: hash of the arrays.
    notes: {name: text}, what else was written into it, such as credits.
  """

  config: str
  step: int
  arrays: dict[str, np.ndarray]
  sha256: str
  notes: dict[str, str]


def is_packed(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path is that of a packed stage, not a work directory."""
  path = pathlib.Path(path)
  return path.suffix == SUFFIX and not path.is_dir()


def write(
  path: str | os.PathLike[str],
  params: Any,
  *,
  config: str,
  step: int,
  dtype: str = 'float32',
  notes: Mapping[str, str] | None = None,
) -> Packed:
  """Writes a stage into one file, which appears whole or not at all.

  Args:
    path: path of the file, which ends in .safetensors.
    params: tree of float32 arrays.
    config, step: see `Packed`.
    dtype: 'float32' or 'float16', what the arrays are rounded to.
    notes: see `Packed`.

  Raises:
    ValueError: a value is not finite, or has no place in float16.
  """
  assert dtype in DTYPES and not set(notes or {}) & set(OWN)
  path, arrays = pathlib.Path(path), {}
  for name, leaf in _leaves(params).items():
    with np.errstate(over='ignore'):
      array = np.asarray(leaf, np.float32).astype(dtype)
    if not np.isfinite(array).all():
      what = 'too large for it' if np.isfinite(leaf).all() else 'not finite'
      raise ValueError(
        f'{name} cannot be written in {dtype}: a value of it is {what}. '
        'Write float32, or another checkpoint.'
      )
    arrays[name] = np.ascontiguousarray(array)
  packed = Packed(config, step, arrays, _hash(arrays), dict(notes or {}))
  metadata = {
    'format': FORMAT,
    'config': config,
    'step': str(step),
    'sha256': packed.sha256,
    **packed.notes,
  }
  with atomic_files.write_atomically(path) as partial:
    mode = partial.stat().st_mode
    safetensors_numpy.save_file(arrays, partial, metadata)
    partial.chmod(mode)  # The library makes a file for its owner alone.
  return packed


def read(path: str | os.PathLike[str]) -> Packed:
  """Reads a packed stage, and compares its arrays with their hash.

  Raises:
    FileNotFoundError: there is no such file.
    DamagedFile: it is damaged, or no packed stage.
  """
  path = pathlib.Path(path).absolute()
  try:
    found = path.stat()
  except FileNotFoundError:
    raise FileNotFoundError(
      f'There is no file {path}; give a packed stage, as `cdm export` writes '
      'it, or the work directory of a run.'
    ) from None
  return _read(path, found.st_size, found.st_mtime_ns)


def classes(packed: Packed) -> list[str] | None:
  """Returns the names of the classes of a packed stage, None without any."""
  text = packed.notes.get(CLASSES)
  return None if text is None else json.loads(text)


def hash_of(path: str | os.PathLike[str]) -> str | None:
  """Returns the hash of a packed stage; None for a work directory."""
  return read(path).sha256 if is_packed(path) else None


@functools.lru_cache(2)
def _read(path, size, changed):
  del size, changed  # another file is read anew
  try:
    with safetensors.safe_open(path, framework='np') as file:
      metadata = file.metadata() or {}
      arrays = {name: file.get_tensor(name) for name in file.keys()}
  except safetensors.SafetensorError as error:
    raise DamagedFile(
      f'{path} is damaged, or no safetensors file ({error}). Restore a copy of '
      'it.'
    ) from error
  if metadata.get('format') != FORMAT:
    raise DamagedFile(
      f'{path} holds no stage of cdm: its format is '
      f'{metadata.get("format")!r}, not {FORMAT!r}. Give a file that `cdm '
      'export` wrote, or import it first.'
    )
  if metadata.get('sha256') != _hash(arrays):
    raise DamagedFile(
      f'{path} is damaged: its arrays do not have the hash that they were '
      'written with. Restore a copy of it.'
    )
  notes = {k: v for k, v in metadata.items() if k not in OWN}
  return Packed(
    metadata['config'],
    int(metadata['step']),
    arrays,
    metadata['sha256'],
    notes,
  )


def restore(path: str | os.PathLike[str], abstract: Any) -> tuple[Any, int]:
  """Reads the parameters of a packed stage, as `reader.restore_ema` does.

  Args:
    path: path of the file.
    abstract: tree of ShapeDtypeStructs, with their shardings.

  Returns:
    (tree of jax.Array, step).

  Raises:
    FileNotFoundError: there is no such file.
    DamagedFile: it is damaged.
    model_check.ModelMismatch: it holds another network.
  """
  packed = read(path)
  wanted = _leaves(abstract)
  for name in [*wanted, *sorted(packed.arrays.keys() - wanted.keys())]:
    have, want = (
      tuple(each[name].shape) if name in each else 'missing'
      for each in (packed.arrays, wanted)
    )
    if have != want:
      raise model_check.ModelMismatch(
        f'{path} holds another network. First difference: {name} is {have} '
        f'in the file and {want} here. Leave out what changes its config.'
      )
  leaves = [*placed(packed, wanted).values()]
  return jax.tree.unflatten(jax.tree.structure(abstract), leaves), packed.step


def placed(
  packed: Packed, wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
  """Returns arrays of a packed stage where they are wanted, {name: array}.

  Args:
    packed: the stage.
    wanted: {name: their shapes, dtypes and shardings}.
  """
  return {n: _placed(packed.arrays[n], leaf) for n, leaf in wanted.items()}


def _placed(array, like):
  """Returns a jax.Array with the dtype and the sharding of a struct."""
  array = array.astype(like.dtype)
  if like.sharding is None:
    return jnp.asarray(array)
  return jax.make_array_from_callback(
    array.shape, like.sharding, lambda index: array[index]
  )


def _leaves(tree):
  """Returns {'block_0/conv1/kernel': leaf}, in the order of the leaves."""
  return {
    '/'.join(key.key for key in path): leaf
    for path, leaf in jax.tree.leaves_with_path(tree)
  }


def _hash(arrays):
  """Returns a hash of names, shapes, types and values."""
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = arrays[name]
    head = json.dumps([name, list(array.shape), str(array.dtype)])
    digest.update(head.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()
