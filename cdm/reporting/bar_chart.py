"""Bars of counts or shares as one SVG drawing, on the axes of `line_chart`."""

from cdm.reporting import line_chart


def svg(heights, *, x_label, y_label, names=None, ideal=None, size=(360, 240)):
  """Draws a bar per height, from zero.

  Args:
    heights: sequence of numbers, none of them negative.
    x_label, y_label: texts on the axes.
    names: text under each bar; its number from 0 by default.
    ideal: height of a dashed line across, or None.
    size: (width, height) of the drawing, see `line_chart.svg`.

  Returns:
    str, an <svg> element.

  Raises:
    ValueError: no heights, or one that is negative.
  """
  heights = [float(height) for height in heights]
  if not heights or min(heights) < 0:
    raise ValueError(
      f'Bars have heights of zero or more, one at least; given: {heights}.'
    )
  names = [str(i) for i in range(len(heights))] if names is None else names
  top = max(*heights, ideal or 0.0, 1e-12) * 1.05
  frame = line_chart.Frame(
    (-0.6, len(heights) - 0.4),
    (0.0, top),
    list(range(0, len(heights), -(-len(heights) // 12))),
    line_chart.ticks(0.0, top),
    False,
    size,
    tuple(names),
  )
  parts = [*line_chart.axes(frame, x_label, y_label)]
  for i, height in enumerate(heights):
    left, y = frame.place(i - 0.4, height)
    right, bottom = frame.place(i + 0.4, 0.0)
    parts.append(
      f'<rect class="bar" x="{left:.1f}" y="{y:.1f}" '
      f'width="{right - left:.1f}" height="{bottom - y:.1f}"/>'
    )
  if ideal is not None:
    ends = [(frame.x[0], ideal), (frame.x[1], ideal)]
    parts.append(f'<path class="ideal" d="{line_chart.path(ends, frame)}"/>')
  label = line_chart.escape(f'{y_label} over {x_label}')
  return (
    f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{label}">'
    f'{"".join(parts)}</svg>'
  )
