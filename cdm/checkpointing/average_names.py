"""Names the averages of the parameters that a run keeps beside the main one.

  decay=0.9999              an exponential average, by its decay per step
  half_life_images=500000   the same, by its half-life in images
  std=0.05                  a power-function average, by its relative width

A number alone is a width. In a state and on disk, where dots and equals signs
separate, the averages are called `decay_0_9999` and so on.
"""

import math
from collections.abc import Iterable

MAIN = 'main'
STD = 'std'
KINDS = ('decay', 'half_life_images', STD)
FIELD = 'averages'  # of the state that has them

EXAMPLES = (
  f'{MAIN!r}, or such as std=0.05, decay=0.9999 or half_life_images=500000'
)


def parse(text: str) -> tuple[str, float]:
  """Returns (kind, value) of a name.

  Raises:
    ValueError: it names no average.
  """
  kind, equals, number = text.partition('=')
  if not equals:
    kind, number = STD, text
  try:
    value = float(number)
  except ValueError:
    value = math.nan
  if kind not in KINDS or not math.isfinite(value):
    raise ValueError(f'{text!r} names no average; give {EXAMPLES}.')
  return kind, value


def name(kind: str, value: float) -> str:
  """Returns the name of an average, in one way of writing its number."""
  number = str(int(value)) if float(value).is_integer() else repr(float(value))
  return f'{kind}={number}'


def canonical(text: str) -> str:
  """Returns the name that a user means, or `MAIN`; see `parse`."""
  return MAIN if text == MAIN else name(*parse(text))


def key(average: str) -> str:
  """Returns what an average is called in a state."""
  return average.replace('=', '_').replace('.', '_')


def name_of(key: str) -> str:
  """Returns the name of the average that a state calls so."""
  kind = next(kind for kind in KINDS if key.startswith(f'{kind}_'))
  return f'{kind}={key.removeprefix(f"{kind}_").replace("_", ".")}'


def width(key: str) -> float:
  """Returns the width of the power-function average that a state calls so."""
  return parse(name_of(key))[1]


def stored(arrays: Iterable[str]) -> list[str]:
  """Returns the names of the averages among the arrays of a state.

  Args:
    arrays: names such as 'averages/std_0_05/conv/kernel'.
  """
  words = [array.split('/') for array in arrays]
  keys = dict.fromkeys(w[1] for w in words if w[0] == FIELD and len(w) > 2)
  return [name_of(key) for key in sorted(keys)]
