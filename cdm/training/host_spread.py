"""Compares the processes of a run at each log line, so that a slow one is seen.

Every process leaves its own step time, wait for data and memory of its host,
and process 0 adds the least and the largest of them to the next line, with the
name of the process that has the largest.
"""

import socket
from collections.abc import Callable, Mapping

from cdm.distributed.notice_board import NoticeBoard
from cdm.reporting import metric_writer

# A spread is said if the largest exceeds the least by this much, or by this
# factor.
_LARGE = {
  'step_seconds': lambda least, most: most > 1.2 * least,
  'data_wait_fraction': lambda least, most: most > least + 0.1,
  'host_memory_bytes': lambda least, most: most > 1.5 * least,
}
_IN_WORDS = {
  'step_seconds': '{:.3g} s per step',
  'data_wait_fraction': '{:.0%} of its time waiting for data',
  'host_memory_bytes': '{:,.0f} bytes of memory',
}


class HostSpread:
  """Adds the spread over the processes to the scalars of a log line."""

  def __init__(
    self,
    board: NoticeBoard,
    process: int,
    say: Callable[[str], object],
    host: str | None = None,
  ):
    """Begins.

    Args:
      board: where the processes leave their scalars.
      process: index of this process.
      say: prints a line.
      host: name of this machine; None asks the system.
    """
    self._board, self._say = board, say
    self._name = f'process {process} on {host or socket.gethostname()}'
    self._said: set[tuple[str, str]] = set()

  def add(
    self, step: int, scalars: Mapping[str, float]
  ) -> dict[str, float | str]:
    """Leaves the scalars of this process, and compares those left before.

    Args:
      step: the step of the line.
      scalars: the scalars of the line, with some of those that are compared.

    Returns:
      The entries `metric_writer.host_names` of the line; {} in other processes
      than process 0, and in the first line.
    """
    notes = list(self._board.notes().values())
    own = {name: scalars[name] for name in _LARGE if name in scalars}
    self._board.leave({'name': self._name, **own})
    entries: dict[str, float | str] = {}
    for name, is_large in _LARGE.items():
      found = [(note[name], note['name']) for note in notes if name in note]
      if len(found) < 2:
        continue
      (least, _), (most, where) = min(found), max(found)
      low, high, at = metric_writer.host_names(name)
      entries |= {low: least, high: most, at: where}
      if is_large(least, most) and (name, where) not in self._said:
        self._said.add((name, where))  # once for each process
        shown = [_IN_WORDS[name].format(number) for number in (most, least)]
        self._say(f'step {step}: {where} has {shown[0]}; the least {shown[1]}')
    return entries
