"""Copies the training state to the local disks of the hosts, often and quickly.

  DIR/RUN/STEP-PROCESS.npz   what the devices of one process held at a step

A host writes only what its own devices hold, to its own disk, and no host waits
for another or for shared storage. A run that died without warning continues
from the newest step that all hosts have, if it is newer than the newest
checkpoint. A copy names the run and its work directory, and the checkpoint that
was the newest when it was made: if that one is gone, somebody went back to an
older state, and the copy is not used.
"""

import hashlib
import json
import logging
import os
import pathlib
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cdm.checkpointing import reader, single_files, stored_format
from cdm.data.files import atomic_files
from cdm.distributed import collectives

RUN_ID = 'run_id'  # file in checkpoints/, which tells one run from another
KEPT = 2  # The newest may be missing on a host that was still writing it.
_HEADER = 'header'

_log = logging.getLogger(__name__)


class Copied(NamedTuple):
  """The contents of a local copy, as `writer.Restored` describes them."""

  step: int
  state: Any
  data_state: Any
  window: Any


class LocalCopies:
  """The local copies of one run, as this process writes and reads them."""

  def __init__(
    self,
    folder: str | os.PathLike,
    workdir: str | os.PathLike,
    *,
    before_write: Callable[[], None] = lambda: None,
  ):
    """Finds out which run this is; a new one gets a file with its identity.

    A collective.

    Args:
      folder: folder on a disk of this host, made if needed. Runs share it.
      workdir: work directory of the run, which has its checkpoints.
      before_write: called in a thread of process 0 before a copy is written.
    """
    self._workdir = workdir
    self._before_write = before_write
    run = collectives.call_in_first(lambda: _identity(workdir))
    self._folder = pathlib.Path(folder).absolute() / run
    self._thread: threading.Thread | None = None
    self._warned = False

  def write(
    self,
    step: int,
    state: Any,
    *,
    data_state: Any,
    window: Mapping[str, object],
  ) -> None:
    """Copies the state to the memory of the host, and writes in the background.

    The state may be donated as soon as this method returns. A copy that cannot
    be written is reported once, and the run goes on without it.

    Args:
      step: number of updates made.
      state: TrainState.
      data_state: position of the data iterator, as JSON values.
      window: sums of the unfinished log line, as JSON values.
    """
    self.wait()
    parts = _parts_here(state)
    header = {
      'format': stored_format.FORMAT,
      'step': step,
      'data': data_state,
      'window': dict(window),
    }
    self._thread = threading.Thread(
      target=self._write, args=(header, parts), name='local_copy', daemon=True
    )
    self._thread.start()

  def wait(self) -> None:
    """Waits until the copy in progress is written."""
    if self._thread is not None:
      self._thread.join()
      self._thread = None

  def _write(self, header, parts):
    try:
      if collectives.is_first():
        self._before_write()
      # What this process does not see yet makes a copy of less use, not wrong.
      header['base'] = max(reader.complete_steps(self._workdir), default=None)
      header['parts'] = [part.description() for part in parts]
      self._folder.mkdir(parents=True, exist_ok=True)
      atomic_files.remove_abandoned(self._folder)
      name = f'{header["step"]}-{jax.process_index()}.npz'
      arrays = {str(n): part.bytes for n, part in enumerate(parts)}
      arrays[_HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)
      with atomic_files.write_atomically(self._folder / name) as partial:
        with partial.open('wb') as file:
          np.savez(file, **arrays)
      self._remove_older()
    except Exception as error:  # noqa: BLE001 (the run has its checkpoints)
      if not self._warned:
        _log.warning(
          'No local copy of step %d could be written to %s (%s: %s). The run '
          'goes on; if it dies, it continues from a checkpoint. '
          'config.train.local_copy_dir names another folder.',
          *(header['step'], self._folder, type(error).__name__, error),
        )
      self._warned = True

  def _remove_older(self) -> None:
    """Removes all but the newest steps that this host has."""
    files = list(self._folder.glob('*.npz'))
    newest = sorted({_step_of(path) for path in files})[-KEPT:]
    for path in files:
      if _step_of(path) not in newest:
        path.unlink(missing_ok=True)

  def forget_after(self, step: int | None = None) -> None:
    """Removes the copies of later steps, which the run will redo; None all.

    A collective: when it returns, they are gone on every host.
    """
    self.wait()
    for path in list(self._folder.glob('*.npz')):
      if step is None or _step_of(path) > step:
        path.unlink(missing_ok=True)
    collectives.barrier(f'local copies after {step} are removed')

  def restore_newer(self, abstract: Any, than: int | None) -> Copied | None:
    """Restores the newest step that every process can restore, if it is newer.

    A collective. Copies may have been written by other processes, as long as
    the files of this host hold all that its devices need.

    Args:
      abstract: TrainState of ShapeDtypeStructs with their shardings.
      than: step of the newest checkpoint, or None.

    Returns:
      Copied, or None if no newer step is there whole on every host.
    """
    found = self._candidates(than)
    lists = collectives.gather_objects(sorted(found))
    for step in sorted(set.intersection(*map(set, lists)), reverse=True):
      loaded = self._load(found[step], abstract)
      if all(collectives.gather_objects(loaded is not None)):
        header, leaves = loaded
        return Copied(
          step, _assembled(leaves, abstract), header['data'], header['window']
        )
    return None

  def _candidates(self, than: int | None) -> dict[int, list[pathlib.Path]]:
    """Returns {step: files}, of steps that continue the checkpoint `than`."""
    newest = -1 if than is None else than
    found: dict[int, list[pathlib.Path]] = {}
    for path in sorted(self._folder.glob('*.npz')):
      step = _step_of(path)
      if step > newest:
        found.setdefault(step, []).append(path)
    return {
      step: paths
      for step, paths in found.items()
      if all(_base(path) <= newest for path in paths)
    }

  def _load(self, paths, abstract):
    """Returns (header, leaves on the devices of this process), or None."""
    try:
      return _load(paths, abstract)
    except Exception as error:  # noqa: BLE001 (a damaged file raises any type)
      _log.warning(
        'The local copy %s is not used: %s: %s',
        *(paths[0], type(error).__name__, error),
      )
      return None


