"""Names the records of files that have no names of their own."""

import bisect
import itertools
from collections.abc import Iterable, Sequence


class RowNames(Sequence[str]):
  """The file of each record, and its number in the file from 0: `a.x:17`."""

  def __init__(self, files: Sequence[str], counts: Iterable[int]):
    self._files = files
    self._ends = list(itertools.accumulate(counts))

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, i):
    if isinstance(i, slice):
      return [self[n] for n in range(*i.indices(len(self)))]
    i = range(len(self))[i]
    n = bisect.bisect_right(self._ends, i)
    return f'{self._files[n]}:{i - (self._ends[n - 1] if n else 0)}'
