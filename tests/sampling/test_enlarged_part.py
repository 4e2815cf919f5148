"""Parts of a photograph are those of the whole; where samples disagree."""

import numpy as np
import pytest
from support import canvas_stages

from cdm.data.photographs.photograph import Photograph
from cdm.sampling import disagreement, enlarged_pictures
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlarged_part import MOST_MARGIN, Part, PartDrawing
from cdm.sampling.enlarged_size import Asked


def photograph(height, width, alpha=None):
  samples = canvas_stages.photo(height, width)[0]
  samples.setflags(write=False)
  return Photograph(samples, alpha, 'PNG')


@pytest.fixture(scope='module')
def upscaler():
  """-> one that magnifies twice, draws noise in two steps, and sees 3 px."""
  return CanvasUpscaler.of(canvas_stages.stage(), batch_size=4)


@pytest.mark.parametrize(
  'part',
  [Part(0, 0, 9, 9), Part(21, 33, 16, 10), Part(50, 70, 14, 20)],
)
def test_a_part_is_that_of_the_whole(upscaler, part):
  """At a corner, inside, and at the other corner, with transparency."""
  alpha = np.random.default_rng(1).integers(0, 256, (64, 90), np.uint8)
  one = photograph(64, 90, alpha)
  whole = enlarged_pictures.enlarge(upscaler, [one], [7], Settings(seed=3))[0]
  made = PartDrawing(upscaler, one, part, Settings())
  assert made.size == (2 * part.height, 2 * part.width)
  counts = []
  found = made.draw(7, 3, 1.0, counts.append)
  rows = slice(2 * part.top, 2 * (part.top + part.height))
  columns = slice(2 * part.left, 2 * (part.left + part.width))
  wanted = whole[rows, columns]
  assert found.shape == wanted.shape == (*made.size, 4)
  # A thousandth may round to the other level.
  np.testing.assert_allclose(found, wanted, atol=1)
  assert (found != wanted).mean() < 1e-3
  assert sum(counts) == made.num_windows(1.0)
  other = made.draw(7, 4, 1.0)
  assert (other[..., :3] != found[..., :3]).mean() > 0.5
  # A part without its place in the noise is another one.
  if part.top:
    cut = photograph(64, 90)
    cut = cut._replace(samples=part.of(cut.samples))
    alone = enlarged_pictures.enlarge(upscaler, [cut], [7], Settings(seed=3))
    assert (alone[0] != found[..., :3]).mean() > 0.5


def test_a_part_stays_within_its_picture():
  part = Part(-5, 80, 40, 40)
  assert part.within((64, 90)) == (0, 50, 40, 40)
  assert part.within((30, 20)) == (0, 0, 30, 20)
  assert MOST_MARGIN % 8 == 0


def test_a_part_of_another_size_has_its_share_of_the_pixels(upscaler):
  one = photograph(40, 60)
  settings = Settings(asked=Asked(scale=1.5))
  made = PartDrawing(upscaler, one, Part(8, 16, 10, 20), settings)
  assert made.size == (15, 30)
  assert made.draw(0, 0, 1.0).shape == made.bicubic().shape == (15, 30, 3)
  with pytest.raises(ValueError, match='17'):
    PartDrawing(upscaler, one, Part(0, 0, 8, 8), Settings(asked=Asked(17.0)))


def test_the_map_is_the_deviation_of_luma_on_its_own_scale():
  rng = np.random.default_rng(0)
  samples = rng.integers(0, 256, (8, 12, 15, 3), np.uint8)
  luma = samples.astype(np.float64) @ [0.299, 0.587, 0.114]
  deep = (samples.astype(np.uint16) * 257)[..., :3]
  found = disagreement.deviation(list(samples))
  np.testing.assert_allclose(
    disagreement.deviation(list(deep)), found, rtol=1e-4
  )
  std = np.pad(luma.std(axis=0, ddof=1), 1, 'edge')
  mean = sum(
    std[i : i + 12, j : j + 15] for i in range(3) for j in range(3)
  ) / 9  # fmt: skip
  np.testing.assert_allclose(found, mean, rtol=1e-4)
  # Equal samples are certain; 24 levels and more look alike.
  assert not disagreement.deviation([samples[0]] * 3).any()
  ends = disagreement.coloured(np.float32([[0, 24, 90, 12]]))[0]
  assert ends[0].tolist() == list(disagreement.SCALE[0])
  assert ends[1].tolist() == ends[2].tolist() == list(disagreement.SCALE[-1])
  assert ends[3].tolist() == list(disagreement.SCALE[2])
  brightness = disagreement.coloured(np.linspace(0, 24, 50)[None])[
    0
  ] @ np.array([0.299, 0.587, 0.114])
  assert (np.diff(brightness) > 0).all()
