"""Groups the rows of bands of any height into pieces of one height."""

import numpy as np


class RowGroups:
  """Takes bands of rows, and gives them back a fixed number at a time."""

  def __init__(self, rows: int):
    """Sets the height of a group.

    Args:
      rows: of every group but the last.
    """
    self._rows = rows
    self._held: list[np.ndarray] = []

  def take(self, band: np.ndarray) -> list[np.ndarray]:
    """Returns the groups that a band completes, and keeps what is left.

    Args:
      band: [N, W, C], the rows below those of the call before.
    """
    self._held.append(band)
    if sum(map(len, self._held)) < self._rows:
      return []
    rows = np.concatenate(self._held)
    whole = len(rows) // self._rows * self._rows
    self._held = [rows[whole:].copy()]
    return [rows[i : i + self._rows] for i in range(0, whole, self._rows)]

  def rest(self) -> list[np.ndarray]:
    """Returns the last group, which may be less high, if any rows are left."""
    rows = np.concatenate(self._held)
    self._held = []
    return [rows] if len(rows) else []
