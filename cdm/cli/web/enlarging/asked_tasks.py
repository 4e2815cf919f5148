"""Checks what the page asks for, and says it as the worker is told.

Only known names and values within bounds go to the worker; all that depends on
the picture is checked there.
"""

import math
from collections.abc import Callable
from typing import Any

from cdm.cli.web.request_guard import Refusal

MOST_SCALE = 16.0
MOST_SEEDS = 8
MOST_SIDE = 20_000
FORMATS = ('jpg', 'png', 'tif', 'webp', 'avif')


def part(given: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
  """Returns the task of drawing a part.

  Args:
    given: top, left, height, width, scale, seed, seeds (how many), map (whether
      to show where they disagree), and label.
    about: what the worker says of its model.

  Raises:
    Refusal: a value is none.
  """
  where = {
    name: _whole(given, name, least, MOST_SIDE)
    for name, least in (('top', 0), ('left', 0), ('height', 1), ('width', 1))
  }
  seeds = _whole(given, 'seeds', 1, MOST_SEEDS) if about['draws'] else 0
  return {
    'task': 'part',
    'part': where,
    'scale': _scale(given, about),
    'seeds': seeds,
    'seed': _seed(given, seeds),
    'map': bool(given.get('map')) and seeds > 1,
    'label': _label(given, about),
  }


def file(given: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
  """Returns the task of enlarging a whole picture.

  Args:
    given: scale, seed, detail, strip (leave metadata out), format (None keeps
      that of the picture), and label.
    about: see `part`.

  Raises:
    Refusal: a value is none.
  """
  form = given.get('format')
  if form is not None and form not in FORMATS:
    raise Refusal(422, f'format is none of {", ".join(FORMATS)}.')
  detail = None
  if about['mean']:
    detail = _number(given, 'detail', 0.0, 1.0)
  return {
    'task': 'file',
    'scale': _scale(given, about),
    'seed': _seed(given, 1),
    'detail': detail,
    'strip': bool(given.get('strip')),
    'format': form,
    'label': _label(given, about),
  }


def draw(
  given: dict[str, Any], about: dict[str, Any], most: int
) -> dict[str, Any]:
  """Returns the task of drawing from a cascade.

  Args:
    given: count, seed, label, and guidance, {stage: weight}.
    about: what the worker says of its cascade.
    most: pictures of one task.

  Raises:
    Refusal: a value is none.
  """
  guidance = given.get('guidance') or {}
  if not isinstance(guidance, dict) or not set(guidance) <= set(
    about['guided']
  ):
    raise Refusal(422, 'guidance names a stage that cannot be guided.')
  count, seed = _whole(given, 'count', 1, most), _seed(given, 1)
  return {
    'task': 'draw',
    'name': f'seed {seed}',
    'count': count,
    'seed': seed,
    'label': _label(given, about),
    'guidance': {
      name: _number(guidance, name, 0.0, 100.0) for name in guidance
    },
  }


def _scale(given, about):
  least = 1.0 if about['factor'] > 1 else about['factor']
  return _number(given, 'scale', least, MOST_SCALE)


def _seed(given, count):
  return _whole(given, 'seed', 0, 2**32 - max(count, 1))


def _label(given, about):
  """Returns the class, or None for an unknown one."""
  if not about['num_classes'] or given.get('label') is None:
    return None
  return _whole(given, 'label', 0, about['num_classes'] - 1)


def _whole(given, name, least, most) -> int:
  value = _checked(given, name, least, most, lambda x: type(x) is int)
  return int(value)


def _number(given, name, least, most) -> float:
  def is_number(x):
    return type(x) in (int, float) and math.isfinite(x)

  return float(_checked(given, name, least, most, is_number))


def _checked(
  given: dict[str, Any],
  name: str,
  least: float,
  most: float,
  is_kind: Callable[[Any], bool],
) -> Any:
  value: Any = given.get(name)
  if not is_kind(value) or not least <= value <= most:
    raise Refusal(422, f'{name} must be from {least:g} to {most:g}.')
  return value