class _Part(NamedTuple):
  """The part of an array that a device holds.

  Attributes:
    name: name of the array.
    dtype: its dtype.
    place: [start, stop] along every axis.
    bytes: the values, uint8 [n].
  """

  name: str
  dtype: str
  place: list[list[int]]
  bytes: np.ndarray

  def description(self):
    return [self.name, self.dtype, self.place]


def _identity(workdir: str | os.PathLike) -> str:
  """Returns what tells this run in this work directory from all others."""
  path = reader.folder(workdir) / RUN_ID
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    single_files.write_text(path, secrets.token_hex(16) + '\n')
  text = f'{path}\n{path.read_text(encoding="utf-8")}'
  return hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:16]


def _step_of(path: pathlib.Path) -> int:
  step = path.name.partition('-')[0]
  return int(step) if step.isdecimal() else -1


def _base(path: pathlib.Path) -> float:
  """Returns the step of the checkpoint that a copy follows.

  It is infinite for a copy that cannot be used, because it is damaged or of
  another format.
  """
  try:
    with np.load(path) as archive:
      header = _header(archive)
      base = header['base']
  except Exception:  # noqa: BLE001 (a damaged file raises any type)
    return np.inf
  if header.get('format', 1) != stored_format.FORMAT:
    return np.inf
  return -1 if base is None else base


def _header(archive: Any) -> dict[str, Any]:
  return json.loads(archive[_HEADER].tobytes())


def _plain(tree: Any) -> dict[str, Any]:
  """Returns {name: leaf} of a tree of arrays or structs, keys as their data."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  named = {}
  for path, leaf in leaves:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      if isinstance(leaf, jax.Array):
        leaf = jax.random.key_data(leaf)
      else:
        data = jax.eval_shape(jax.random.key_data, leaf)
        leaf = jax.ShapeDtypeStruct(
          data.shape, data.dtype, sharding=leaf.sharding
        )
    named[jax.tree_util.keystr(path, simple=True, separator='/')] = leaf
  return named


def _place(index: Any, shape: tuple[int, ...]) -> list[list[int]]:
  return [
    list(part.indices(size)[:2])
    for part, size in zip(index, shape, strict=True)
  ]


def _parts_here(state: Any) -> list[_Part]:
  """Returns what the devices of this process hold, every part once."""
  shards = []
  for name, leaf in _plain(state).items():
    places = {}
    for shard in leaf.addressable_shards:
      place = _place(shard.index, leaf.shape)
      places.setdefault(json.dumps(place), (name, place, shard.data))
    shards += places.values()
  for _, _, data in shards:
    data.copy_to_host_async()
  # They are copied, because a device of a CPU may share its memory with them.
  return [
    _Part(name, str(data.dtype), place, _bytes(np.array(data)))
    for name, place, data in shards
  ]


def _bytes(values: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _load(paths: list[pathlib.Path], abstract: Any) -> tuple[Any, Any]:
  """Reads what the devices of this process need, and places it there.

  Returns:
    (header, {name: jax.Array}), random keys as their data.

  Raises:
    Exception: a file is damaged, or does not hold what is needed.
  """
  files, where = [], {}
  try:
    for path in paths:
      archive = np.load(path)
      files.append(archive)
      header = _header(archive)
      for n, (name, dtype, place) in enumerate(header['parts']):
        where[name, dtype, json.dumps(place)] = archive, str(n)
    leaves = {}
    for name, leaf in _plain(abstract).items():
      leaves[name] = _read_leaf(name, leaf, where)
    return header, leaves
  finally:
    for archive in files:
      archive.close()


def _read_leaf(name, leaf, where):
  """Returns one array, whose parts lie on the devices of this process."""
  by_place: dict[str, np.ndarray] = {}
  arrays = []
  places = leaf.sharding.addressable_devices_indices_map(leaf.shape)
  for device, index in places.items():
    place = _place(index, leaf.shape)
    key = json.dumps(place)
    if key not in by_place:
      if (name, str(leaf.dtype), key) not in where:
        raise ValueError(f'{name} {key} of {leaf.dtype} is not in it')
      archive, member = where[name, str(leaf.dtype), key]
      shape = [stop - start for start, stop in place]
      by_place[key] = archive[member].view(leaf.dtype).reshape(shape)
    # The state will be donated, so its memory must be its own.
    arrays.append(jax.device_put(by_place[key], device, may_alias=False))
  return jax.make_array_from_single_device_arrays(
    leaf.shape, leaf.sharding, arrays
  )


def _assembled(leaves: dict[str, jax.Array], abstract: Any) -> Any:
  """Returns the state of the leaves; all processes make its random keys."""
  flat, structure = jax.tree_util.tree_flatten_with_path(abstract)
  values = []
  for path, leaf in flat:
    value = leaves[jax.tree_util.keystr(path, simple=True, separator='/')]
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      wrap = jax.jit(jax.random.wrap_key_data, out_shardings=leaf.sharding)
      value = wrap(value)
      assert value.dtype == leaf.dtype  # Runs take keys of the default kind.
    values.append(value)
  return jax.tree_util.tree_unflatten(structure, values)
