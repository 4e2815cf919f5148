"""Draws curves of scalars as one SVG element, for a page with a style sheet.

The CSS classes are `grid`, `raw`, `curve`, `end`, `mark`, `whisker`, `ideal`
and `label`. The i-th series has the color of the CSS variable --ci, up to --c5;
further series have these colors again, in dashed lines.
"""

import dataclasses
import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

Point = tuple[float, float]  # (x, y)
Band = Iterable[tuple[float, float, float]]  # (x, low, high)

COLORS = 6  # The number of variables --cN.
# The dashes of the series that have the colors for the first, second, ... time.
DASHES = ('', '7 4', '2 3')
# The size of a drawing in SVG units, and its margins.
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 40, 48
LETTER = 7.5  # The approximate width of a letter.
# The height of a further line of the legend.
LINE = 20
MAX_POINTS = 800  # More points make the page larger, but no line finer.


@dataclasses.dataclass(frozen=True)
class Axes:
  """What the axes of a chart show.

  Attributes:
    x_label: text below the x axis.
    y_label: text beside the y axis.
    log_y: whether the y axis is logarithmic.
    log_x: whether the x axis is.
    x_names: texts under x = 0, 1, ... in place of numbers; () for numbers.
    diagonal: whether to draw y = x and give both axes the same range.
    dots: whether every point of a curve gets a dot.
  """

  x_label: str = 'step'
  y_label: str = 'loss'
  log_y: bool = False
  log_x: bool = False
  x_names: Sequence[str] = ()
  diagonal: bool = False
  dots: bool = False


TRAINING_LOSS = Axes()


