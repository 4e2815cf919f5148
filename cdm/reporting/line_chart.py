"""Curves of scalars as one SVG drawing, styled by the page it stands in.

Its classes are `grid`, `raw`, `curve`, `end`, `whisker`, `ideal` and `label`;
the i-th series has the color of the CSS variable --ci, up to --c5.
"""

import html
import math
from typing import NamedTuple

COLORS = 6  # how many --cN there are; more series reuse them
# The drawing area of a curve in SVG units, and its margins.
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 40, 48
LETTER = 7.5  # its width, about
MAX_POINTS = 800  # more would make the page large and the line no finer


def svg(
  series,
  *,
  x_label='step',
  y_label='loss',
  log_y=False,
  smoothing=0.06,
  size=(WIDTH, HEIGHT),
  x_names=None,
  bands=None,
  diagonal=False,
  joined=True,
):
  """Draws curves with axes and a legend, thin unsmoothed and thick smoothed.

  Args:
    series: dict of name -> sequence of (x, y). Values that are not finite (or
      not positive, with log_y) are left out.
    x_label, y_label: texts on the axes.
    log_y: logarithmic y axis.
    smoothing: share in [0, 1) of a curve's values that each point of the thick
      line averages, half of them before and half after, so that it does not
      lag. 0 draws the values alone.
    size: (width, height) in units of which a letter is 13 high; a smaller
      drawing has larger letters where it is stretched.
    x_names: texts under x = 0, 1, ... in place of numbers.
    bands: dict of name -> sequence of (x, low, high), intervals of that curve.
    diagonal: draw y = x, and give both axes the same range.
    joined: False leaves out the lines and shows the points alone.

  Returns:
    str, an <svg> element; None if there is no value to draw.

  Raises:
    ValueError: smoothing outside [0, 1).
  """
  if not 0.0 <= smoothing < 1.0:
    raise ValueError(f'smoothing is {smoothing}; use 0 <= smoothing < 1.')
  series = {
    name: [
      (float(x), float(y))
      for x, y in points
      if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log_y)
    ]
    for name, points in series.items()
  }
  series = {name: points for name, points in series.items() if points}
  if not series:
    return None
  bands = _drawable(bands or {}, series, log_y)
  reach = [p for points in series.values() for p in points]
  reach += [(x, y) for band in bands.values() for x, *ys in band for y in ys]
  frame = _frame(reach, log_y, size, x_names, diagonal)
  parts = [*axes(frame, x_label, y_label), *_legend(series)]
  if diagonal:
    ends = [(low, low) for low in frame.x]
    parts.append(f'<path class="ideal" d="{path(ends, frame)}"/>')
  for i, (name, points) in enumerate(series.items()):
    color = f'style="stroke: var(--c{i % COLORS})"'
    for x, low, high in bands.get(name, ()):
      ends = path([(x, low), (x, high)], frame)
      parts.append(f'<path class="whisker" {color} d="{ends}"/>')
    if not joined or x_names:
      parts += _dots(points, frame, color)
    if not joined:
      continue
    if smoothing:
      parts.append(f'<path class="raw" {color} d="{path(points, frame)}"/>')
      points = _smoothed(points, smoothing)
    parts.append(f'<path class="curve" {color} d="{path(points, frame)}"/>')
    x, y = frame.place(*points[-1])
    parts.append(
      f'<circle class="end" {color} cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    )
  label = escape(f'{y_label} over {x_label}: {", ".join(series)}')
  return (
    f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{label}">'
    f'{"".join(parts)}</svg>'
  )


class Frame(NamedTuple):
  """Data ranges (y as its logarithm if log) and the ticks in them."""

  x: tuple
  y: tuple
  x_ticks: list
  y_ticks: list
  log: bool
  size: tuple = (WIDTH, HEIGHT)
  x_names: tuple = ()

  @property
  def right(self):
    return self.size[0] - RIGHT

  @property
  def bottom(self):
    return self.size[1] - BOTTOM

  def place(self, x, y):
    """-> SVG coordinates of a point."""
    y = math.log10(y) if self.log else y
    across = (x - self.x[0]) / (self.x[1] - self.x[0])
    up = (y - self.y[0]) / (self.y[1] - self.y[0])
    return (
      LEFT + across * (self.right - LEFT),
      self.bottom - up * (self.bottom - TOP),
    )


def _frame(points, log, size, x_names, diagonal):
  xs, ys = zip(*points, strict=True)
  if diagonal:
    xs = ys = (*xs, *ys)
  x = _range(min(xs), max(xs))
  if x_names:
    x = (-0.3, len(x_names) - 0.7)  # the first and the last point keep off
  if log:
    low, high = math.log10(min(ys)), math.log10(max(ys))
    pad = max(0.05 * (high - low), 0.02)
    y = (low - pad, high + pad)
    y_ticks = _log_ticks(*y)
  else:
    y = _range(min(ys), max(ys), pad=0.0 if diagonal else 0.05)
    y_ticks = ticks(*y)
  x_ticks = list(range(len(x_names))) if x_names else ticks(*x)
  return Frame(x, y, x_ticks, y_ticks, log, size, tuple(x_names or ()))


def _drawable(bands, series, log):
  """-> the bands of curves that are there, of values that can be placed."""
  return {
    name: [
      (float(x), float(low), float(high))
      for x, low, high in band
      if math.isfinite(low) and math.isfinite(high) and (low > 0 or not log)
    ]
    for name, band in bands.items()
    if name in series
  }


def _range(low, high, pad=0.0):
  if low == high:
    margin = 0.5 * abs(low) or 0.5
    return low - margin, high + margin
  return low - pad * (high - low), high + pad * (high - low)


def ticks(low, high, count=6):
  """-> round numbers in [low, high], about `count` of them."""
  raw = (high - low) / count
  power = 10.0 ** math.floor(math.log10(raw))
  step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [i * step for i in range(first, last + 1)]


def _log_ticks(low, high):
  """-> numbers with 10^low <= v <= 10^high, fewer the wider the range."""
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


def axes(frame, x_label, y_label):
  bottom, right = frame.bottom, frame.right
  low_y = 10 ** frame.y[0] if frame.log else frame.y[0]
  for value in frame.y_ticks:
    y = frame.place(frame.x[0], value)[1]
    yield (
      f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" '
      f'y2="{y:.1f}"/><text x="{LEFT - 8}" y="{y + 4:.1f}" '
      f'text-anchor="end">{_tick(value)}</text>'
    )
  wide = max(map(len, frame.x_names), default=0) * LETTER
  crowded = wide > (right - LEFT) / max(len(frame.x_ticks), 1)
  for i, value in enumerate(frame.x_ticks):
    lower = 12 if crowded and i % 2 else 0  # every other name a line below
    x = frame.place(value, low_y)[0]
    yield (
      f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" '
      f'y2="{bottom + 5}"/><text x="{x:.1f}" y="{bottom + 18 + lower}" '
      f'text-anchor="middle">{_x_tick(frame, value)}</text>'
    )
  middle, under = (TOP + bottom) / 2, frame.size[1] - 8
  yield (
    f'<text x="{(LEFT + right) / 2}" y="{under}" text-anchor="middle">'
    f'{escape(x_label)}</text><text x="16" y="{middle}" text-anchor="middle" '
    f'transform="rotate(-90 16 {middle})">{escape(y_label)}</text>'
  )


def _legend(series):
  x = LEFT
  for i, name in enumerate(series):
    yield (
      f'<line class="curve" style="stroke: var(--c{i % COLORS})" x1="{x}" '
      f'x2="{x + 18}" y1="20" y2="20"/><text class="label" x="{x + 24}" '
      f'y="24">{escape(name)}</text>'
    )
    x += 24 + LETTER * len(name) + 24


def _smoothed(points, share):
  """Mean of y over the neighbours on both sides, fewer at the ends."""
  reach = int(share * len(points) / 2)
  smooth = []
  for i, (x, _) in enumerate(points):
    near = [y for _, y in points[max(0, i - reach) : i + reach + 1]]
    smooth.append((x, sum(near) / len(near)))
  return smooth


def path(points, frame):
  if len(points) > MAX_POINTS:
    stride = -(-len(points) // MAX_POINTS)
    points = [*points[::stride], points[-1]]
  placed = (frame.place(x, y) for x, y in points)
  return 'M' + ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)


def _dots(points, frame, color):
  for x, y in points:
    x, y = frame.place(x, y)
    yield f'<circle class="end" {color} cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _x_tick(frame, value):
  return escape(frame.x_names[value]) if frame.x_names else _tick(value)


def _tick(value):
  if abs(value) >= 1e4 and value == round(value) and abs(value) < 1e7:
    return f'{int(value):,}'.replace(',', '\u202f')
  return f'{value:.6g}'


def escape(text):
  return html.escape(str(text), quote=True)
