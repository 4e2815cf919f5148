"""Reads the rows of a compressed array of an .npz in their order.

A compressed array can only be read from its beginning. Whoever reads the rows
one after the other, from several threads too, gets them in one pass and in
constant memory; going back starts again.
"""

import collections
import os
import threading
from typing import IO

from cdm.data import npz_arrays
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.printable_name import printable

_BLOCK_BYTES = 1 << 22
# Threads read a little ahead of each other, and none is as far behind as this.
_BLOCKS_KEPT = 8


class CompressedRows:
  """The rows of one array, each of the same number of bytes."""

  def __init__(self, path: str | os.PathLike[str], name: str, row_bytes: int):
    """Opens nothing yet.

    Args:
      path: the archive.
      name: name of the array.
      row_bytes: bytes of a row.
    """
    self._path, self._name, self._row_bytes = path, name, row_bytes
    self._rows = max(1, _BLOCK_BYTES // row_bytes)  # of a block
    self._lock = threading.Lock()
    self._blocks: collections.OrderedDict[int, bytes] = (
      collections.OrderedDict()
    )
    self._next = 0
    self._stream: IO[bytes] | None = None

  def read(self, row: int) -> bytes:
    """Returns the bytes of a row.

    Raises:
      DamagedFile: the array is damaged there.
    """
    number, within = divmod(row, self._rows)
    with self._lock:
      if number not in self._blocks:
        self._read_until(number)
      block = self._blocks[number]
    data = block[within * self._row_bytes :][: self._row_bytes]
    if len(data) != self._row_bytes:
      raise DamagedFile(
        f'{printable(self._path)} ends inside of row {row:,} of '
        f'{self._name}. Copy or download it again.'
      )
    return data

  def _read_until(self, number: int) -> None:
    try:
      if self._stream is None or number < self._next:
        self._open()
      assert self._stream is not None
      while self._next <= number:
        block = self._stream.read(self._rows * self._row_bytes)
        self._blocks[self._next] = block
        self._next += 1
        if len(self._blocks) > _BLOCKS_KEPT:
          self._blocks.popitem(last=False)
    # zipfile and zlib raise nearly anything on damaged bytes.
    except Exception as error:
      self._stream = None
      if not_of_the_file(error) or isinstance(error, DamagedFile):
        raise
      raise DamagedFile(
        f'{printable(self._path)} is damaged in {self._name}, behind row '
        f'{self._next * self._rows:,} ({error}). Copy or download it again.'
      ) from error

  def _open(self) -> None:
    with npz_arrays.opened(self._path) as archive:
      header = npz_arrays.read_header(archive, self._name)
      # The stream keeps the file open when the archive is closed.
      self._stream = archive.open(f'{self._name}.npy')
    self._stream.read(header.begin)
    self._next = 0
    self._blocks.clear()
