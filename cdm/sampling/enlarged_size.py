"""Chooses the size of an enlarged picture, and the passes that reach it.

A stage magnifies by a factor of its own. A smaller scale is one pass and a
resize that shrinks; a larger one is a chain of passes, with a resize before
each so that the last pass ends just above the size that is asked for. A stage
that enlarges by any factor up to its own needs no resize.
"""

import math
from typing import NamedTuple

MOST = 16.0  # times


class Asked(NamedTuple):
  """The size that is asked for: at most one of these; none is the stage's own.

  Attributes:
    scale: how many times as long each side becomes.
    width, height: of the result, in pixels; the other follows.
    long_edge: the longer side of the result, in pixels.
    megapixels: millions of pixels of the result.
  """

  scale: float | None = None
  width: int | None = None
  height: int | None = None
  long_edge: int | None = None
  megapixels: float | None = None


class Size(NamedTuple):
  """The size of an enlarged picture.

  Attributes:
    height, width: of the result, in pixels.
    inputs: (height, width) of what goes into each pass. The first is the
      low-res picture; others are the result of the pass before, resized.
    passes: (height, width) of what comes out of each pass.
    warning: a sentence for a user, or ''.
  """

  height: int
  width: int
  inputs: tuple[tuple[int, int], ...]
  passes: tuple[tuple[int, int], ...]
  warning: str = ''


def choose(
  size: tuple[int, int], factor: int, asked: Asked, *, any_factor: bool = False
) -> Size:
  """Returns the size of a picture after it has been enlarged.

  Sides are rounded to the nearest pixel, halves up, and are at least 1. A side
  that is named has exactly the length that is asked for.

  Args:
    size: (height, width) of the low-res picture.
    factor: the magnification of the stage.
    asked: what is asked for.
    any_factor: whether the stage enlarges by smaller factors too.

  Raises:
    ValueError: more than one size is asked for, or it is not a size, or it is
      smaller than the picture or more than `MOST` times as large, or the stage
      does not magnify.
  """
  height, width = size
  goal = _goal(height, width, factor, asked)
  passes = 1
  while any(
    factor**passes * side < aim for side, aim in zip(size, goal, strict=True)
  ):
    if factor < 2:
      raise ValueError(
        f'{width}x{height} pixels are to become {goal[1]}x{goal[0]}, but this '
        'stage does not enlarge pictures; use --scale=1, or another stage.'
      )
    passes += 1
  inputs = [(height, width)]
  for left in range(passes - 1, 0, -1):
    y, x = (-(-side // factor**left) for side in goal)
    inputs.append((y, x))
  ends = [(factor * y, factor * x) for y, x in inputs]
  if any_factor:
    ends = [*inputs[1:], goal]
  warning = ''
  if passes > 1:
    scale = math.sqrt(math.prod(goal) / (height * width))
    warning = (
      f'{scale:.4g} times is more than the {factor} times of this stage: the '
      f'picture passes through it {passes} times, and each pass takes what the '
      'one before made up for real.'
    )
  return Size(*goal, tuple(inputs), tuple(ends), warning)


def _goal(height, width, factor, asked):
  """Returns (height, width) of the result."""
  given = {k: v for k, v in asked._asdict().items() if v is not None}
  if len(given) > 1:
    flags = ' and '.join(f'--{k}={v:g}' for k, v in given.items())
    raise ValueError(f'{flags} both set the size of the result; give one.')
  flag, value = next(iter(given.items()), ('scale', float(factor)))
  if not (math.isfinite(value) and value > 0):
    raise ValueError(f'--{flag}={value:g} is not a size; use one above 0.')
  sides = {
    'width': width,
    'height': height,
    'long_edge': max(height, width),
  }
  if flag == 'scale':
    scale = value
  elif flag == 'megapixels':
    scale = math.sqrt(value * 1e6 / (height * width))
  else:
    scale = value / sides[flag]
  if not 1.0 <= scale <= MOST:
    least = {'scale': 1.0, 'megapixels': height * width / 1e6}.get(flag)
    least = sides[flag] if least is None else least
    most = least * (MOST**2 if flag == 'megapixels' else MOST)
    raise ValueError(
      f'--{flag}={value:g} makes {width}x{height} pixels {scale:.4g} times as '
      f'long; use {least:g} to {most:g}, which is 1 to {MOST:g} times.'
    )
  return tuple(
    max(1, math.floor(side * scale + 0.5)) for side in (height, width)
  )
