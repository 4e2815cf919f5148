"""Finds the checkpoint or the packed stage that a new run starts from.

A run may start from the work directory of another run or from the file that
`cdm export` wrote of one. Process 0 chooses the step and checks the hash; every
process then reads the arrays that its devices need.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from cdm.checkpointing import checksums, packed_stage, reader, verification
from cdm.config import loader
from cdm.data import class_names
from cdm.data.files import damaged_file
from cdm.distributed import bucket_folders, collectives
from cdm.reporting import bucket_mirror
from cdm.training import init_record, run_config

if TYPE_CHECKING:
  from etils import epath

KEY = init_record.KEY
_ERRORS = damaged_file.DamagedFile, ValueError


class Source(NamedTuple):
  """One set of trained parameters, of which no array has been read yet.

  Attributes:
    folder: path of the work directory, or of the packed stage.
    step: step of the checkpoint.
    which: 'EMA' or 'raw', for people.
    sha256: hash of the checkpoint or of the arrays of the file.
    config: config that the parameters were trained with.
    shapes: {name: shape} of the parameters.
    classes: names of its classes; None if they are not known.
    read: {name: ShapeDtypeStruct with a sharding} -> {name: jax.Array}.
  """

  folder: pathlib.Path
  step: int
  which: str
  sha256: str
  config: loader.ConfigDict
  shapes: Mapping[str, tuple[int, ...]]
  classes: Sequence[str] | None
  read: Callable[[Mapping[str, jax.ShapeDtypeStruct]], dict[str, jax.Array]]


def find(options: run_config.Run, recorded_in: pathlib.Path) -> Source:
  """Finds what `config.train.init_from` names, and checks that it is whole.

  Every process must call it.

  Args:
    options: the `train` section of the run.
    recorded_in: config.json of the run, which may have recorded its start.

  Raises:
    ValueError: there is no such checkpoint or file, or it is another one.
    damaged_file.DamagedFile: it is damaged.
  """
  folder, at = init_record.parse(options.init_from)
  folder = folder.absolute()
  if packed_stage.is_packed(folder):
    return _of_file(folder, at, options)
  if bucket_folders.url_of(folder) is not None:
    bucket_mirror.fill_for_reading(folder)
  # Process 0 chooses: other hosts may see older listings and configs.
  step = collectives.call_in_first(
    lambda: _step(folder, at, init_record.recorded_in_config(recorded_in)),
    errors=_ERRORS,
  )
  path = reader.folder(folder) / str(step)
  sha256 = _checked_hash(path, options)
  prefix = f'{run_config.INIT_PARAMS[options.init_params]}/'

  def read(wanted):
    stored = {f'{prefix}{name}': leaf for name, leaf in wanted.items()}
    arrays = reader.restore_arrays(folder, stored, step=step)
    return {name.removeprefix(prefix): value for name, value in arrays.items()}

  return Source(
    folder,
    step,
    'raw' if options.init_params == 'raw' else 'EMA',
    sha256,
    loader.from_json(reader.read_config(folder, step=step), folder),
    _shapes(path, prefix),
    class_names.read(folder),
    read,
  )


def _of_file(
  path: pathlib.Path, at: int | str | None, options: run_config.Run
) -> Source:
  """Returns the source that a packed stage is."""
  if bucket_folders.url_of(path) is not None:
    raise ValueError(
      f'{KEY} is {options.init_from}, a packed stage in a bucket; copy the '
      'file to every host and name the copy.'
    )
  if options.init_params != 'ema':
    raise ValueError(
      f'config.train.init_params is {options.init_params!r}, but {path} holds '
      "one average of the parameters; use 'ema', or the work directory of the "
      'run.'
    )
  step, sha256 = collectives.call_in_first(
    lambda: _checked_file(path, at, options), errors=_ERRORS
  )
  packed = packed_stage.read(path)
  if packed.sha256 != sha256:
    raise ValueError(
      f'{KEY} is {options.init_from}, which is another file on this host than '
      'on that of process 0; copy the same file to every host.'
    )
  return Source(
    path,
    step,
    'EMA',
    sha256,
    loader.from_json(packed.config, path),
    {name: array.shape for name, array in packed.arrays.items()},
    packed_stage.classes(packed),
    lambda wanted: packed_stage.placed(packed, wanted),
  )


def _checked_file(path, at, options):
  """Returns (step, hash) of a packed stage that is the one that is meant."""
  try:
    packed = packed_stage.read(path)
  except FileNotFoundError as error:
    raise ValueError(f'{KEY}: {error}') from None
  if at not in (None, packed.step):
    raise ValueError(
      f'{KEY} is {options.init_from}, but the file holds step {packed.step} '
      'alone; leave the step out.'
    )
  _compare(path, packed.sha256, options)
  return packed.step, packed.sha256


def _step(
  folder: pathlib.Path, at: int | str | None, recorded: dict[str, Any]
) -> int:
  """Returns the step of the checkpoint to start from.

  A run that was killed before its first checkpoint takes the step that it
  recorded, even if the source has gone on since.
  """
  steps = reader.complete_steps(folder)
  if not steps:
    raise ValueError(
      f'{KEY}: there is no checkpoint in {folder}; give the work directory of '
      'a run that has saved one.'
    )
  if not isinstance(at, int):
    for step in steps:
      if recorded.get('init_from') == f'{bucket_folders.shown(folder)}@{step}':
        return step
  if at == reader.BEST:
    try:
      return reader.resolve_here(folder, at)
    except FileNotFoundError as error:
      raise ValueError(f'{KEY}: {error}') from error
  if at is None:
    return steps[-1]
  if at not in steps:
    raise ValueError(
      f'{KEY}: there is no checkpoint of step {at} in {folder}; there are '
      f'{steps}.'
    )
  return int(at)


def _checked_hash(path: epath.Path, options: run_config.Run) -> str:
  """Returns the hash of a checkpoint whose files are whole.

  Args:
    path: path of the checkpoint.
    options: the `train` section of the run; the hash that it gives is compared.
  """
  try:
    sound = verification.verify(path)
  except checksums.Damaged as error:
    raise damaged_file.DamagedFile(
      f'{KEY}: the checkpoint {path} is damaged: {error}. Restore a copy of '
      'it, or give another step.'
    ) from error
  if not sound:
    raise ValueError(
      f'{KEY} is {options.init_from}, whose checkpoint {path.name} has no '
      f'{checksums.FILE} and so no hash that the run could record; give a '
      'checkpoint that cdm train wrote whole.'
    )
  sha256 = hashlib.sha256((path / checksums.FILE).read_bytes()).hexdigest()
  _compare(path, sha256, options)
  return sha256


def _compare(path: Any, sha256: str, options: run_config.Run) -> None:
  """Raises ValueError if the config gives the hash of another source."""
  if options.init_from_sha256 not in ('', sha256):
    raise ValueError(
      f'{KEY}_sha256 is {options.init_from_sha256}, but the hash of {path} is '
      f'{sha256}: it is another checkpoint. Give the right one, or leave the '
      'hash out.'
    )


def _shapes(path: epath.Path, prefix: str) -> dict[str, tuple[int, ...]]:
  """Returns {name: shape} of the arrays of a checkpoint below a prefix."""
  return {
    name.removeprefix(prefix): shape
    for name, shape in reader.shapes_on_disk(path).items()
    if name.startswith(prefix)
  }
