"""Counts the records that a pipeline skips, and ends a run with too many."""

from collections.abc import Iterable
from typing import Literal

from absl import logging

from cdm.data.pipeline_state import SkipCounts

# max_skip_fraction is a fraction of the records tried, whose number is first
# rounded up to a multiple of this window or of a shorter epoch. Over fewer
# records, a data set just below the limit would exceed it by chance.
_SKIP_WINDOW = 100_000

# Why a record was left out, its name, and the reason in words.
Skip = tuple[Literal['unreadable', 'too_small'], str, str]


class SkipCounter:
  """Counts skipped records, and stops the run when too many are unreadable.

  A warning names each unreadable record once.
  """

  def __init__(self, records: int, max_fraction: float):
    self._window = min(records, _SKIP_WINDOW)
    self._max_fraction = max_fraction
    self._count: SkipCounts = {'tried': 0, 'unreadable': 0, 'too_small': 0}
    self._named: set[str] = set()
    self._last = ''

  def counts(self) -> SkipCounts:
    """Returns how many records were tried and left out so far."""
    return self._count.copy()

  def restore(self, counts: SkipCounts) -> None:
    """Continues from the counts of a saved position."""
    self._count = counts.copy()

  def add(self, tried: int, skips: Iterable[Skip]) -> None:
    """Counts the records of a batch, and raises if too many cannot be read."""
    self._count['tried'] += tried
    for kind, name, reason in skips:
      self._count[kind] += 1
      if kind == 'too_small':
        self._report_too_small()
      elif name not in self._named:
        self._named.add(name)
        self._last = f'; the last: {name}: {reason}'
        logging.warning(
          'Skipped %s: %s (%s)', name, reason, self._total('such')
        )
    windows = -(-self._count['tried'] // self._window)
    allowed = self._max_fraction * self._window * max(1, windows)
    if self._count['unreadable'] > allowed:
      raise ValueError(
        f'{self._total("unreadable")}, more than max_skip_fraction='
        f'{self._max_fraction}{self._last}. Repair or remove them, or raise '
        f'max_skip_fraction.'
      )

  def _total(self, adjective):
    bad, tried = self._count['unreadable'], self._count['tried']
    return f'{bad} {adjective} records among {tried} read so far'

  def _report_too_small(self):
    count, tried = self._count['too_small'], self._count['tried']
    if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
      logging.warning(
        'Left out %d of %d records: smaller than min_side, or than image_size '
        'where min_side is None.',
        *(count, tried),
      )
