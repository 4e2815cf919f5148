"""Reads checkpoints of a run: their steps, config and EMA parameters.

Before anything is read, its files are compared with their checksums, and the
array shapes with those of the model. The module docstring of
`checkpointing.writer` shows what a checkpoint contains.
"""

import contextlib
import errno
import json
import os
from collections.abc import Generator, Mapping
from typing import Any, TypedDict

import jax
from etils import epath

from cdm.checkpointing import (
  average_names,
  checkpoint_name,
  checksums,
  model_check,
  orbax_output,
  single_files,
  state_arrays,
  stored_format,
  verification,
  visible_files,
)
from cdm.data.files import damaged_file, transient_errors
from cdm.distributed import bucket_folders, collectives, replica_comparison

CHECKPOINTS = 'checkpoints'
CONFIG = 'config.json'
BEST = 'best'  # file in CHECKPOINTS, see `Best`
COMMITTED = 'commit_success.txt'  # in a bucket, see `is_complete`


class Best(TypedDict):
  """The best checkpoint of a run, the content of checkpoints/best.

  Attributes:
    step: step of the checkpoint.
    metric: scalar by which it is the best, `eval.best` of the config.
    value: value of that scalar at that step.
  """

  step: int
  metric: str
  value: float


# Errors that do not mean damaged files, such as running out of memory.
NOT_DAMAGE = (
  model_check.ModelMismatch,
  stored_format.OtherFormat,
  jax.errors.JaxRuntimeError,
  MemoryError,
)


def folder(workdir: str | os.PathLike) -> epath.Path:
  """Returns the folder of a run's checkpoints, which may be in a bucket."""
  return bucket_folders.storage(workdir) / CHECKPOINTS


def complete_steps(workdir: str | os.PathLike) -> list[int]:
  """Returns the steps of the complete checkpoints, in ascending order.

  They are those that this process sees; `agreed_steps` returns the same ones in
  every process.
  """
  return complete_in(folder(workdir))


def complete_in(directory: epath.Path) -> list[int]:
  """Returns the steps of the complete ones in a folder, in ascending order."""
  if not directory.is_dir():
    return []
  # The digits are those that int() knows: '²' is one to isdigit.
  found = [path for path in directory.iterdir() if path.name.isdecimal()]
  return sorted(int(path.name) for path in found if is_complete(path))


def agreed_steps(workdir: str | os.PathLike) -> list[int]:
  """Returns the steps of the complete checkpoints that process 0 sees.

  A collective: every process must call it, in the same order.
  """
  return collectives.call_in_first(lambda: complete_steps(workdir))


def is_complete(path: epath.Path) -> bool:
  """Returns whether a folder with the name of a step is a whole checkpoint.

  On disk it gets that name when it is whole. In a bucket, where folders cannot
  be renamed, Orbax writes a last file into it.
  """
  return not single_files.is_remote(path) or (path / COMMITTED).exists()


def read_best(workdir: str | os.PathLike) -> Best | None:
  """Reads which checkpoint of a run is the best.

  Returns:
    The content of checkpoints/best, or None if there is no such file.

  Raises:
    damaged_file.DamagedFile: the file is damaged.
  """
  path = folder(workdir) / BEST
  try:
    return single_files.read_json(
      path, Best, remedy='Remove it; cdm train writes it anew.'
    )
  except FileNotFoundError:
    return None


def resolve(workdir: str | os.PathLike, at: int | str | None = None) -> int:
  """Returns the step of the checkpoint that is meant, as process 0 sees it.

  A collective: every process must call it, in the same order. When it returns,
  this process sees the checkpoint too.

  Args:
    workdir: work directory of a training run.
    at: a step; None for the newest checkpoint; 'best' for the one that
      checkpoints/best names. An average that is named with it, see
      `checkpoint_name`, does not matter here.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: `at` is another text.
    damaged_file.DamagedFile: checkpoints/best is damaged.
    visible_files.NotVisible: process 0 sees it, and this process does not.
  """
  step = collectives.call_in_first(
    lambda: resolve_here(workdir, at),
    errors=(FileNotFoundError, damaged_file.DamagedFile, ValueError),
  )
  visible_files.wait_for(folder(workdir) / str(step))
  return step


