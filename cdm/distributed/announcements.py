"""Tells all processes what process 0 decides, without stopping their devices.

A broadcast is a computation of the devices, so it waits for all steps that are
under way. An announcement goes through the key-value store of JAX's
coordination service instead, and is read one call later, when it has long been
there.
"""

from typing import Any

from cdm.distributed import collectives, message_board

_WAIT_S = 3600.0  # JAX and the peer monitor notice the loss of process 0 before
# No process is this many calls behind another, because their steps exchange
# gradients; what is older is removed.
_KEPT = 8
_KEY = 'value'


class Announcements:
  """A sequence of values that process 0 announces, one at each call.

  Attributes:
    is_delayed: whether a value arrives one call later, as it does in a run of
      several processes.
  """

  def __init__(self, name: str):
    """Begins a sequence.

    Args:
      name: names it; the same in all processes, and used once in a run.
    """
    self._name, self._calls = name, 0
    self.is_delayed = collectives.process_count() > 1

  def exchange(self, value: Any) -> Any:
    """Announces a value, and returns the one of the call before.

    Every process must call it, equally often.

    Args:
      value: what process 0 announces, a value that JSON can hold. The values of
        other processes are ignored.

    Returns:
      What process 0 announced at the call before, None at the first call. In a
      run of one process it is `value` itself.
    """
    if not self.is_delayed:
      return value
    call, self._calls = self._calls, self._calls + 1
    if collectives.is_first():
      self._board(call).post(_KEY, value)
      if call >= _KEPT:
        self._board(call - _KEPT).clear()
    if not call:
      return None
    return self._board(call - 1).wait_for(_KEY, _WAIT_S)

  def _board(self, call: int) -> message_board.Board:
    """Returns the board of one call; each has its own, to be cleared alone."""
    return message_board.Board(f'announced/{self._name}/{call}')
