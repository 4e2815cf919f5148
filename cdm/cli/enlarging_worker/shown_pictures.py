"""Writes pictures that a browser shows: PNG files of 8 bits."""

import pathlib

import numpy as np

from cdm.data.photographs import picture_writer
from cdm.data.photographs.carried_metadata import Carried
from cdm.data.photographs.output_kinds import Layout
from cdm.data.photographs.photograph import Photograph
from cdm.sampling import picture_rows

OVERVIEW_SIDE = 2048  # pixels
_FAST = picture_writer.DEFAULTS._replace(compression=1)


def write(path: pathlib.Path, samples: np.ndarray, like: Photograph) -> None:
  """Writes a picture, in the colours of a photograph.

  Args:
    path: of the file.
    samples: uint8 or uint16 [H, W, C], with alpha as a last channel where the
      photograph has one.
    like: the photograph.
  """
  height, width, channels = samples.shape
  if samples.dtype != np.uint8:
    samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
  carried = Carried(icc=like.carried.icc, chunks=like.carried.colours)
  layout = Layout(width, height, channels, 8)
  with picture_writer.open_writer(
    path, layout, carried=carried, options=_FAST
  ) as file:
    file.write(samples)


def joined(one: Photograph) -> np.ndarray:
  """Returns the samples of a photograph, with alpha as a last channel."""
  if one.alpha is None:
    return one.samples
  return np.concatenate([one.samples, one.alpha[..., None]], axis=-1)


def resized(
  samples: np.ndarray, height: int, width: int, method: str
) -> np.ndarray:
  """Returns samples of another size, uint8 [height, width, C].

  Args:
    samples: uint8 or uint16 [H, W, C].
    height, width: of the result.
    method: see `ops.resize.resize`.
  """
  rows = picture_rows.ResizedRows(
    picture_rows.WholePictures(samples[None]), height, width, method
  )
  return np.concatenate(
    [
      picture_rows.levels(band[0], np.uint8)
      for band in picture_rows.bands(rows)
    ]
  )


def fitting(height: int, width: int, side: int) -> tuple[int, int]:
  """Returns (height, width), shrunk so that no side is longer."""
  longest = max(height, width)
  if longest <= side:
    return height, width
  return (
    max(1, round(height * side / longest)),
    max(1, round(width * side / longest)),
  )


def most_textured(samples: np.ndarray, side: int) -> tuple[int, int]:
  """Returns (top, left) of the square with the most texture.

  Args:
    samples: uint8 or uint16 [H, W, C].
    side: of the square, in pixels; less where the picture is smaller.
  """
  grey = samples.mean(axis=-1, dtype=np.float32)
  energy = np.zeros_like(grey)
  energy[:, 1:] += np.abs(np.diff(grey, axis=1))
  energy[1:] += np.abs(np.diff(grey, axis=0))
  total = np.pad(
    energy.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0))
  )
  height, width = min(side, len(grey)), min(side, grey.shape[1])
  step = max(1, side // 8)
  tops = np.arange(0, len(grey) - height + 1, step)
  lefts = np.arange(0, grey.shape[1] - width + 1, step)
  sums = (
    total[np.ix_(tops + height, lefts + width)]
    - total[np.ix_(tops, lefts + width)]
    - total[np.ix_(tops + height, lefts)]
    + total[np.ix_(tops, lefts)]
  )
  i, j = np.unravel_index(sums.argmax(), sums.shape)
  return int(tops[i]), int(lefts[j])
