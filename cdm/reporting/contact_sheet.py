"""Draws contact sheets: rows of labelled images, and heat maps of numbers."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def magnify(image, size):
  """Nearest-neighbour magnification of uint8 [h, w, 3] to a side `size`."""
  return np.asarray(
    Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST)
  )


# From black over violet and orange to pale yellow.
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def heat(values, top):
  """Colours of a map of numbers, lighter where they are larger.

  Args:
    values: [H, W], at least 0.
    top: number that has the last colour; larger ones too.

  Returns:
    uint8 [H, W, 3].
  """
  place = np.clip(np.asarray(values) / max(top, 1e-12), 0.0, 1.0)
  stops = np.linspace(0.0, 1.0, len(HEAT))
  channels = [
    np.interp(place, stops, channel) for channel in zip(*HEAT, strict=True)
  ]
  return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def sheet(rows, *, names=None, heads=None, scale=1, gap=4):
  """Lays pictures out in labelled rows.

  Args:
    rows: list of rows, each a list of uint8 [S, S, 3] pictures; None leaves a
      gap of half a picture between groups.
    names: label of each row, or None.
    heads: label of each column (None entries are skipped), or None.
    scale: integer magnification of every picture (nearest neighbour).
    gap: pixels between pictures.

  Returns:
    uint8 [height, width, 3], on white.
  """
  side = next(p.shape[0] for row in rows for p in row if p is not None) * scale
  font = ImageFont.load_default(size=max(12, min(16, side // 6)))
  left = gap
  if names is not None:
    left += int(max(font.getlength(str(name)) for name in names)) + 2 * gap
  top = gap + (int(font.size * 1.5) if heads is not None else 0)
  columns = max(len(row) for row in rows)
  steps = np.zeros(columns + 1, int)
  widest = max(rows, key=len)
  for i, picture in enumerate(widest):
    steps[i + 1] = steps[i] + (gap * 3 if picture is None else side + gap)
  width, height = left + steps[-1], top + len(rows) * (side + gap)
  canvas = Image.new('RGB', (int(width), int(height)), 'white')
  draw = ImageDraw.Draw(canvas)
  for i, head in enumerate(heads or ()):
    if head:
      while font.getlength(head) > side and len(head) > 1:
        head = head[:-1]  # rather cut short than written over the next one
      place = (left + steps[i], gap)
      draw.text(place, head, fill='black', font=font)
  for r, row in enumerate(rows):
    y = top + r * (side + gap)
    if names is not None:
      place = (gap, y + side // 2 - font.size // 2)
      draw.text(place, str(names[r]), fill='black', font=font)
    for i, picture in enumerate(row):
      if picture is not None:
        tile = Image.fromarray(magnify(picture, side))
        canvas.paste(tile, (int(left + steps[i]), y))
  return np.asarray(canvas)
