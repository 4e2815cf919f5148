"""Writes tracebacks and stacks to WORKDIR/failures, to explain a failed run.

A file TIME-NAME.txt holds the traceback of an error that ended the run, or the
stacks of all threads of a run that hangs. These functions never raise, because
they are called when something has failed already.
"""

import contextlib
import os
import pathlib
import sys
import threading
import time
import traceback

FOLDER = 'failures'


def write_crash_report(
  workdir: str | os.PathLike, name: str, text: str
) -> pathlib.Path | None:
  """Writes a text to a new file in the folder `failures` of a work directory.

  Args:
    workdir: work directory of the run.
    name: a word that goes into the file's name.
    text: contents of the file.

  Returns:
    Path of the file, or None if it could not be written.
  """
  stamp = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
  folder, number = pathlib.Path(workdir) / FOLDER, 0
  try:
    folder.mkdir(parents=True, exist_ok=True)
    while True:
      again = f'-{number}' if number else ''
      path = folder / f'{stamp}-{name}{again}.txt'
      with (
        contextlib.suppress(FileExistsError),
        open(path, 'x', encoding='utf-8', errors='backslashreplace') as file,
      ):
        file.write(text)
        return path
      number += 1
  except OSError:
    return None


def whole_traceback(error: BaseException) -> str:
  """Returns the traceback of an error and of the errors that caused it."""
  return ''.join(traceback.format_exception(error))


def stacks() -> str:
  """Returns the current stack of every thread of this process, as text."""
  frames, parts = sys._current_frames(), []
  for thread in threading.enumerate():
    frame = frames.get(thread.ident)
    if frame is not None:
      lines = ''.join(traceback.format_stack(frame))
      parts.append(f'Thread {thread.name!r}:\n{lines}')
  return '\n'.join(parts)
