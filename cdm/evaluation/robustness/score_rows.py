"""Checks and reads the rows of draws.jsonl of a robustness study."""

import numpy as np

from cdm.evaluation.metrics import calibration
from cdm.evaluation.robustness.report_types import DrawsRow

# The type of a row of draws.jsonl on disk: a `DrawsRow` whose tally is checked.
DRAWS_ROW = {
  'record': int,
  'k': int,
  'psnr_of_one': float | None,
  'psnr_of_mean': float | None,
  'tally': tuple[float, float, float, list[float], list[list[float]]],
}


def key_of_draws(row: DrawsRow, k: int) -> int | None:
  """Returns the image of a row of draws.jsonl, if it is of k whole draws."""
  *_, ranks, binned = row['tally']
  bins = len(calibration.EDGES) + 1
  whole = len(ranks) == k + 1 and [len(b) for b in binned] == [bins] * 3
  return row['record'] if row['k'] == k and whole else None


def tally_of(row: DrawsRow) -> calibration.Tally:
  """Returns the tally that a row of draws.jsonl holds."""
  count, variance, error, ranks, binned = row['tally']
  return calibration.Tally(
    float(count),
    float(variance),
    float(error),
    np.asarray(ranks),
    np.asarray(binned),
  )
