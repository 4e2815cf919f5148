"""Finds the teacher of a student, and reads its parameters.

`config.method.teacher` names its checkpoint: WORKDIR, WORKDIR@STEP or
WORKDIR@best. Only the first start of a run reads it. That start writes the
folder, the step and a hash of the checkpoint into the config of the run, and
how the teacher's sampler denoises; the parameters become a part of the state.
A run is therefore resumed without its teacher.

A student starts from the parameters of its teacher, unless
`config.train.init_from` names others.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cdm.checkpointing import checksums, reader, verification
from cdm.config import instantiate, loader, student_stage
from cdm.data.files import damaged_file
from cdm.distributed import bucket_folders, collectives
from cdm.methods import diffusion_score
from cdm.reporting import bucket_mirror
from cdm.training import init_record

if TYPE_CHECKING:
  from cdm.config.loader import ConfigDict

KEY = 'config.method.teacher'
# What a run writes of its teacher, and what cannot change while it goes on.
RECORD = ('teacher', 'teacher_sampler', 'teacher_sha256')
# What teacher and student have in common. Of these sections the second list has
# the keys that change no prediction.
SHARED = ('schedule', 'lowres', 'model')
FREE = ('dropout', 'dtype', 'remat', 'attention')
SHARED_METHOD = ('prediction', 'residual_scale')


def resolved(c: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
  """Returns the config of a run with what it records of its teacher.

  Every process must call it. The config of a run without a teacher is returned
  as it is.

  Args:
    c: config of the run.
    workdir: work directory of the run.

  Raises:
    ValueError: there is no such teacher, it is another network, or the run has
      begun with another one.
    damaged_file.DamagedFile: its checkpoint is damaged.
  """
  if not is_student(c):
    return c
  steps = reader.agreed_steps(workdir)
  if steps:
    return _resumed(c, workdir, steps)
  asked = c.method.get('teacher', '')
  if not asked:
    raise ValueError(
      f'{KEY} is empty, but method.kind={c.method.kind!r} learns from a '
      'trained network; give its work directory with '
      '--config.method.teacher=WORKDIR.'
    )
  folder, at = init_record.parse(asked, KEY)
  folder = folder.absolute()
  if bucket_folders.url_of(folder) is not None:
    bucket_mirror.fill_for_reading(folder)
  step = collectives.call_in_first(
    lambda: _step(folder, at, workdir),
    errors=(damaged_file.DamagedFile, ValueError),
  )
  saved = loader.from_json(reader.read_config(folder, step=step), folder)
  _check_same(saved, c, asked)
  place = f'{bucket_folders.shown(folder)}@{step}'
  record = {
    'teacher': place,
    'teacher_sampler': student_stage.sampler_fields(saved.sampler),
    'teacher_sha256': _checked_hash(
      reader.folder(folder) / str(step), c.method.get('teacher_sha256', '')
    ),
  }
  c = _with_record(c, record)
  if not c.train.get('init_from', ''):
    c = init_record.with_record(c, {'init_from': place})
  return c


def is_student(c: ConfigDict) -> bool:
  """Returns whether a config describes a stage that learns from a teacher."""
  method = c.get('method')
  kind = method.get('kind') if isinstance(method, loader.ConfigDict) else None
  return kind in student_stage.KINDS


def frozen_reader(c: ConfigDict) -> Callable[[Any], Any] | None:
  """Returns what reads the parameters of the teacher, for `frozen_state.make`.

  Args:
    c: config of the run, from `resolved`.

  Returns:
    (shapes with shardings) -> arrays; None if the method has no teacher.
  """
  if not is_student(c):
    return None
  folder, step = init_record.parse(c.method.teacher, KEY)
  return functools.partial(_read, folder, step)


def _read(folder, step, abstract):
  # A student needs no weight of the loss that its teacher has learned.
  return reader.restore_ema(
    folder, abstract, step=step, unread=diffusion_score.UNCERTAINTY
  )[0]


def _step(folder: pathlib.Path, at: int | str | None, workdir: pathlib.Path):
  """Returns the step of the checkpoint of a teacher.

  A run that was killed before its first checkpoint takes the step that it
  recorded, even if its teacher has gone on since.
  """
  if not isinstance(at, int):
    for step in reader.complete_steps(folder):
      place = f'{bucket_folders.shown(folder)}@{step}'
      if _recorded(workdir).get('teacher') == place:
        return step
  try:
    return reader.resolve_here(folder, at)
  except FileNotFoundError as error:
    raise ValueError(f'{KEY}: {error}') from error


def _recorded(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns what config.json has recorded of the teacher, or {}."""
  try:
    return _record_of(loader.read_json(workdir / reader.CONFIG))
  except (OSError, ValueError, damaged_file.DamagedFile):
    return {}  # a copy for people, which the run writes anew


