"""Reads records at random from many ArrayRecord shards, few of them open.

array_record's own data source keeps every shard open that was read once, so
that a data set of a thousand shards needs as many open files in every process.
Here the shard that was not read for longest is closed when there are too many.
"""

import bisect
import collections
import concurrent.futures
import importlib
import itertools
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from cdm.data import shell_commands

# The other files of a process: logs, checkpoints, sockets, libraries, pipes to
# its workers. A training run on one host has about 150.
_OTHER_FILES = 300
_FEWEST, _MOST = 8, 4096
_COUNTING_THREADS = 16
# Those of array_record's own data source.
_OPTIONS = {
  'options': 'readahead_buffer_size:0',
  'file_reader_buffer_size': 2**15,
}


class Part(NamedTuple):
  """Records of a shard that follow each other.

  Attributes:
    path: the shard.
    count: number of records.
    skip: number of records before the first of them.
  """

  path: str
  count: int
  skip: int = 0


class ShardRecords(Sequence[bytes]):
  """The records of several parts, one after the other.

  It can be pickled, and several threads may read it at once. A shard is opened
  when one of its records is read, and all are closed when this is gone.
  """

  def __init__(self, parts: Sequence[Part]):
    """Takes the parts, in their order, and opens none."""
    self._parts = tuple(parts)
    self._start()

  def _start(self) -> None:
    counts = (part.count for part in self._parts)
    self._ends = list(itertools.accumulate(counts))
    self._readers: collections.OrderedDict[tuple[int, int], Any] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()
    _ALIVE.add(self)

  # All that are alive are told apart, whatever they hold.
  __hash__ = object.__hash__

  def __eq__(self, other: object) -> bool:
    return self is other

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  # Negative numbers and slices are for whoever knows the data set.
  def __getitem__(self, i: Any) -> Any:
    if not 0 <= i < len(self):
      raise IndexError(f'record {i} of {len(self)}')
    n = bisect.bisect_right(self._ends, i)
    part = self._parts[n]
    position = part.skip + i - self._ends[n] + part.count
    return self._reader(n).read([position])[0]

  def _reader(self, n: int) -> Any:
    """Returns the open reader of part n; opens it if need be.

    A reader that is dropped while another thread reads from it is closed when
    that thread lets go of it.
    """
    key = os.getpid(), n  # A forked process must not share its parent's files.
    with self._lock:
      reader = self._readers.get(key)
      if reader is not None:
        self._readers.move_to_end(key)
        return reader
    opened = reader_class()(self._parts[n].path, **_OPTIONS)
    dropped = []  # They are closed after the lock is free.
    with self._lock:
      reader = self._readers.setdefault(key, opened)
      most = max(_FEWEST, most_open() // max(len(_ALIVE), 1))
      while len(self._readers) > most:
        dropped.append(self._readers.popitem(last=False))
    return reader

  def __getstate__(self) -> dict[str, Any]:
    return {'_parts': self._parts}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._start()


_ALIVE: weakref.WeakSet[ShardRecords] = weakref.WeakSet()


def most_open() -> int:
  """Returns how many shards this process keeps open."""
  try:
    resource = importlib.import_module('resource')
  except ImportError:  # Windows has no such limit.
    return _MOST
  soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft == resource.RLIM_INFINITY:
    return _MOST
  return min(max(soft - _OTHER_FILES, _FEWEST), _MOST)


def counted(paths: Sequence[str]) -> list[Part]:
  """Returns whole shards as parts, by opening each and closing it again."""
  new_reader = reader_class()

  def count(path: str) -> Part:
    reader = new_reader(path)
    try:
      return Part(path, reader.num_records())
    finally:
      reader.close()

  with concurrent.futures.ThreadPoolExecutor(_COUNTING_THREADS) as threads:
    return list(threads.map(count, paths))


def reader_class() -> Any:
  """Returns the class that reads ArrayRecord files.

  Raises:
    ValueError: the package array-record is not installed.
  """
  try:
    from array_record.python import array_record_data_source
  except ImportError as error:
    raise ValueError(
      'Reading ArrayRecord needs the package array-record, which exists for '
      'Linux and macOS; elsewhere, train from a folder of images. Run: '
      f'{shell_commands.install("array-record")}'
    ) from error
  return array_record_data_source.array_record_module.ArrayRecordReader
