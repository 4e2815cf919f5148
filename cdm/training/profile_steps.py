"""Writes a trace of some training steps with `jax.profiler`.

`config.train.profile_steps='100:110'` traces the updates 100 to 110, both
included, into WORKDIR/profile; with several processes each traces its own
devices, into WORKDIR/profile/process_K. The profiler names the files after the
machine, on which there may be several processes, and the folder after the
second, which the processes do not share; TensorBoard and xprof show process_K
as a run of its own. A run that is started again within the
range traces the rest of it. A trace that cannot be written never ends the run.
"""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax

FOLDER = 'profile'


def parse(text: str, num_steps: int) -> range | None:
  """Reads the steps that `config.train.profile_steps` names.

  Args:
    text: 'FIRST:LAST', both included, or ''.
    num_steps: length of the run.

  Returns:
    The steps, or None for ''.

  Raises:
    ValueError: the text has another form, or names no step of the run.
  """
  if not text:
    return None
  match = re.fullmatch(r'(\d{1,10}):(\d{1,10})', text)
  first, last = map(int, match.groups()) if match else (0, 0)
  if not 1 <= first <= last:
    raise ValueError(
      f"config.train.profile_steps is {text!r}; it must be 'FIRST:LAST', two "
      "steps from 1 in ascending order, such as '100:110', or '' for none."
    )
  if last > num_steps:
    raise ValueError(
      f'config.train.profile_steps is {text!r}, but the run ends at step '
      f'{num_steps} (train.num_steps).'
    )
  return range(first, last + 1)


class Profile:
  """Makes updates, and traces those in a range. Use as a context manager."""

  def __init__(
    self,
    steps: range | None,
    workdir: pathlib.Path,
    *,
    say: Callable[[str], object],
  ):
    """Prepares the trace.

    Args:
      steps: the updates to trace, see `parse`; None traces nothing.
      workdir: work directory of the run.
      say: prints a line.
    """
    self._steps = steps or range(0)
    self._folder = workdir / FOLDER
    self._others = ''  # where the traces of the other processes are
    if jax.process_count() > 1:
      self._folder /= f'process_{jax.process_index()}'
      last = jax.process_count() - 1
      self._others = '; process_1 beside it is that of the other process'
      if last > 1:
        self._others = (
          f'; process_1 to process_{last} beside it are those of the others'
        )
    self._say = say
    self._first: int | None = None  # first traced step, while tracing
    self._done = False  # one trace per session

  def update(
    self, step: int, train_step: Callable, state: Any, batch: Any
  ) -> Any:
    """Returns train_step(state, batch); a hook of the loop.

    Args:
      step: number of this update, from 1.
      train_step: (state, batch) -> (state, scalars).
      state, batch: its arguments.
    """
    if self._first is None and (self._done or step not in self._steps):
      return train_step(state, batch)
    if self._first is None:
      self._start(step)
    with jax.profiler.StepTraceAnnotation('train', step_num=step):
      result = train_step(state, batch)
    if step not in self._steps or step == self._steps[-1]:
      jax.block_until_ready(result)  # The host runs ahead of the devices.
      self._stop(step)
    return result

  def _start(self, step: int) -> None:
    self._done = True
    try:
      jax.profiler.start_trace(str(self._folder))
    except Exception as error:  # The profiler has many errors of its own.
      self._say(f'warning: no profile is written: {_first_line(error)}')
      return
    self._first = step

  def _stop(self, last: int | None = None) -> None:
    first, self._first = self._first, None
    if first is None:
      return
    try:
      jax.profiler.stop_trace()
    except Exception as error:
      self._say(f'warning: the profile is not written: {_first_line(error)}')
      return
    steps = f'from step {first}' if last is None else f'of steps {first}-{last}'
    files = sorted(self._folder.rglob('*.trace.json.gz'))
    name = files[-1] if files else self._folder
    self._say(
      f'a profile {steps} is in {self._folder}: open {name} at '
      f'https://ui.perfetto.dev, or see it with `xprof {self._folder}`'
      + self._others
    )

  def __enter__(self) -> 'Profile':
    return self

  def __exit__(self, *_: object) -> None:
    self._stop()


def _first_line(error: Exception) -> str:
  return (str(error) or type(error).__name__).split('\n')[0]
