"""Draws pictures of lettering, gradients and line art, to train on.

Photographs of nature have none of these, and they are what enlarging damages
most visibly. Every picture depends on its generator alone. The letters are
those of the font that Pillow has built in, Aileron, which is CC0.
"""

import functools
import string
import threading

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CHARACTERS = string.ascii_letters + string.digits + '.,:;!?-()&%'
_FONT_SIZES = (8, 10, 12, 14, 17, 20, 24, 29, 36, 48)  # pixels of the picture
_OVER = 2  # pixels are drawn in so many parts per side, and averaged
# A font of FreeType may not draw in two threads at once.
_font_lock = threading.Lock()


def draw(size: int, rng: np.random.Generator) -> np.ndarray:
  """Draws a picture of one of the three kinds.

  Args:
    size: S, pixels.
    rng: generator of the picture.

  Returns:
    uint8 [S, S, 3].
  """
  kind = rng.integers(4)
  if kind < 2:  # Lettering is half of them.
    return lettering(size, rng)
  return line_art(size, rng) if kind == 2 else gradient(size, rng)


def lettering(size: int, rng: np.random.Generator) -> np.ndarray:
  """Draws lines of random letters on a plain ground; uint8 [S, S, 3]."""
  picture, pen, ink = _canvas(size, rng)
  with _font_lock:
    font = _font(_OVER * int(rng.choice(_FONT_SIZES)))
    top = -int(rng.integers(font.size))
    while top < picture.height:
      text = _words(rng, picture.width)
      left = int(rng.integers(-font.size, font.size))
      pen.text((left, top), text, fill=ink, font=font)
      top += int(font.size * rng.uniform(1.0, 1.6))
  return _reduced(picture)


def line_art(size: int, rng: np.random.Generator) -> np.ndarray:
  """Draws lines, ellipses and polygons on a plain ground; uint8 [S, S, 3]."""
  picture, pen, ink = _canvas(size, rng)
  for _ in range(int(rng.integers(3, 12))):
    points = [tuple(p) for p in rng.uniform(0, picture.width, (4, 2))]
    width = int(rng.integers(1, 8))
    colour = ink if rng.random() < 0.7 else _colour(rng)
    shape = rng.integers(3)
    if shape == 0:
      pen.line(points, fill=colour, width=width)
    elif shape == 1:
      (a, b), (c, d) = points[:2]
      box = (min(a, c), min(b, d), max(a, c), max(b, d))
      pen.ellipse(box, outline=colour, width=width)
    else:
      pen.polygon(points[:3], fill=colour)
  return _reduced(picture)


def gradient(size: int, rng: np.random.Generator) -> np.ndarray:
  """Draws a linear or round gradient of two colours; uint8 [S, S, 3]."""
  y, x = np.mgrid[:size, :size].astype(np.float32) / size
  if rng.random() < 0.5:
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
  else:
    along = np.hypot(x - rng.uniform(-0.5, 1.5), y - rng.uniform(-0.5, 1.5))
  along = (along - along.min()) / (np.ptp(along) + 1e-6)
  first, second = rng.uniform(0, 255, (2, 3))
  # Half of them are dark or light alone, where bands show.
  second = second if rng.random() < 0.5 else first + rng.uniform(-24, 24, 3)
  image = first + along[..., None] * (second - first)
  return np.floor(np.clip(image, 0, 255) + 0.5).astype(np.uint8)


def _canvas(size, rng):
  """Returns (picture, its pen, the colour to draw in)."""
  if rng.random() < 0.4:
    ground, ink = (255, 255, 255), (0, 0, 0)
    if rng.random() < 0.3:
      ground, ink = ink, ground
  else:
    ground, ink = _colour(rng), _colour(rng)
  picture = Image.new('RGB', (_OVER * size, _OVER * size), ground)
  return picture, ImageDraw.Draw(picture), ink


def _colour(rng):
  return tuple(int(v) for v in rng.integers(0, 256, 3))


def _reduced(picture):
  return np.array(picture.reduce(_OVER))


def _words(rng, width):
  """Returns random words, enough for a line of so many pixels."""
  count = int(rng.integers(4, 8 + width // 24))
  letters = rng.choice(list(_CHARACTERS), count)
  gaps = rng.random(count) < 0.17
  return ''.join(
    ' ' if gap else c for c, gap in zip(letters, gaps, strict=True)
  )


@functools.lru_cache(maxsize=16)
def _font(size):
  return ImageFont.load_default(size)
