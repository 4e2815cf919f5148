"""Curves of scalars as one SVG drawing, styled by the page it stands in.

Its classes are `grid`, `raw`, `curve`, `end` and `label`; the i-th series has
the color of the CSS variable --ci, up to --c5.
"""

import html
import math
from typing import NamedTuple

COLORS = 6  # how many --cN there are; more series reuse them
# The drawing area of a curve in SVG units, and its margins.
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 40, 48
MAX_POINTS = 800  # more would make the page large and the line no finer


def svg(series, *, x_label='step', y_label='loss', log_y=False, smoothing=0.06):
  """Draws curves with axes and a legend, thin unsmoothed and thick smoothed.

  Args:
    series: dict of name -> sequence of (x, y). Values that are not finite (or
      not positive, with log_y) are left out.
    x_label, y_label: texts on the axes.
    log_y: logarithmic y axis.
    smoothing: share in [0, 1) of a curve's values that each point of the thick
      line averages, half of them before and half after, so that it does not
      lag. 0 draws the values alone.

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
  frame = _frame([p for points in series.values() for p in points], log_y)
  parts = [*_axes(frame, x_label, y_label), *_legend(series)]
  for i, points in enumerate(series.values()):
    color = f'style="stroke: var(--c{i % COLORS})"'
    if smoothing:
      parts.append(f'<path class="raw" {color} d="{_path(points, frame)}"/>')
      points = _smoothed(points, smoothing)
    parts.append(f'<path class="curve" {color} d="{_path(points, frame)}"/>')
    x, y = frame.place(*points[-1])
    parts.append(
      f'<circle class="end" {color} cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    )
  label = _escape(f'{y_label} over {x_label}: {", ".join(series)}')
  return (
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    f'{"".join(parts)}</svg>'
  )


class _Frame(NamedTuple):
  """Data ranges (y as its logarithm if log) and the ticks in them."""

  x: tuple
  y: tuple
  x_ticks: list
  y_ticks: list
  log: bool

  def place(self, x, y):
    """-> SVG coordinates of a point."""
    y = math.log10(y) if self.log else y
    across = (x - self.x[0]) / (self.x[1] - self.x[0])
    up = (y - self.y[0]) / (self.y[1] - self.y[0])
    return (
      LEFT + across * (WIDTH - LEFT - RIGHT),
      HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
    )


def _frame(points, log):
  xs, ys = zip(*points, strict=True)
  x = _range(min(xs), max(xs))
  if log:
    low, high = math.log10(min(ys)), math.log10(max(ys))
    pad = max(0.05 * (high - low), 0.02)
    y = (low - pad, high + pad)
    y_ticks = _log_ticks(*y)
  else:
    y = _range(min(ys), max(ys), pad=0.05)
    y_ticks = _ticks(*y)
  return _Frame(x, y, _ticks(*x), y_ticks, log)


def _range(low, high, pad=0.0):
  if low == high:
    margin = 0.5 * abs(low) or 0.5
    return low - margin, high + margin
  return low - pad * (high - low), high + pad * (high - low)


def _ticks(low, high, count=6):
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
    return [v for v in _ticks(10**low, 10**high) if v > 0]
  return [
    digit * 10.0**power
    for power in range(math.floor(low), math.ceil(high) + 1)
    for digit in digits
    if low <= math.log10(digit) + power <= high
  ]


def _axes(frame, x_label, y_label):
  bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
  low_y = 10 ** frame.y[0] if frame.log else frame.y[0]
  for value in frame.y_ticks:
    y = frame.place(frame.x[0], value)[1]
    yield (
      f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" '
      f'y2="{y:.1f}"/><text x="{LEFT - 8}" y="{y + 4:.1f}" '
      f'text-anchor="end">{_tick(value)}</text>'
    )
  for value in frame.x_ticks:
    x = frame.place(value, low_y)[0]
    yield (
      f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" '
      f'y2="{bottom + 5}"/><text x="{x:.1f}" y="{bottom + 20}" '
      f'text-anchor="middle">{_tick(value)}</text>'
    )
  middle = (TOP + bottom) / 2
  yield (
    f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
    f'{_escape(x_label)}</text><text x="16" y="{middle}" text-anchor="middle" '
    f'transform="rotate(-90 16 {middle})">{_escape(y_label)}</text>'
  )


def _legend(series):
  x = LEFT
  for i, name in enumerate(series):
    yield (
      f'<line class="curve" style="stroke: var(--c{i % COLORS})" x1="{x}" '
      f'x2="{x + 18}" y1="20" y2="20"/><text class="label" x="{x + 24}" '
      f'y="24">{_escape(name)}</text>'
    )
    x += 24 + 7.5 * len(name) + 24  # the width of a letter, about


def _smoothed(points, share):
  """Mean of y over the neighbours on both sides, fewer at the ends."""
  reach = int(share * len(points) / 2)
  smooth = []
  for i, (x, _) in enumerate(points):
    near = [y for _, y in points[max(0, i - reach) : i + reach + 1]]
    smooth.append((x, sum(near) / len(near)))
  return smooth


def _path(points, frame):
  if len(points) > MAX_POINTS:
    stride = -(-len(points) // MAX_POINTS)
    points = [*points[::stride], points[-1]]
  placed = (frame.place(x, y) for x, y in points)
  return 'M' + ' '.join(f'{x:.1f},{y:.1f}' for x, y in placed)


def _tick(value):
  if abs(value) >= 1e4 and value == round(value) and abs(value) < 1e7:
    return f'{int(value):,}'.replace(',', '\u202f')
  return f'{value:.6g}'


def _escape(text):
  return html.escape(str(text), quote=True)
