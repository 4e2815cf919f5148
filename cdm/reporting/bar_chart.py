"""Draws bars of counts or shares as one SVG element, with axes.

The axes look like those of `line_chart`.
"""

from collections.abc import Iterable, Sequence

from cdm.reporting import line_chart


def svg(
  heights: Iterable[float],
  *,
  x_label: str,
  y_label: str,
  names: Sequence[str] | None = None,
  ideal: float | None = None,
  size: tuple[int, int] = (360, 240),
) -> str:
  """Draws a bar of each height, from zero.

  Args:
    heights: height of each bar, zero or more.
    x_label, y_label: texts on the axes.
    names: text under each bar; its index from 0 by default.
    ideal: height of a dashed line across all bars, or None.
    size: (width, height) of the drawing, see `line_chart.svg`.

  Returns:
    An <svg> element.

  Raises:
    ValueError: if there are no heights, or one is negative.
  """
  heights = [float(height) for height in heights]
  if not heights or min(heights) < 0:
    raise ValueError(
      'A bar chart needs at least one height, and none below zero; given were '
      f'{heights}.'
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
  parts = [*line_chart.draw_axes(frame, x_label, y_label)]
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
