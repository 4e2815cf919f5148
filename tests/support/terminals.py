"""Stand-ins for a clock and a terminal."""

import io


class Clock:
  """A clock that stands still unless it is moved."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


class Terminal(io.StringIO):
  """Keeps what is shown on it."""

  def isatty(self):
    return True
