"""Files of lines, one JSON object each, that grow while work goes on.

A kill may tear off the last line: what follows the last newline is as none.
"""

import json
import pathlib


def read(path):
  """-> [object, ...] of the whole lines; [] where there is no file."""
  path = pathlib.Path(path)
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


def append(path, rows, *, allow_nan=True):
  """Adds a line per object after the last whole one.

  Raises:
    ValueError: a number that is not finite, where none is allowed.
    OSError: it cannot be written; the folder is not made.
  """
  lines = [json.dumps(row, allow_nan=allow_nan) + '\n' for row in rows]
  mend(path)
  with open(path, 'a') as file:
    file.write(''.join(lines))


def mend(path):
  """Cuts off what a kill left behind the last whole line."""
  path = pathlib.Path(path)
  if not path.exists() or not path.stat().st_size:
    return
  with open(path, 'rb+') as file:
    file.seek(-1, 2)
    if file.read(1) != b'\n':  # else nothing more need be read
      file.seek(0)
      file.truncate(file.read().rfind(b'\n') + 1)
