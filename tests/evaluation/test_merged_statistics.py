"""Statistics of many processes are merged as by one, to the last bit."""

import numpy as np
import pytest

from cdm.evaluation import merged_statistics
from cdm.evaluation.metrics import fid


def parts(counts, size=7):
  rng = np.random.default_rng(0)
  return [fid.moments(rng.normal(size=(n, size))) for n in counts]


@pytest.mark.parametrize('counts', [(3,), (4, 9), (0, 5, 1, 0, 8), (2,) * 9])
def test_rows_of_scatters_are_merged_as_whole_ones_are(counts):
  """Every process merges some of the rows, in the order of the processes."""
  given = parts(counts)
  expected = fid.Moments(0, np.zeros(7), np.zeros((7, 7)))
  for part in given:
    expected = fid.merge(expected, part)
  steps = merged_statistics.merge_steps(counts, [p.mean for p in given])
  scatters = np.stack([p.scatter for p in given])
  found = [
    merged_statistics.merge_scatters(
      scatters[:, rows.start : rows.stop], steps, rows
    )
    for rows in (range(0, 3), range(3, 7), range(7, 7))
  ]
  np.testing.assert_array_equal(np.concatenate(found), expected.scatter)
  np.testing.assert_array_equal(steps[-1][1], expected.mean)
