"""Draws contact sheets: rows of labelled images, and heat maps of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def magnify(image: np.ndarray, size: int) -> np.ndarray:
  """Magnifies uint8 [h, w, 3] to [size, size, 3] by repeating pixels."""
  return np.asarray(
    Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST)
  )


# The colours of a heat map, from black over violet and orange to pale yellow.
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def heat_map(values: np.ndarray, top: float) -> np.ndarray:
  """Colours a map of numbers: the larger a number, the lighter its colour.

  Args:
    values: [H, W], at least 0.
    top: number from which on the colour is the last one of `HEAT`.

  Returns:
    uint8 [H, W, 3].
  """
  place = np.clip(np.asarray(values) / max(top, 1e-12), 0.0, 1.0)
  stops = np.linspace(0.0, 1.0, len(HEAT))
  channels = [
    np.interp(place, stops, channel) for channel in zip(*HEAT, strict=True)
  ]
  return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def sheet(
  rows: Sequence[Sequence[np.ndarray | None]],
  *,
  names: Sequence[object] | None = None,
  heads: Sequence[str | None] | None = None,
  scale: int = 1,
  gap: int = 4,
) -> np.ndarray:
  """Lays images out in labelled rows.

  Args:
    rows: rows of images, uint8 [S, S, 3]. None leaves a gap of three times
      `gap` between groups of images.
    names: label of each row, or None.
    heads: label of each column (None entries are skipped), or None.
    scale: integer magnification of every image, by repeating pixels.
    gap: pixels between images.

  Returns:
    uint8 [height, width, 3], on white.
  """
  side = next(p.shape[0] for row in rows for p in row if p is not None) * scale
  # Pillow's annotation includes fonts without a size; with `size` there is one.
  font: Any = ImageFont.load_default(size=max(12, min(16, side // 6)))
  left = gap
  if names is not None:
    left += int(max(font.getlength(str(name)) for name in names)) + 2 * gap
  top = gap + (int(font.size * 1.5) if heads is not None else 0)
  columns = max(len(row) for row in rows)
  steps = np.zeros(columns + 1, int)
  widest = max(rows, key=len)
  for i, image in enumerate(widest):
    steps[i + 1] = steps[i] + (gap * 3 if image is None else side + gap)
  width, height = left + steps[-1], top + len(rows) * (side + gap)
  canvas = Image.new('RGB', (int(width), int(height)), 'white')
  draw = ImageDraw.Draw(canvas)
  for i, head in enumerate(heads or ()):
    if head:
      while font.getlength(head) > side and len(head) > 1:
        head = head[:-1]  # The label is cut, so as not to cover the next one.
      place = (left + steps[i], gap)
      draw.text(place, head, fill='black', font=font)
  for r, row in enumerate(rows):
    y = top + r * (side + gap)
    if names is not None:
      place = (gap, y + side // 2 - font.size // 2)
      draw.text(place, str(names[r]), fill='black', font=font)
    for i, image in enumerate(row):
      if image is not None:
        tile = Image.fromarray(magnify(image, side))
        canvas.paste(tile, (int(left + steps[i]), y))
  return np.asarray(canvas)
