"""Compares a checkpoint with its checksums; the processes share its files."""

import logging
from typing import Any

import jax
from etils import epath

from cdm.checkpointing import checksums, single_files, visible_files
from cdm.data.files import damaged_file, transient_errors
from cdm.distributed import collectives

# Orbax changes this file after the checksums are written.
METADATA = '_CHECKPOINT_METADATA'

_log = logging.getLogger(__name__)


def verify(path: epath.Path) -> bool:
  """Compares a checkpoint with its checksums; the processes share its files.

  A collective: every process must call this function, and all of them return
  or raise.

  Returns:
    True if the files match; False if the checkpoint has no checksums, so that
    only Orbax can find damage when it reads the files.

  Raises:
    checksums.Damaged: names the damaged file. If another process met an error,
      of any type, this says what it was.
    transient_errors.NotAnswering: a file could not be read for a long time, by
      this process or another one, which tells nothing about the checkpoint.
    OSError: this process cannot read a file.
  """
  visible_files.wait_for(path)
  sound, failed = False, None
  try:
    sound = _check_files(path)
  except Exception as error:
    failed = error
  reason = None if failed is None else str(failed) or type(failed).__name__
  unread = transient_errors.not_of_the_file(failed)
  reports = collectives.gather_objects([sound, reason, unread])
  # What all processes do next depends on the kind of error, so all raise the
  # same kind.
  for index, (_, reason, other_unread) in enumerate(reports):
    if other_unread and not unread:
      raise transient_errors.NotAnswering(
        f'{reason} (found by process {index})'
      )
  if failed is not None:
    raise failed
  for index, (_, reason, _) in enumerate(reports):
    if reason is not None:
      raise checksums.Damaged(f'{reason} (found by process {index})')
  return all(sound for sound, _, _ in reports)


def _check_files(path: epath.Path) -> bool:
  """Checks this process's share of the files of a checkpoint."""
  if collectives.is_first():
    try:
      single_files.read_json(path / METADATA, dict[str, Any], remedy='')
    except FileNotFoundError as error:
      raise checksums.Damaged(f'{METADATA} is missing') from error
    except damaged_file.DamagedFile as error:
      raise checksums.Damaged(f'{METADATA} cannot be read') from error
  share = checksums.Share(jax.process_index(), collectives.process_count())
  if checksums.check(path, share=share):
    return True
  if collectives.is_first():
    _log.warning('%s has no checksums, so it is read without a check.', path)
  return False
