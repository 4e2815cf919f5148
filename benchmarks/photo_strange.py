"""Enlarges pictures that no camera makes, and looks for what is not finite."""

import numpy as np
from photo_enlarger import Enlarger, How
from photo_judged import Judged

from cdm.data.low_res_inputs import Degradation

FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)


def judge(enlarger: Enlarger, count: int, judged: Judged) -> None:
  """Adds the line of strange pictures.

  Args:
    enlarger: the stage.
    count: number of pictures.
    judged: what it is added to.
  """
  bad, largest = 0, 0.0
  for i in range(count):
    rng = np.random.default_rng((1, i))
    low, damage = strange_input(rng)
    how = How(factor=float(rng.choice(FACTORS)), detail=1.0, seed=i)
    y = enlarger(low, damage, how)
    bad += int(not np.isfinite(y).all())
    largest = max(largest, float(np.abs(y).max()))
  judged.add(
    f'{count} strange inputs: {bad} with values that are not finite, the '
    f'largest value {largest:.2f}',
    bad == 0,
    measure='strange',
    value=bad,
    largest=largest,
  )


def strange_input(rng: np.random.Generator) -> tuple[np.ndarray, Degradation]:
  """Returns (uint8 [h, w, 3] of 1 to 32 pixels, damage beyond what is learned).

  Args:
    rng: generator of the picture.
  """
  h, w = (int(n) for n in rng.integers(1, 33, 2))
  kind = rng.integers(6)
  x = np.zeros((h, w, 3), np.uint8)
  if kind == 0:
    x[:] = rng.integers(0, 256, 3)
  elif kind == 1:
    x = rng.integers(0, 256, (h, w, 3), np.uint8)
  elif kind == 2:
    x[np.indices((h, w)).sum(axis=0) % 2 == 0] = 255
  elif kind == 3:
    x[rng.integers(h), rng.integers(w)] = 255
  elif kind == 4:
    x[:, ::2] = 255
  else:
    x[:] = 255 * rng.integers(0, 2, 3)
  damage = Degradation(
    blur=rng.uniform(-1.0, 3.0),
    noise=rng.uniform(-6.0, 18.0),
    quality=int(rng.integers(0, 150)),
  )
  return x, damage