def svg(
  series: Mapping[str, Iterable[Point]],
  axes: Axes = TRAINING_LOSS,
  *,
  smoothing: float = 0.06,
  size: tuple[int, int] = (WIDTH, HEIGHT),
  bands: Mapping[str, Band] | None = None,
  joined: bool = True,
  marks: Iterable[Point] = (),
) -> str | None:
  """Draws curves with axes and a legend.

  A thin line joins the values of a curve, and a thick line their running means.

  Args:
    series: {name: points (x, y)}. Values that are not finite (or not positive,
      on a logarithmic axis) are left out.
    axes: the labels and the scale of the axes; by default those of a training
      loss over steps.
    smoothing: share in [0, 1) of a curve's values that each point of the thick
      line averages, half of them before and half after, so that the line does
      not lag. 0 draws the values alone.
    size: (width, height) in units in which a letter is 13 high. The page
      stretches a drawing, so a smaller one gets larger letters.
    bands: {name: (x, low, high), ...}, intervals of the curve of that name.
    joined: False leaves out the lines and shows the points alone.
    marks: points that get a ring; they lie within the reach of the curves.

  Returns:
    An <svg> element, or None if there is no value to draw.

  Raises:
    ValueError: if smoothing is outside [0, 1).
  """
  if not 0.0 <= smoothing < 1.0:
    raise ValueError(f'smoothing is {smoothing}; use 0 <= smoothing < 1.')
  series = {
    name: [
      (float(x), float(y))
      for x, y in points
      if math.isfinite(x)
      and math.isfinite(y)
      and (y > 0 or not axes.log_y)
      and (x > 0 or not axes.log_x)
    ]
    for name, points in series.items()
  }
  series = {name: points for name, points in series.items() if points}
  if not series:
    return None
  bands = _drawable(bands or {}, series, axes.log_y)
  reach = [p for points in series.values() for p in points]
  reach += [(x, y) for band in bands.values() for x, *ys in band for y in ys]
  places = _legend_places(series, size[0] - RIGHT)
  frame = _frame(reach, axes, size)
  frame = frame._replace(top=TOP + places[-1][1])
  parts = [
    *draw_axes(frame, axes.x_label, axes.y_label),
    *_legend(series, places),
  ]
  if axes.diagonal:
    ends = [(low, low) for low in frame.x]
    parts.append(f'<path class="ideal" d="{path(ends, frame)}"/>')
  for i, (name, points) in enumerate(series.items()):
    color = f'style="stroke: var(--c{i % COLORS})"'
    for x, low, high in bands.get(name, ()):
      ends = path([(x, low), (x, high)], frame)
      parts.append(f'<path class="whisker" {color} d="{ends}"/>')
    if not joined or axes.x_names or axes.dots:
      parts += _dots(points, frame, color)
    if not joined:
      continue
    line = f'style="{_stroke(i)}"'
    if smoothing:
      parts.append(f'<path class="raw" {line} d="{path(points, frame)}"/>')
      points = _smoothed(points, smoothing)
    parts.append(f'<path class="curve" {line} d="{path(points, frame)}"/>')
    x, y = frame.place(*points[-1])
    parts.append(
      f'<circle class="end" {color} cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    )
  for x, y in (frame.place(*point) for point in marks):
    parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="7"/>')
  label = escape(f'{axes.y_label} over {axes.x_label}: {", ".join(series)}')
  return (
    f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{label}">'
    f'{"".join(parts)}</svg>'
  )


class Frame(NamedTuple):
  """The ranges of the data, the ticks, and the size of the drawing.

  Attributes:
    x: (lowest, highest) x, or their decimal logarithms if `log_x`.
    y: (lowest, highest) y, or their decimal logarithms if `log`.
    x_ticks: positions of the ticks on the x axis.
    y_ticks: values of the ticks on the y axis.
    log: whether the y axis is logarithmic.
    size: (width, height) of the drawing in SVG units.
    x_names: texts under x = 0, 1, ...; numbers if empty.
    log_x: whether the x axis is logarithmic.
    top: the y coordinate of the upper end of the y axis.
  """

  x: tuple[float, float]
  y: tuple[float, float]
  x_ticks: Sequence[float]
  y_ticks: Sequence[float]
  log: bool
  size: tuple[int, int] = (WIDTH, HEIGHT)
  x_names: tuple[str, ...] = ()
  log_x: bool = False
  top: int = TOP

  @property
  def right(self) -> int:
    """The x coordinate of the right end of the axes."""
    return self.size[0] - RIGHT

  @property
  def bottom(self) -> int:
    """The y coordinate of the x axis."""
    return self.size[1] - BOTTOM

  def place(self, x: float, y: float) -> Point:
    """Returns the SVG coordinates of a point of the data."""
    y = math.log10(y) if self.log else y
    x = math.log10(x) if self.log_x else x
    across = (x - self.x[0]) / (self.x[1] - self.x[0])
    up = (y - self.y[0]) / (self.y[1] - self.y[0])
    return (
      LEFT + across * (self.right - LEFT),
      self.bottom - up * (self.bottom - self.top),
    )


def _frame(points: Sequence[Point], axes: Axes, size: tuple[int, int]) -> Frame:
  xs, ys = zip(*points, strict=True)
  x_names, diagonal = tuple(axes.x_names), axes.diagonal
  if diagonal:
    xs = ys = (*xs, *ys)
  x = _range(min(xs), max(xs))
  if x_names:
    # Leaves room before the first and after the last point.
    x = (-0.3, len(x_names) - 0.7)
  if axes.log_y:
    low, high = math.log10(min(ys)), math.log10(max(ys))
    pad = max(0.05 * (high - low), 0.02)
    y = (low - pad, high + pad)
    y_ticks = _log_ticks(*y)
  else:
    y = _range(min(ys), max(ys), pad=0.0 if diagonal else 0.05)
    y_ticks = ticks(*y)
  x_ticks = list(range(len(x_names))) if x_names else ticks(*x)
  if axes.log_x:
    low, high = math.log10(min(xs)), math.log10(max(xs))
    pad = max(0.03 * (high - low), 0.02)
    x = (low - pad, high + pad)
    x_ticks = _log_ticks(*x)
  return Frame(x, y, x_ticks, y_ticks, axes.log_y, size, x_names, axes.log_x)


def _drawable(
  bands: Mapping[str, Band], series: Mapping[str, object], log: bool
) -> dict[str, list[tuple[float, float, float]]]:
  """Returns the drawable intervals of the curves that are in `series`."""
  return {
    name: [
      (float(x), float(low), float(high))
      for x, low, high in band
      if math.isfinite(low) and math.isfinite(high) and (low > 0 or not log)
    ]
    for name, band in bands.items()
    if name in series
  }


def _range(low: float, high: float, pad: float = 0.0) -> tuple[float, float]:
  if low == high:
    margin = 0.5 * abs(low) or 0.5
    return low - margin, high + margin
  return low - pad * (high - low), high + pad * (high - low)


def ticks(low: float, high: float, count: int = 6) -> list[float]:
  """Returns round numbers in [low, high], about `count` of them."""
  raw = (high - low) / count
  power = 10.0 ** math.floor(math.log10(raw))
  step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
  """Returns round numbers v with 10^low <= v <= 10^high.

  The wider the range, the fewer numbers per power of ten.
  """
  if high - low > 3:
    digits = (1,)
  elif high - low > 0.8:
    digits = (1, 2, 5)
  else:
    return [v for v in ticks(10**low, 10**high) if v > 0]
  return [
    digit * 10.0**power
    for power in range(math.floor(low), math.ceil(high) + 1)
    for digit in digits
    if low <= math.log10(digit) + power <= high
  ]


def draw_axes(frame: Frame, x_label: str, y_label: str) -> Iterator[str]:
  """Yields the SVG elements of the grid, the ticks and the labels."""
  bottom, right = frame.bottom, frame.right
  low_y = 10 ** frame.y[0] if frame.log else frame.y[0]
  low_x = 10 ** frame.x[0] if frame.log_x else frame.x[0]
  for value in frame.y_ticks:
    y = frame.place(low_x, value)[1]
    yield (
      f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" '
      f'y2="{y:.1f}"/><text x="{LEFT - 8}" y="{y + 4:.1f}" '
      f'text-anchor="end">{_tick(value)}</text>'
    )
  wide = max(map(len, frame.x_names), default=0) * LETTER
  crowded = wide > (right - LEFT) / max(len(frame.x_ticks), 1)
  for i, value in enumerate(frame.x_ticks):
    # If the names are too wide, every other name is written a line lower.
    lower = 12 if crowded and i % 2 else 0
    x = frame.place(value, low_y)[0]
    yield (
      f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" '
      f'y2="{bottom + 5}"/><text x="{x:.1f}" y="{bottom + 18 + lower}" '
      f'text-anchor="middle">{_x_tick(frame, value)}</text>'
    )
  middle, under = (frame.top + bottom) / 2, frame.size[1] - 8
  yield (
    f'<text x="{(LEFT + right) / 2}" y="{under}" text-anchor="middle">'
    f'{escape(x_label)}</text><text x="16" y="{middle}" text-anchor="middle" '
    f'transform="rotate(-90 16 {middle})">{escape(y_label)}</text>'
  )


def _stroke(i: int) -> str:
  """Returns the style of the line of a series."""
  dashes = DASHES[i // COLORS % len(DASHES)]
  color = f'stroke: var(--c{i % COLORS})'
  return f'{color}; stroke-dasharray: {dashes}' if dashes else color


def _legend_places(
  series: Iterable[str], right: int
) -> list[tuple[float, int]]:
  """Returns (x, y) of each name, in lines that end before the right end."""
  x, y, places = float(LEFT), 0, []
  for name in series:
    width = 24 + LETTER * len(name)
    if x > LEFT and x + width > right:
      x, y = float(LEFT), y + LINE
    places.append((x, y))
    x += width + 24
  return places


def _legend(
  series: Iterable[str], places: Iterable[tuple[float, int]]
) -> Iterator[str]:
  for i, (name, (x, y)) in enumerate(zip(series, places, strict=True)):
    yield (
      f'<line class="curve" style="{_stroke(i)}" x1="{x}" x2="{x + 18}" '
      f'y1="{y + 20}" y2="{y + 20}"/><text class="label" x="{x + 24}" '
      f'y="{y + 24}">{escape(name)}</text>'
    )


def _smoothed(points: Sequence[Point], share: float) -> list[Point]:
  """Averages y over the neighbours on both sides, fewer of them at the ends."""
  reach = int(share * len(points) / 2)
  smooth = []
  for i, (x, _) in enumerate(points):
    near = [y for _, y in points[max(0, i - reach) : i + reach + 1]]
    smooth.append((x, sum(near) / len(near)))
  return smooth


def path(points: Sequence[Point], frame: Frame) -> str:
  """Returns the attribute `d` of the SVG path through the points.

  If there are more than MAX_POINTS points, only every second, third, ... point
  is used.
  """
  if len(points) > MAX_POINTS:
    stride = -(-len(points) // MAX_POINTS)
    points = [*points[::stride], points[-1]]
  placed = (frame.place(x, y) for x, y in points)
  return 'M' + ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)


def _dots(points: Iterable[Point], frame: Frame, color: str) -> Iterator[str]:
  for x, y in points:
    x, y = frame.place(x, y)
    yield f'<circle class="end" {color} cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _x_tick(frame: Frame, value: float) -> str:
  return escape(frame.x_names[int(value)]) if frame.x_names else _tick(value)


def _tick(value: float) -> str:
  if abs(value) >= 1e4 and value == round(value) and abs(value) < 1e7:
    return f'{int(value):,}'.replace(',', '\u202f')
  return f'{value:.6g}'


def escape(text: object) -> str:
  """Returns a text escaped for HTML, quotes included."""
  return html.escape(str(text), quote=True)
