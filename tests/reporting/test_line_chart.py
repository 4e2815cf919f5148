"""The axes of a chart, by the places of its points."""

import re

import pytest

from cdm.reporting import line_chart
from cdm.reporting.line_chart import Axes


def places(points, **axes):
  """-> (places of the dots, [(text, place)] of the ticks along x)."""
  drawing = line_chart.svg({'a': points}, Axes(dots=True, **axes), smoothing=0)
  dots = re.findall(r'class="end"[^>]* cx="([\d.]+)"', drawing)
  ticks = re.findall(
    r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([\d.]+)</text>',
    drawing,
  )
  return [float(x) for x in dots], [(float(v), float(x)) for x, v in ticks]


def test_equal_factors_are_equal_steps_on_a_logarithmic_axis():
  points = [(x, 1.0 + x) for x in (0, 4, 8, 16, 32)]  # 0 has no place
  dots, ticks = places(points, log_x=True)
  dots = dots[:4]  # the end of a curve has a dot of its own
  gaps = [b - a for a, b in zip(dots, dots[1:], strict=False)]
  assert gaps == pytest.approx([gaps[0]] * 3, abs=0.2) and gaps[0] > 100
  for value, x in ticks:  # 5, 10, 20: at their logarithms
    doublings = (x - dots[0]) / gaps[0]
    assert 4 * 2**doublings == pytest.approx(value, rel=0.01)
  assert len(ticks) >= 3


def test_equal_differences_are_equal_steps_on_any_other():
  dots, _ = places([(x, 1.0) for x in (0, 4, 8, 12)])
  gaps = [b - a for a, b in zip(dots[:4], dots[1:4], strict=False)]
  assert gaps == pytest.approx([gaps[0]] * 3, abs=0.2)


def test_ten_names_end_within_the_drawing_and_have_ten_kinds_of_lines():
  names = [f'a line called {i}' for i in range(10)]
  drawing = line_chart.svg({name: [(0, 1), (1, 2)] for name in names})
  found = re.findall(
    r'<line class="curve" style="([^"]+)" x1="([\d.]+)"[^>]*y1="(\d+)"', drawing
  )
  assert len({style for style, _, _ in found}) == 10
  for (_, x, _), name in zip(found, names, strict=True):
    end = float(x) + 24 + line_chart.LETTER * len(name)
    assert end <= line_chart.WIDTH - line_chart.RIGHT
  # No name is over another, and the curves begin below the last.
  assert len({(x, y) for _, x, y in found}) == 10
  lowest = max(int(y) for _, _, y in found)
  assert lowest > 20
  curves = re.findall(r'<path class="curve"[^>]* d="M([^"]+)"', drawing)
  heights = [float(p.split(',')[1]) for c in curves for p in c.split()]
  assert min(heights) > lowest
  for style, _, _ in found:
    assert drawing.count(f'"{style}"') >= 3  # in the legend, raw and smooth
