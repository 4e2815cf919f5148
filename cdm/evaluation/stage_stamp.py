"""Fingerprints what draws images, so that a change of it shows."""

import hashlib
import os
import pathlib
from collections.abc import Mapping

from cdm.checkpointing import checksums, reader, verification
from cdm.sampling import named_upscaler


def of_stage(
  workdir: str | os.PathLike, note: Mapping[str, object]
) -> list[object]:
  """Returns a JSON-able fingerprint of a stage, or of an untrained method.

  Args:
    workdir: see `named_upscaler`.
    note: the manifest of what super-resolves.
  """
  if named_upscaler.parse(workdir) is None:
    return of_checkpoint(workdir, note)
  return [note['method'], note.get('searched')]


def of_checkpoint(
  workdir: str | os.PathLike, note: Mapping[str, object]
) -> list:
  """Returns a JSON-able fingerprint of a checkpoint.

  Two checkpoints of the same step, but of different training runs, have
  different fingerprints.

  Args:
    workdir: work directory of the stage.
    note: dict with the step of the checkpoint as `checkpoint`, the average as
      `ema` unless it is the main one, and the section `sampler` of a manifest,
      if there is one.
  """
  return [*_stamp(workdir, note), *_guide_stamp(note)]


def _guide_stamp(note):
  """Returns the fingerprint of the network that guides a stage; [] if none."""
  sampler = note.get('sampler')
  guide = sampler.get('guide') if isinstance(sampler, Mapping) else None
  return _stamp(guide['workdir'], guide) if guide else []


def _stamp(workdir, note):
  step = str(note['checkpoint'])
  folder = reader.folder(pathlib.Path(workdir).resolve()) / step
  sums = folder / checksums.FILE
  if not sums.exists():
    sums = folder / verification.METADATA  # It has the time of the save.
  stamp = [str(folder), hashlib.sha256(sums.read_bytes()).hexdigest()]
  return [*stamp, note['ema']] if 'ema' in note else stamp
