"""One line per session of work in a folder: how long it took, what it used."""

import pathlib
import resource
import sys
import time

from cdm.distributed import collectives
from cdm.reporting import jsonl

FILE = 'sessions.jsonl'


class Session:
  """Times a block of work and writes one line when it ends, however it ends.

  Use as a context manager; put further facts into `facts` meanwhile. `forget`
  makes it leave no line.
  """

  def __init__(self, folder, what):
    """folder: must exist when the block ends; what: name of the work."""
    self._path = pathlib.Path(folder) / FILE
    self._wanted = True
    self.facts = {'what': what}

  def __enter__(self):
    self._start = time.monotonic()
    return self

  def forget(self):
    """Leaves no line: the work was refused before it began."""
    self._wanted = False

  def __exit__(self, _, error, __):
    self.write(error)

  def write(self, error=None):
    """Writes the line, once; where work fails too, that is what counts."""
    if not self._wanted or not collectives.is_first():
      return
    self._wanted = False
    self.facts['seconds'] = round(time.monotonic() - self._start, 3)
    self.facts['peak_host_bytes'] = peak_host_bytes()
    try:
      jsonl.append(self._path, [self.facts])
    except OSError:
      if error is None:
        raise  # else what ended the work is what must be told


def peak_host_bytes():
  """-> most memory this process has held so far, in bytes."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024


def total(folder):
  """-> {'seconds': sum, 'peak_host_bytes': largest} over a folder's sessions.

  None if there is no record.
  """
  lines = jsonl.read(pathlib.Path(folder) / FILE)
  if not lines:
    return None
  return {
    'seconds': round(sum(line['seconds'] for line in lines), 1),
    'peak_host_bytes': max(line['peak_host_bytes'] for line in lines),
  }