def resolve_here(workdir: str | os.PathLike, at: int | str | None) -> int:
  """Does what `resolve` does, but with the files that this process sees."""
  at, _ = checkpoint_name.split(at)
  steps = complete_steps(workdir)
  workdir = bucket_folders.storage(workdir)
  if not steps:
    raise FileNotFoundError(
      f'There is no checkpoint in {workdir}; train there first, or point '
      '--workdir at the directory of a training run.'
    )
  if at is None:
    return steps[-1]
  if isinstance(at, str):
    if at != BEST:
      raise ValueError(
        f'The checkpoint {at!r} of {workdir} was asked for; give a step, one '
        f'of {steps}, or {BEST!r}.'
      )
    best = read_best(workdir)
    if best is None:
      raise FileNotFoundError(
        f'No checkpoint of {workdir} is known as the best, because the run '
        'compares none. Train it with a metric, such as '
        '--config.eval.best=held_out/ema_loss, or give one of the steps '
        f'{steps}.'
      )
    at = best['step']
  if at not in steps:
    raise FileNotFoundError(
      f'There is no checkpoint of step {at} in {workdir}; there are {steps}.'
    )
  return at


def read_config(
  workdir: str | os.PathLike, *, step: int | str | None = None
) -> str:
  """Reads the config that a checkpoint was made with.

  Args:
    workdir: work directory of a training run.
    step: which checkpoint, see `resolve`; None reads the newest.

  Returns:
    The config text that the run passed to `writer.Checkpointer`.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    damaged_file.DamagedFile: its config is damaged.
  """
  orbax_output.silence()
  path = _step_path(workdir, step)
  # Only the files of the config, which are small: every process reads them, and
  # the others are compared when they are read.
  with _refusing_damage(path):
    checksums.check(path, below='config')
    found = read_part(path, 'config')
    if not isinstance(found, dict) or not isinstance(found.get('text'), str):
      raise checksums.Damaged('config holds no text')
  return found['text']


def restore_ema(
  workdir: str | os.PathLike,
  abstract_params: Any,
  *,
  step: int | str | None = None,
  average: str = average_names.MAIN,
  unread: str = '',
) -> tuple[Any, int]:
  """Reads the EMA parameters of a checkpoint and nothing else.

  Args:
    workdir: work directory of a training run.
    abstract_params: tree of ShapeDtypeStructs. An array is restored to the
      sharding of its struct, or to the first local device if it has none.
    step: which checkpoint, see `resolve`; None reads the newest.
    average: name of the average to read, see `average_names`.
    unread: name of the parameters that a checkpoint may have besides.

  Returns:
    (tree of jax.Array, step of the checkpoint).

  Raises:
    FileNotFoundError: there is no such checkpoint.
    damaged_file.DamagedFile: the checkpoint is damaged.
    model_check.ModelMismatch: it holds no EMA parameters, or was made with
      another model.
  """
  orbax_output.silence()
  path = _step_path(workdir, step)
  params = jax.tree.map(_with_sharding, abstract_params)
  target: dict[str, Any] = {'ema_params': params}
  if average != average_names.MAIN:
    check_average(workdir, path, average)
    target = {average_names.FIELD: {average_names.key(average): params}}
  with _refusing_damage(path):
    sound = verification.verify(path)
    check_stored_model(path, target, unread)
  (params,) = _restore(path, target, sound=sound).values()
  if average != average_names.MAIN:
    (params,) = params.values()
  replica_comparison.check_restored(params, int(path.name))
  return params, int(path.name)


def averages(path: epath.Path) -> list[str]:
  """Returns the names of the averages that a checkpoint has beside the main.

  A collective, see `shapes_on_disk`.
  """
  return average_names.stored(shapes_on_disk(path))


def check_average(
  workdir: str | os.PathLike, path: epath.Path, average: str
) -> None:
  """Raises ValueError if a checkpoint does not have an average.

  Args:
    workdir: work directory of the run, for the message.
    path: path of the checkpoint.
    average: name of the average.
  """
  kept = [average_names.MAIN, *averages(path)]
  if average not in kept:
    raise ValueError(
      f'--ema={average}: the checkpoint of step {path.name} in {workdir} keeps '
      f'the averages {", ".join(kept)}; give one of them.'
    )


def restore_arrays(
  workdir: str | os.PathLike,
  abstract: Mapping[str, jax.ShapeDtypeStruct],
  *,
  step: int,
) -> dict[str, jax.Array]:
  """Reads chosen arrays of a checkpoint's state, and nothing else.

  The files are not compared with their checksums; `verification` does that.

  Args:
    workdir: work directory of a training run.
    abstract: {name: struct}, with names as in `shapes_on_disk`. An array is
      restored to the sharding of its struct, or to the first local device if it
      has none; its shape must be that on disk.
    step: step of the checkpoint.

  Returns:
    {name: array}.

  Raises:
    FileNotFoundError: there is no such checkpoint.
  """
  orbax_output.silence()
  path = _step_path(workdir, step)
  target: dict[str, Any] = {}
  for name, leaf in abstract.items():
    *above, last = name.split('/')
    node = target
    for part in above:
      node = node.setdefault(part, {})
    node[last] = _with_sharding(leaf)
  return _leaves_by_name(_restore(path, target, sound=True))


