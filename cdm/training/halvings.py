"""Distils a trained network into students of fewer and fewer steps.

Each student is an ordinary run of `trainer.train` in a work directory of its
own, WORKDIR/steps_N, with an ordinary config. It begins as its teacher: the
first one's is the network that is given, every later one's the student before.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdm.checkpointing import reader
from cdm.config import cascade_stages, instantiate, loader, student_stage
from cdm.distributed import collectives, exit_codes
from cdm.training import trainer

if TYPE_CHECKING:
  from cdm.config.loader import ConfigDict
  from cdm.training.evaluators import MakeFid
  from cdm.training.preemption import Stop


def distil(
  c: ConfigDict,
  workdir: pathlib.Path,
  *,
  teacher: str,
  steps: Sequence[int] = (),
  stop: Stop | None = None,
  make_fid: MakeFid | None = None,
) -> int:
  """Trains the students that are not complete yet, one after the other.

  Args:
    c: config of the students; its number of steps is that of the first.
    workdir: the folder of their work directories.
    teacher: the network that is given, see `training.teacher`.
    steps: the numbers of steps of the students; () halves that of the config
      down to 1.
    stop, make_fid: see `trainer.train`.

  Returns:
    The exit code of the first student that was not completed, else 0.

  Raises:
    ValueError: the config or the steps cannot be used.
    Exception: see `trainer.train`.
  """
  cascade_stages.refuse_cascade(c, 'distilled')
  instantiate.require(c, 'name', 'method', 'sampler', 'train')
  if c.method.get('kind') not in student_stage.KINDS:
    raise ValueError(
      f'{c.name!r} has method.kind={c.method.get("kind")!r}, which has no '
      f'teacher; cdm distill takes {", ".join(student_stage.KINDS)}.'
    )
  for n in checked_steps(c, steps):
    folder = workdir / f'steps_{n}'
    done = reader.agreed_steps(folder)
    if done and done[-1] >= c.train.num_steps:
      _say(f'{folder} is complete')
    else:
      _say(f'{folder}: the student of {n}, whose teacher is {teacher}')
      student = with_steps(c, n, teacher)
      code = trainer.train(student, folder, stop=stop, make_fid=make_fid)
      if code:
        return code
    if student_stage.is_halved(c.method.kind):
      teacher = str(folder)
  return exit_codes.COMPLETE.code


def checked_steps(c: ConfigDict, steps: Sequence[int]) -> list[int]:
  """Returns the numbers of steps of the students.

  Args:
    c: config of the students.
    steps: see `distil`.

  Raises:
    ValueError: a student cannot learn from the one before.
  """
  first = c.method.get('num_steps')
  found = list(steps)
  halves = student_stage.is_halved(c.method.kind)
  if not found:
    found = [first]
    while halves and found[-1] > 1:
      found.append(found[-1] // 2)
  pairs = zip(found[:-1], found[1:], strict=True)
  if any(n < 1 for n in found) or (
    halves and any(a != 2 * b for a, b in pairs)
  ):
    raise ValueError(
      f'The students would have {", ".join(map(str, found))} steps, but each '
      'takes half as many as its teacher. Begin with a power of two, as in '
      '--config.method.num_steps=16, or give --steps=16,8,4.'
    )
  return found


def with_steps(c: ConfigDict, num_steps: int, teacher: str) -> ConfigDict:
  """Returns the config of the student of so many steps.

  Args:
    c: config of the students.
    num_steps: its number of steps, in which its sampler draws.
    teacher: see `training.teacher`.
  """
  student = c.copy_and_resolve_references()
  kept = student_stage.sampler_fields(loader.plain(c.sampler))
  with student.ignore_type(), student.unlocked():
    student.method.num_steps = num_steps
    student.method.teacher = teacher
    # It draws in its own steps, whatever it draws for.
    student.train.sample_steps = None
    if 'eval' in student:
      student.eval.sampler_steps = None
    student.sampler = loader.ConfigDict(
      dict(
        kind='ddim',
        eta=0.0,
        grid=dict(kind='trailing', num_steps=num_steps),
        **kept,
      )
    )
  return student.lock()


def _say(text: str) -> None:
  if collectives.is_first():
    print(f'cdm distill: {text}', file=sys.stderr, flush=True)
