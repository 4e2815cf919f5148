"""Computes intervals of means over trials that share persons and pictures.

The trials of a person are not independent, nor are those of a picture. Each
resample draws persons and, separately, pictures, with replacement; a trial
counts as often as its person times as often as its picture (Owen 2007, "The
pigeonhole bootstrap"). The interval errs towards being too wide: where neither
persons nor pictures differ it is up to sqrt(3) times Wilson's.
"""

from typing import NamedTuple

import numpy as np

from cdm.evaluation.metrics import bootstrap


class Resamples(NamedTuple):
  """How often each person and each picture is in each resample.

  Attributes:
    persons: [R, P].
    pictures: [R, I].
  """

  persons: np.ndarray
  pictures: np.ndarray


def draw(
  persons: int, pictures: int, *, resamples: int = 2000, seed: int = 0
) -> Resamples:
  """Draws resamples of so many persons and pictures.

  With a single person, or a single picture, only the others are drawn.
  """
  generator = np.random.default_rng(seed)

  def counts(number: int) -> np.ndarray:
    if number < 2:
      return np.ones((resamples, number))
    return generator.multinomial(
      number, np.full(number, 1 / number), resamples
    ).astype(float)

  return Resamples(counts(persons), counts(pictures))


def sums(values: np.ndarray, resamples: Resamples) -> np.ndarray:
  """Sums values over every resample.

  Args:
    values: [P, I], the sum over the trials of a person with a picture.
    resamples: R of them.

  Returns:
    [R].
  """
  return np.sum((resamples.persons @ values) * resamples.pictures, axis=1)


def interval(
  total: np.ndarray,
  count: np.ndarray,
  resamples: Resamples,
  *,
  level: float = 0.95,
) -> tuple[float, float] | None:
  """Returns the percentile interval of a mean over trials.

  Args:
    total: [P, I], sum of the values of a person's trials with a picture.
    count: [P, I], the number of those trials.
    resamples: see `draw`.
    level: share of the resamples inside.

  Returns:
    (low, high); None if there is one person with one picture, or nothing.
  """
  if max(count.shape) < 2 or not count.any():
    return None
  numbers = sums(count, resamples)
  some = numbers > 0  # A resample may hold no trial of a method.
  if not some.any():
    return None
  means = sums(total, resamples)[some] / numbers[some]
  return bootstrap.ends(means, level)
