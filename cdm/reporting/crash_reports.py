"""Keeps what is needed to understand a failure: WORKDIR/failures/TIME-NAME.txt.

Tracebacks of errors that ended a run, and stacks of all threads of one that
hangs. Nothing here raises: it is called when something is already wrong.
"""

import contextlib
import pathlib
import sys
import threading
import time
import traceback

FOLDER = 'failures'


def write_crash_report(workdir, name, text):
  """Writes a text into the failures of a work directory.

  Args:
    workdir: of the run.
    name: a word for the file's name.
    text: str.

  Returns:
    pathlib.Path, or None if it could not be written.
  """
  stamp = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
  folder, number = pathlib.Path(workdir) / FOLDER, 0
  try:
    folder.mkdir(parents=True, exist_ok=True)
    while True:
      again = f'-{number}' if number else ''
      path = folder / f'{stamp}-{name}{again}.txt'
      with contextlib.suppress(FileExistsError), open(path, 'x') as file:
        file.write(text)
        return path
      number += 1
  except OSError:
    return None


def whole_traceback(error):
  """-> the traceback of an error and of all that it was raised from."""
  return ''.join(traceback.format_exception(error))


def stacks():
  """-> what every thread of this process is doing, as text."""
  frames, parts = sys._current_frames(), []
  for thread in threading.enumerate():
    frame = frames.get(thread.ident)
    if frame is not None:
      lines = ''.join(traceback.format_stack(frame))
      parts.append(f'Thread {thread.name!r}:\n{lines}')
  return '\n'.join(parts)
