"""Reads single values of one column of Parquet files, within bounded memory.

Parquet has no random access to a value. A column is stored in row groups, and
to read row r of a group, the rows before it must be decoded. What has been
decoded is kept for a while, so that reading in order decodes each row once;
reading at random costs half a row group per value.
"""

import collections
import functools
import os
import threading
from typing import Any, NamedTuple

from cdm.data import shell_commands
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

MOST_BYTES = 1 << 27  # that one process keeps decoded
MOST_GROUPS = 64  # that one process keeps, each with an open file
_BATCH_ROWS = 4  # decoded at a time
_BUFFER_BYTES = 1 << 20
# Image files hardly shrink. Columns that do, and are larger than this, would
# only fill the memory.
_MOST_SHRUNK_BYTES, _MOST_RATIO = 1 << 26, 100


def import_parquet() -> Any:
  """Returns the module pyarrow.parquet.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import pyarrow.parquet
  except ImportError as error:
    command = shell_commands.install('cdm[parquet]')
    raise ValueError(
      f'Reading Parquet files needs the package pyarrow ({error}). Run: '
      f'{command}'
    ) from error
  return pyarrow.parquet


class Place(NamedTuple):
  """Where a row group of a column is.

  Attributes:
    path: the file.
    group: the row group's number in it.
    column: dotted path of the column.
  """

  path: str
  group: int
  column: str


class RowGroup:
  """The last decoded values of one column in one row group; for any thread."""

  def __init__(self, place: Place, most_bytes: int):
    self._place, self._most_bytes = place, most_bytes
    self._lock = threading.Lock()
    self._restart()

  def _restart(self) -> None:
    self._batches: collections.deque = collections.deque()
    self._first = self._next = self.held_bytes = 0
    self._stream: Any = None

  def read(self, row: int) -> bytes | None:
    """Returns the value of a row; None if it is null.

    Raises:
      DamagedFile: the row group has fewer rows.
      Exception: pyarrow's own error, of several types, of a damaged file.
    """
    with self._lock:
      if row < self._first:  # It was decoded and dropped again.
        self._restart()
      try:
        while row >= self._next:
          self._decode()
      except BaseException:
        self._restart()
        raise
      begin = self._first
      for batch in self._batches:
        if row < begin + len(batch):
          break
        begin += len(batch)
      return batch[row - begin].as_py()

  def _decode(self) -> None:
    if self._stream is None:
      self._stream = _stream(self._place)
    batch = next(self._stream, None)
    if batch is None:
      raise DamagedFile(
        f'Row group {self._place.group} of {printable(self._place.path)} ends '
        f'after {self._next} rows, before its directory says so.'
      )
    column = innermost(batch.column(0))
    self._batches.append(column)
    self._next += len(column)
    self.held_bytes += column.nbytes
    while self.held_bytes > self._most_bytes and len(self._batches) > 1:
      dropped = self._batches.popleft()
      self._first += len(dropped)
      self.held_bytes -= dropped.nbytes


def _stream(place):
  """Returns an iterator over the rows of a row group, a few at a time."""
  metadata = _metadata(place.path, os.getpid())
  group = metadata.row_group(place.group)
  for n in range(group.num_columns):
    chunk = group.column(n)
    size = chunk.total_uncompressed_size
    if chunk.path_in_schema == place.column and size > max(
      _MOST_SHRUNK_BYTES, _MOST_RATIO * chunk.total_compressed_size
    ):
      raise DamagedFile(
        f'Row group {place.group} of {printable(place.path)} would unpack from '
        f'{chunk.total_compressed_size:,} to {size:,} bytes, which image files '
        'never do.'
      )
  file = import_parquet().ParquetFile(
    place.path,
    metadata=metadata,
    pre_buffer=False,
    buffer_size=_BUFFER_BYTES,
    page_checksum_verification=True,  # where the writer has stored checksums
  )
  return file.iter_batches(
    _BATCH_ROWS,
    row_groups=[place.group],
    columns=[place.column],
    use_threads=False,
  )


@functools.lru_cache(256)
def _metadata(path, process):
  del process  # A forked process must not share its parent's objects.
  return import_parquet().read_metadata(path)


def innermost(column: Any) -> Any:
  """Returns the values of an array that was read by its dotted path."""
  while column.type.num_fields == 1:
    (column,) = column.flatten()  # A null struct makes its field null.
  return column


class _Kept:
  """The row groups that were read last, for all threads of one process."""

  def __init__(self):
    self.lock = threading.Lock()
    self.groups: collections.OrderedDict[Place, RowGroup] = (
      collections.OrderedDict()
    )

  def group(self, place: Place) -> RowGroup:
    with self.lock:
      group = self.groups.pop(place, None)
      if group is None:
        group = RowGroup(place, MOST_BYTES // 2)
      self.groups[place] = group
      held = sum(each.held_bytes for each in self.groups.values())
      while len(self.groups) > 1 and (
        held > MOST_BYTES // 2 or len(self.groups) > MOST_GROUPS
      ):
        held -= self.groups.popitem(last=False)[1].held_bytes
      return group


_kept = _Kept()


def forget() -> None:
  """Drops all row groups; a forked process begins so."""
  global _kept
  _kept = _Kept()


# A lock that another thread held in the parent would never be free again.
if hasattr(os, 'register_at_fork'):
  os.register_at_fork(after_in_child=forget)


def read(place: Place, row: int) -> bytes | None:
  """Returns the value in one row of a row group; None if it is null.

  Raises:
    DamagedFile: the file's directory contradicts its contents.
    Exception: pyarrow's own error, of several types, of a damaged file.
  """
  return _kept.group(place).read(row)
