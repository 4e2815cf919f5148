"""Collects what was measured of a photo model, and whether it is enough."""

import numpy as np


class Judged:
  """What was measured, line by line, and whether all of it is good enough."""

  def __init__(self):
    self.rows: list[dict] = []
    self.passed = True

  def add(self, text: str, ok: bool | np.bool | None, **row):
    """Prints a line; `ok` is None if there is nothing that it must reach."""
    ok = None if ok is None else bool(ok)
    mark = '' if ok is None else ('pass' if ok else 'FAIL')
    print(f'| {text} | {mark} |', flush=True)
    self.rows.append({**row, 'passed': ok})
    self.passed = self.passed and ok is not False