def _record_of(c: ConfigDict) -> dict[str, Any]:
  method = c.get('method') or {}
  return {key: method[key] for key in RECORD if key in method}


def _checked_hash(path: Any, given: str) -> str:
  """Returns the hash of a checkpoint whose files are whole.

  Args:
    path: path of the checkpoint.
    given: the hash that the config gives, with which it is compared; or ''.
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
      f'{KEY}: the checkpoint {path} has no {checksums.FILE} and so no hash '
      'that the run could record; give a checkpoint that cdm train wrote whole.'
    )
  sha256 = hashlib.sha256((path / checksums.FILE).read_bytes()).hexdigest()
  if given not in ('', sha256):
    raise ValueError(
      f'{KEY}_sha256 is {given}, but the hash of {path} is {sha256}: it is '
      'another checkpoint. Give the right one, or leave the hash out.'
    )
  return sha256


def _check_same(saved: ConfigDict, c: ConfigDict, asked: str) -> None:
  """Raises ValueError unless a teacher is the network that the student is.

  Args:
    saved: config of the teacher.
    c: config of the student.
    asked: how the teacher is named.
  """
  if 'sampler' not in saved or 'schedule' not in saved:
    raise ValueError(
      f'{KEY} is {asked}, which holds {saved.get("name")!r} with '
      f'method.kind={saved.method.kind!r}; give a trained diffusion model.'
    )
  differences = []
  for section in SHARED:
    old, new = (_shared(one, section) for one in (saved, c))
    differences += loader.changes(old, new)
  if not differences:
    return
  raise ValueError(
    f'{KEY} is {asked}, whose network is another (teacher -> student): '
    f'{"; ".join(differences[:3])}. A student has the network, the schedule '
    'and the low-res input of its teacher; copy these sections from '
    f'{saved.name!r}.'
  )


def _shared(c: ConfigDict, section: str) -> ConfigDict:
  """Returns what teacher and student must have in common, as a config."""
  found = instantiate.as_dict(section, c[section] or {})
  kept = {key: value for key, value in found.items() if key not in FREE}
  shared = {section: kept}
  if section == 'model':
    method = {key: c.method.get(key) for key in SHARED_METHOD}
    shared = {**shared, 'method': method, 'pipeline': _size(c)}
  return loader.ConfigDict(shared)


def _size(c):
  return {'image_size': c.pipeline.image_size}


def _resumed(
  c: ConfigDict, workdir: pathlib.Path, steps: list[int]
) -> ConfigDict:
  """Returns the config of a run that goes on with its teacher."""
  recorded = None
  for step in reversed(steps):
    try:
      text = reader.read_config(workdir, step=step)
      recorded = loader.from_json(text, workdir).method
      break
    except (damaged_file.DamagedFile, ValueError):
      continue  # Restoring will set it aside, or an earlier cdm wrote it.
  if recorded is None:
    return c
  asked = c.method.get('teacher', '')
  begun = recorded.get('teacher', '')
  if asked and not init_record.is_meant(asked, begun):
    raise ValueError(
      f'{KEY} is {asked}, but the run in {workdir} began with the teacher '
      f'{begun}, which is a part of its state; use another --workdir, or leave '
      'the teacher out.'
    )
  for key in ('kind', *student_stage.FIXED):
    if c.method.get(key) != recorded.get(key):
      raise ValueError(
        f'config.method.{key} is {c.method.get(key)!r}, but the run in '
        f'{workdir} began with {recorded.get(key)!r}, and its student has '
        'learned that; use another --workdir, or '
        f'--config.method.{key}={recorded.get(key)}.'
      )
  return _with_record(c, {k: recorded[k] for k in RECORD if k in recorded})


def _with_record(c: ConfigDict, record: dict[str, Any]) -> ConfigDict:
  """Returns a copy of a config with other values in its `method` section."""
  changed = c.copy_and_resolve_references()
  with changed.ignore_type(), changed.unlocked():
    for key, value in record.items():
      changed.method[key] = value
  return changed.lock()
