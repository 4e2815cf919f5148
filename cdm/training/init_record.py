"""Keeps in the config of a run what weights it started from.

The keys are those of the `train` section that begin with `init_`. They are
written at the first start and stay as they are, whatever a later start asks.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from cdm.checkpointing import reader
from cdm.config import loader, optional_keys
from cdm.config.loader import ConfigDict
from cdm.data.files import damaged_file
from cdm.distributed import bucket_folders

KEY = 'config.train.init_from'
_KEYS = tuple(
  key for key in optional_keys.in_section('train') if key.startswith('init_')
)


def parse(text: str, key: str = KEY) -> tuple[pathlib.Path, int | str | None]:
  """Splits WORKDIR, WORKDIR@STEP or WORKDIR@best.

  WORKDIR may be a gs:// URL or the path of a packed stage.

  Args:
    text: the text.
    key: dotted name of the key that has it, for error messages.

  Returns:
    (folder, step, or 'best', or None for the newest).

  Raises:
    ValueError: after the @ of no existing folder stands something else.
  """
  before, sign, after = text.rpartition('@')
  if sign and before and after.isascii() and after.isdecimal():
    return _folder(before), int(after)
  if sign and before and after == reader.BEST:
    return _folder(before), reader.BEST
  if sign and not bucket_folders.is_url(text) and not _folder(text).exists():
    raise ValueError(
      f'{key} is {text!r}; give WORKDIR, WORKDIR@STEP or '
      f'WORKDIR@{reader.BEST}, where WORKDIR is a folder that cdm train wrote '
      'or a file that cdm export wrote.'
    )
  return _folder(text), None


def _folder(text: str) -> pathlib.Path:
  if bucket_folders.is_url(text):
    return bucket_folders.mirror(text, written=False)
  return pathlib.Path(text)


def is_meant(asked: str, recorded: str) -> bool:
  """Returns whether a user's `init_from` names the source that is recorded."""
  if not recorded:
    return False
  try:
    folder, at = parse(asked)
  except ValueError:  # Its folder has gone.
    return False
  begun, step = parse(recorded)
  same = folder.absolute() == begun
  return same and (at == step or not isinstance(at, int))


def recorded_in_checkpoint(
  workdir: pathlib.Path, steps: Sequence[int]
) -> dict[str, Any]:
  """Returns what the newest readable checkpoint has recorded of the start."""
  for step in reversed(steps):
    try:
      text = reader.read_config(workdir, step=step)
      return _start_keys(loader.from_json(text, workdir))
    except (damaged_file.DamagedFile, ValueError):
      continue  # Restoring will set it aside, or an earlier cdm wrote it.
  return {}


def recorded_in_config(path: pathlib.Path) -> dict[str, Any]:
  """Returns what config.json has recorded of the start of a run, or {}."""
  try:
    return _start_keys(loader.read_json(path))
  except (OSError, ValueError, damaged_file.DamagedFile):
    return {}  # a copy for people, which the run writes anew


def _start_keys(c: ConfigDict) -> dict[str, Any]:
  train = c.get('train') or {}
  return {key: train[key] for key in _KEYS if key in train}


def with_record(
  c: ConfigDict, values: dict[str, Any], *, only: bool = False
) -> ConfigDict:
  """Returns a copy of a config with other values in its `train` section.

  Args:
    c: the config.
    values: {key: value}.
    only: whether the other keys about the start of a run are removed.
  """
  present = _start_keys(c)
  if present == values or (not only and present | values == present):
    return c
  changed = c.copy_and_resolve_references()
  with changed.unlocked():
    if only:
      for key in present:
        del changed.train[key]
    for key, value in values.items():
      changed.train[key] = value
  return changed.lock()
