"""Closes connections whose request does not arrive in time.

Uvicorn waits for the head of a first request without end, so that a client who
sends a byte now and then would hold a connection for ever (slow loris).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0


class PatientProtocol(H11Protocol):
  """HTTP by h11, with a limit on the time that the head of a request takes."""

  _waiting: asyncio.TimerHandle | None = None

  def connection_made(self, transport: Any) -> None:
    """Begins to wait for the first request."""
    super().connection_made(transport)
    self._wait()

  def data_received(self, data: bytes) -> None:
    """Takes bytes, and goes on waiting until the head is whole."""
    requests = self.cycle
    super().data_received(data)
    if self.cycle is not requests:
      self._stop()
    elif self._waiting is None and self._idle():
      self._wait()  # Part of the head of another request.

  def connection_lost(self, exc: Exception | None) -> None:
    """Ends the waiting with the connection."""
    self._stop()
    super().connection_lost(exc)

  def _idle(self):
    return self.cycle is None or self.cycle.response_complete

  def _wait(self):
    self._waiting = self.loop.call_later(HEAD_SECONDS, self._give_up)

  def _stop(self):
    if self._waiting is not None:
      self._waiting.cancel()
      self._waiting = None

  def _give_up(self):
    self._waiting = None
    if self._idle() and not self.transport.is_closing():
      self.transport.close()