def _restore(path: epath.Path, target: Any, *, sound: bool) -> Any:
  """Reads the part of a checkpoint's state that `target` describes.

  Args:
    path: path of the checkpoint.
    target: tree of ShapeDtypeStructs with shardings.
    sound: whether the files match their checksums.
  """
  # What the checksums vouch for is not damaged: an error is a fault of ours.
  guard = contextlib.nullcontext() if sound else _refusing_damage(path)
  with guard:  # The rest of the state is three times as large.
    return state_arrays.read(path / 'state', target, partial=True)


def read_part(path: epath.Path, name: str) -> Any:
  """Returns the content of a part of a checkpoint that is no array.

  Args:
    path: path of the checkpoint.
    name: name of the part, for example 'config'.

  Raises:
    Exception: it is missing or damaged.
  """
  return json.loads((path / name / 'metadata').read_text(encoding='utf-8'))


@contextlib.contextmanager
def _refusing_damage(path: epath.Path) -> Generator[None]:
  """Context manager in which a damaged checkpoint becomes one clear error."""
  try:
    yield
  except NOT_DAMAGE:
    raise
  # Without checksums, Orbax may raise any type of error at a damaged file.
  except Exception as error:
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EIO):
      raise
    # A sound one must not be set aside.
    if transient_errors.not_of_the_file(error):
      raise
    reason = str(error) or type(error).__name__
    if not isinstance(error, checksums.Damaged):
      reason = f'{type(error).__name__}: {reason}'.splitlines()[0][:200]
    raise damaged_file.DamagedFile(
      f'The checkpoint {path} is damaged: {reason}. Restore a copy of it, or '
      'start cdm train there, which sets it aside and continues from the one '
      'before.'
    ) from error


def _step_path(
  workdir: str | os.PathLike, step: int | str | None
) -> epath.Path:
  """Returns the path of a checkpoint.

  A collective unless `step` is a number, see `resolve`. One that does not exist
  is an error in process 0, which ends the other processes while they wait.
  """
  if isinstance(step, int):
    if collectives.is_first():
      resolve_here(workdir, step)
    visible_files.wait_for(folder(workdir) / str(step))
    return folder(workdir) / str(step)
  return folder(workdir) / str(resolve(workdir, step))


def _with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
  """Returns a leaf's struct, by default on the first local device."""
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _leaves_by_name(tree: Any) -> dict[str, Any]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Returns {name: shape} of a training state, without its random key.

  The key does not tell one model from another, because it belongs to the run.
  """
  leaves = _leaves_by_name(tree)
  return {k: tuple(v.shape) for k, v in leaves.items() if k != 'key'}


def shapes_on_disk(path: epath.Path) -> dict[str, tuple[int, ...]]:
  """Returns {name: shape} of a checkpoint's state, from its metadata alone.

  A collective: process 0 reads them, for all.

  Raises:
    stored_format.OtherFormat: this program cannot read the checkpoint.
  """
  found = collectives.call_in_first(
    lambda: _shapes_here(path), errors=(stored_format.OtherFormat,)
  )
  return {name: tuple(shape) for name, shape in found.items()}


def _shapes_here(path):
  stored_format.check(path)
  return shapes(state_arrays.handler().metadata(path / 'state').tree)


def check_stored_model(path: epath.Path, target: Any, unread: str = '') -> None:
  """Checks the format of a checkpoint, and its arrays as `model_check` does.

  A collective: process 0 looks, and all processes return or raise.

  Args:
    path: path of the checkpoint.
    target: tree of arrays or ShapeDtypeStructs.
    unread: see `restore_ema`.

  Raises:
    stored_format.OtherFormat: this program cannot read the checkpoint.
    model_check.ModelMismatch: see `model_check.check_model`.
  """

  def check():
    stored = _shapes_here(path)
    if unread:
      stored = {k: v for k, v in stored.items() if unread not in k.split('/')}
    model_check.check_model(stored, shapes(target), path)

  collectives.call_in_first(
    check, errors=(model_check.ModelMismatch, stored_format.OtherFormat)
  )
