"""Bands of rows make what the whole pictures would."""

import numpy as np
import pytest

from cdm.ops import pixels, resize
from cdm.sampling import picture_rows
from cdm.sampling.picture_rows import (
  BackProjectedRows,
  ResizedRows,
  StreamedRows,
  WholePictures,
)


def picture(height=70, width=45, count=2):
  rng = np.random.default_rng(0)
  smooth = rng.uniform(-0.8, 0.8, (count, height // 8 + 2, width // 8 + 2, 3))
  x = resize.resize(
    smooth.astype(np.float32), (height, width), method='bicubic'
  )
  return np.clip(x, -1, 1)


def streamed(x, size):
  """The same picture, which comes in bands and is read once."""
  given = [x[:, i : i + size] for i in range(0, x.shape[1], size)]
  return StreamedRows(iter(given), *x.shape[1:3])


def joined(rows, size):
  return np.concatenate(list(picture_rows.bands(rows, size)), axis=1)


@pytest.mark.parametrize('size', [1, 7, 64, 100])
@pytest.mark.parametrize('given', [3, 70])
def test_rows_are_the_same_whatever_bands_they_come_in(size, given):
  x = picture()
  np.testing.assert_array_equal(joined(streamed(x, given), size), x)


@pytest.mark.parametrize('new', [(31, 20), (70, 45), (99, 130)])
@pytest.mark.parametrize('method', ['bicubic', 'area', 'lanczos3'])
def test_bands_of_a_resized_picture_are_those_of_the_whole(new, method):
  x = picture()
  found = joined(ResizedRows(streamed(x, 9), *new, method), 8)
  expected = np.clip(resize.resize(x, new, method=method), -1, 1)
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize('low', [(35, 15), (28, 31)])
def test_back_projection_is_that_of_the_whole(low):
  """x + up(y - down(x)), twice, with sides that do not divide."""
  x, y = picture(), picture(*low)
  rows = streamed(x, 5)
  for _ in range(2):
    rows = BackProjectedRows(
      rows, WholePictures(y), down='bicubic', up='bicubic'
    )
  found = joined(rows, 6)
  expected = x
  for _ in range(2):
    missing = y - resize.resize(expected, low, method='bicubic')
    expected = expected + resize.resize(missing, (70, 45), method='bicubic')
  np.testing.assert_allclose(found, expected, atol=5e-6)


def test_back_projection_takes_back_a_shift_of_colour():
  y = picture(20, 16)
  x = np.asarray(resize.resize(y, (80, 64), method='bicubic')) + 0.2
  fixed = BackProjectedRows(
    WholePictures(x), WholePictures(y), down='bicubic', up='bicubic'
  )
  before, after = (
    np.abs(resize.resize(image, (20, 16), method='bicubic') - y).mean()
    for image in (x, joined(fixed, 64))
  )
  assert before == pytest.approx(0.2, abs=0.01) and after < 0.01


def test_rows_that_no_one_needs_any_more_are_dropped():
  x = picture(64, 10, count=1)
  rows = streamed(x, 8)
  for first in range(0, 64, 8):
    rows.rows(first, first + 8)
    assert sum(band.shape[1] for band in rows._held) <= 16


def test_a_band_is_not_made_before_it_is_needed():
  made = []

  def bands():
    for i in range(8):
      made.append(i)
      yield np.zeros((1, 8, 4, 3), np.float32)

  next(picture_rows.bands(StreamedRows(bands(), 64, 4), 8))
  assert made == [0]


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_levels_go_to_floats_and_back(dtype):
  most = np.iinfo(dtype).max
  levels = np.arange(most + 1, dtype=dtype)
  levels = np.resize(levels, (1, 256, 256, 3))
  x = WholePictures(levels).rows(0, 256)
  assert x.min() == -1 and x.max() == 1
  np.testing.assert_array_equal(picture_rows.levels(x, dtype), levels)


def test_levels_of_8_bits_are_those_of_the_package():
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
  np.testing.assert_array_equal(
    WholePictures(levels).rows(0, 16), pixels.to_float(levels)
  )
  x = np.linspace(-1.2, 1.2, 9973, dtype=np.float32)
  np.testing.assert_array_equal(
    picture_rows.levels(x, np.uint8), pixels.to_uint8(x)
  )
