"""The size that is asked for, and the passes that reach it."""

import math

import pytest

from cdm.sampling.enlarged_size import Asked, choose


@pytest.mark.parametrize(
  ('asked', 'expected'),
  [
    ({}, (400, 600)),
    ({'scale': 1}, (100, 150)),
    ({'scale': 1.25}, (125, 188)),
    ({'scale': 2.345}, (235, 352)),
    ({'scale': 16}, (1600, 2400)),
    ({'width': 333}, (222, 333)),
    ({'height': 333}, (333, 500)),
    ({'long_edge': 301}, (201, 301)),
    ({'megapixels': 0.06}, (200, 300)),
  ],
)
def test_sides_are_rounded_to_the_nearest_pixel(asked, expected):
  size = choose((100, 150), 4, Asked(**asked))
  assert (size.height, size.width) == expected


def test_a_named_side_has_its_length_exactly():
  for height, width in [(3, 997), (997, 3), (811, 600)]:
    for side in range(1000, 1100, 7):
      if 1 <= side / width <= 16:
        assert choose((height, width), 4, Asked(width=side)).width == side
      if 1 <= side / height <= 16:
        assert choose((height, width), 4, Asked(height=side)).height == side


@pytest.mark.parametrize('factor', [2, 3, 4, 8])
@pytest.mark.parametrize('scale', [1, 1.25, 2, 3, 4, 4.01, 9, 15.9, 16])
def test_every_scale_is_reached_by_the_fewest_passes(factor, scale):
  for shape in [(1, 1), (7, 5), (100, 151)]:
    size = choose(shape, factor, Asked(scale=scale))
    assert size.inputs[0] == shape
    for before, after in zip(
      size.inputs, [*size.inputs[1:], (size.height, size.width)], strict=True
    ):
      # Each resize between two passes shrinks, or leaves as it is.
      assert factor * before[0] >= after[0] and factor * before[1] >= after[1]
    passes = len(size.inputs)
    assert bool(size.warning) == (passes > 1)
    least = max(1, math.ceil(math.log(scale, factor) - 1e-9))
    # Where sides are rounded down, a pass less may do.
    assert passes == least or (shape != (100, 151) and passes == least - 1)


def test_a_chain_resizes_before_its_last_pass():
  """5 times is 4 times, shrunk to 1.25, and 4 times that."""
  size = choose((100, 80), 4, Asked(scale=5))
  assert size.inputs == ((100, 80), (125, 100))
  assert 'passes through it 2 times' in size.warning
  assert size.warning.startswith('5 times is more than the 4 times')
  exact = choose((100, 80), 4, Asked(scale=16))
  assert exact.inputs == ((100, 80), (400, 320))


@pytest.mark.parametrize(
  ('asked', 'match'),
  [
    ({'scale': 2, 'width': 100}, '--scale=2 and --width=100 both set the size'),
    ({'scale': 0}, '--scale=0 is not a size; use one above 0'),
    ({'megapixels': math.nan}, '--megapixels=nan is not a size'),
    (
      {'scale': 0.5},
      r'--scale=0.5 makes 150x100 pixels 0.5 times as long; use'
      ' 1 to 16, which is 1 to 16 times',
    ),
    ({'scale': 17}, 'use 1 to 16, which'),
    ({'width': 100}, 'use 150 to 2400, which is 1 to 16 times'),
    ({'height': 1601}, 'use 100 to 1600'),
    ({'long_edge': 149}, 'use 150 to 2400'),
    ({'megapixels': 50}, 'use 0.015 to 3.84'),
  ],
)
def test_what_is_no_size_is_refused_in_a_sentence(asked, match):
  with pytest.raises(ValueError, match=match):
    choose((100, 150), 4, Asked(**asked))


def test_a_stage_that_does_not_magnify_takes_scale_one_only():
  assert choose((10, 10), 1, Asked()).inputs == ((10, 10),)
  with pytest.raises(ValueError, match='does not enlarge pictures; use'):
    choose((10, 10), 1, Asked(scale=2))
