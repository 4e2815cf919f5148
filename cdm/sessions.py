"""One line per session of work in a folder: how long it took, what it used."""

import json
import pathlib
import resource
import sys
import time

FILE = 'sessions.jsonl'


class Session:
  """Times a block of work and writes one line when it ends, however it ends.

  Use as a context manager; put further facts into `facts` meanwhile.
  """

  def __init__(self, folder, what):
    """folder: must exist when the block ends; what: name of the work."""
    self._path = pathlib.Path(folder) / FILE
    self.facts = {'what': what}

  def __enter__(self):
    self._start = time.monotonic()
    return self

  def __exit__(self, *_):
    self.facts['seconds'] = round(time.monotonic() - self._start, 3)
    self.facts['peak_host_bytes'] = peak_host_bytes()
    with open(self._path, 'a') as file:
      file.write(json.dumps(self.facts) + '\n')


def peak_host_bytes():
  """-> most memory this process has held so far, in bytes."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024


def total(folder):
  """-> {'seconds': sum, 'peak_host_bytes': largest} over a folder's sessions.

  None if there is no record.
  """
  path = pathlib.Path(folder) / FILE
  if not path.exists():
    return None
  # What follows the last newline is torn by a kill, or empty.
  lines = [json.loads(line) for line in path.read_text().split('\n')[:-1]]
  if not lines:
    return None
  return {
    'seconds': round(sum(line['seconds'] for line in lines), 1),
    'peak_host_bytes': max(line['peak_host_bytes'] for line in lines),
  }
