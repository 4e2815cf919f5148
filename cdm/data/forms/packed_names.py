"""Keeps a long list of names in one piece of memory.

A million names as Python's own texts take 100 MB, and a copy of them in every
worker process takes them again. In one piece they take a third of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class PackedNames(Sequence[str]):
  """An unchangeable list of texts.

  Attributes:
    data: uint8, the bytes of all names, one after the other.
    ends: int64 [N], where each name ends in `data`.
  """

  def __init__(self, data: np.ndarray, ends: np.ndarray):
    self.data, self.ends = data, ends

  @classmethod
  def of(cls, names: Iterable[str]) -> 'PackedNames':
    """Packs names. Bytes of file names that are not UTF-8 are kept."""
    encoded = [name.encode(errors='surrogateescape') for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return cls(np.frombuffer(b''.join(encoded), np.uint8), ends)

  def __len__(self) -> int:
    return len(self.ends)

  @overload
  def __getitem__(self, i: int) -> str: ...
  @overload
  def __getitem__(self, i: slice) -> Sequence[str]: ...
  def __getitem__(self, i):
    if isinstance(i, slice):
      return tuple(self[n] for n in range(*i.indices(len(self))))
    i = range(len(self))[i]
    begin = self.ends[i - 1] if i else 0
    return _decode(self.data[begin : self.ends[i]].tobytes())

  def __iter__(self) -> Iterator[str]:
    data, begin = self.data.tobytes(), 0
    for end in self.ends.tolist():
      yield _decode(data[begin:end])
      begin = end


def _decode(data):
  return data.decode(errors='surrogateescape')
