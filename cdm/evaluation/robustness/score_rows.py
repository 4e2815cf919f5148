"""Defines the rows of a robustness study: rows.jsonl and draws.jsonl."""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from cdm.evaluation.metrics import calibration


class Row(TypedDict):
  """One line of rows.jsonl: the scores of one image and input.

  Attributes:
    record: index of the image in the data.
    cell: key of the input, see `Cell`.
    degradation, value: the `Cell` itself.
    label: label of the image.
    ours, bicubic: {metric: score}; None if it is not finite or not defined.
  """

  record: int
  cell: str
  degradation: str
  value: float | str | None
  label: int
  ours: dict[str, float | None]
  bicubic: dict[str, float | None]


class DrawsRow(TypedDict):
  """One line of draws.jsonl: the k draws of one image.

  Attributes:
    record: index of the image in the data.
    k: number of draws.
    psnr_of_one, psnr_of_mean: dB; None if infinite.
    tally: the fields of `calibration.Tally`.
  """

  record: int
  k: int
  psnr_of_one: float | None
  psnr_of_mean: float | None
  tally: tuple[float, float, float, list[float], list[list[float]]]


def key_of_draws(row: Mapping[str, Any], k: int) -> int | None:
  """Returns the image of a row of draws.jsonl, if it is of k whole draws."""
  *_, ranks, binned = row['tally']
  bins = len(calibration.EDGES) + 1
  whole = len(ranks) == k + 1 and [len(b) for b in binned] == [bins] * 3
  return row['record'] if row['k'] == k and whole else None


def tally_of(row: Mapping[str, Any]) -> calibration.Tally:
  """Returns the tally that a row of draws.jsonl holds."""
  count, variance, error, ranks, binned = row['tally']
  return calibration.Tally(
    float(count),
    float(variance),
    float(error),
    np.asarray(ranks),
    np.asarray(binned),
  )
