"""Chooses the images of a comparison that its page shows, by a stated rule."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Shown(NamedTuple):
  """An image of the page.

  Attributes:
    number: of the image among those that are compared.
    why: the rule by which it is shown, such as 'worst 1 by consistency'.
  """

  number: int
  why: str


def choose(
  consistency: Sequence[float | None], *, first: int, extreme: int, of: str
) -> list[Shown]:
  """Returns the first images, then the best and the worst by consistency.

  No image is shown twice: the next one takes its place.

  Args:
    consistency: of every image, lower is better; None where it is not known.
    first: how many of the first images are shown.
    extreme: how many of the best, and of the worst.
    of: the method whose consistency decides.
  """
  count = len(consistency)
  shown = [Shown(n, f'image {n}') for n in range(min(first, count))]
  known = [n for n, value in enumerate(consistency) if value is not None]
  values = np.asarray([consistency[n] for n in known], np.float64)
  order = [known[i] for i in np.argsort(values, kind='stable')]
  for word, numbers in (('best', order), ('worst', order[::-1])):
    taken = {image.number for image in shown}
    rest = [n for n in numbers if n not in taken][:extreme]
    shown += [
      Shown(n, f'image {n}: {word} {place} by the consistency of {of}')
      for place, n in enumerate(rest, 1)
    ]
  return shown
