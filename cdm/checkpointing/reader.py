"""Reads what a run left in its work directory: steps, config, EMA parameters.

A checkpoint is checked before it is read: its files against their checksums,
its shapes against those of the model. `writer` says what is in it.
"""

import json
import logging
import pathlib

import jax
import orbax.checkpoint as ocp

from cdm.checkpointing import checksums
from cdm.distributed import collectives

CHECKPOINTS = 'checkpoints'
CONFIG = 'config.json'
METADATA = '_CHECKPOINT_METADATA'  # Orbax changes it after the checksums

_log = logging.getLogger(__name__)


def complete_steps(workdir):
  """-> steps of the complete checkpoints of a work directory, ascending."""
  directory = pathlib.Path(workdir).absolute() / CHECKPOINTS
  if not directory.is_dir():
    return []
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def read_config(workdir, *, step=None):
  """Reads the config that a checkpoint was made with.

  Args:
    workdir: work directory of a training run.
    step: of the checkpoint; the newest by default.

  Returns:
    The text that the run gave to Checkpointer.

  Raises:
    FileNotFoundError: if there is no such checkpoint.
  """
  silence_orbax()
  path = _step_path(workdir, step)
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
    args = ocp.args.Composite(config=ocp.args.JsonRestore())
    return reader.restore(path, args=args)['config']['text']


def restore_ema(workdir, abstract_params, *, step=None):
  """Reads the EMA parameters of a checkpoint and nothing else.

  Args:
    workdir: work directory of a training run.
    abstract_params: tree of ShapeDtypeStructs; where one carries a sharding,
      that is where it goes, else to the default device.
    step: of the checkpoint; the newest by default.

  Returns:
    (tree of jax.Array, step of the checkpoint).

  Raises:
    FileNotFoundError: if there is no such checkpoint.
    ValueError: if it is damaged, holds no EMA or is of another model.
  """
  silence_orbax()
  path = _step_path(workdir, step)
  _refuse_damaged(path)
  target = {'ema_params': jax.tree.map(_placed, abstract_params)}
  check_model(shapes_on_disk(path), shapes(target), path)
  restore = ocp.args.PyTreeRestore(
    target,
    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
    partial_restore=True,  # the rest, three times as much, stays on disk
  )
  with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
    restored = reader.restore(path, args=ocp.args.Composite(state=restore))
  return restored['state']['ema_params'], int(path.name)


def _refuse_damaged(path):
  try:
    verify(path)
  except checksums.Damaged as error:
    raise ValueError(
      f'The checkpoint {path} is damaged: {error}. Restore a copy of it, or '
      'start cdm train there, which sets it aside and goes on from the one '
      'before.'
    ) from error


def _step_path(workdir, step):
  workdir = pathlib.Path(workdir).absolute()
  steps = complete_steps(workdir)
  if not steps:
    raise FileNotFoundError(
      f'There is no checkpoint in {workdir}; train there first, or point '
      '--workdir at the directory of a training run.'
    )
  if step is not None and step not in steps:
    raise FileNotFoundError(
      f'There is no checkpoint of step {step} in {workdir}; there are {steps}.'
    )
  return workdir / CHECKPOINTS / str(steps[-1] if step is None else step)


def _placed(leaf):
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


class OtherModel(ValueError):
  """The checkpoint is sound, but not of this model."""


def verify(path):
  """Compares a checkpoint with its checksums; the same answer everywhere.

  Returns:
    True, or False where it has none and Orbax must find out.

  Raises:
    checksums.Damaged: naming the file.
    OSError: it cannot be read.
  """
  sound, error = False, None
  if collectives.is_first():  # the others would read the same files
    try:
      sound = _check_files(path)
    except Exception as found:
      error = found
  verdict = collectives.broadcast_from_first(2 if error else int(sound))
  if error is not None:
    raise error
  if verdict == 2:
    raise checksums.Damaged(f'process 0 found {path} damaged')
  return bool(verdict)


def _check_files(path):
  try:
    json.loads((path / METADATA).read_text())
  except FileNotFoundError as error:
    raise checksums.Damaged(f'{METADATA} is missing') from error
  except ValueError as error:
    raise checksums.Damaged(f'{METADATA} cannot be read') from error
  if checksums.check(path):
    return True
  _log.warning('%s has no checksums; it is read unchecked.', path)
  return False


def _named(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def shapes(tree):
  """-> {name: shape} of a state; the run's key is not part of a model."""
  return {k: tuple(v.shape) for k, v in _named(tree).items() if k != 'key'}


def shapes_on_disk(path):
  """-> {name: shape} of the state in a checkpoint, from its metadata alone."""
  with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
    return shapes(reader.metadata(path / 'state').item_metadata.tree)


def check_model(stored, wanted, path):
  """Raises ValueError unless a checkpoint has all that is wanted of it.

  Args:
    stored: {name: shape} of the checkpoint.
    wanted: {name: shape}, whole fields of TrainState.
    path: of the checkpoint.
  """
  fields = dict.fromkeys(name.split('/')[0] for name in wanted)
  if 'ema_params' in fields and not _of_field(stored, 'ema_params'):
    raise OtherModel(
      f'{path} holds no EMA parameters (ema_params). Raw weights are no '
      'substitute: their samples are worse. Use a checkpoint that cdm train '
      'wrote.'
    )
  for field in fields:
    have, want = _of_field(stored, field), _of_field(wanted, field)
    for name in [*want, *sorted(have.keys() - want.keys())]:
      if have.get(name) != want.get(name):
        made_with = 'optimizer' if field == 'opt_state' else 'model'
        raise OtherModel(
          f'{path} was made with another {made_with}. First difference: {name} '
          f'is {_shown(have, name)} in the checkpoint and '
          f'{_shown(want, name)} here. Use the config saved with it '
          f'({path.parent.parent / CONFIG}), or another --workdir.'
        )


def _of_field(shapes, field):
  return {k: v for k, v in shapes.items() if k.split('/')[0] == field}


def _shown(shapes, name):
  return list(shapes[name]) if name in shapes else 'absent'


def silence_orbax():
  """Drops Orbax's log lines: what goes wrong there is raised to us.

  Otherwise one full disk prints the same traceback six times.
  """
  logger = logging.getLogger('absl')
  if _not_orbax not in logger.filters:
    logger.addFilter(_not_orbax)


def _not_orbax(record):
  return 'orbax' not in pathlib.PurePath(record.pathname).parts
