"""Enlarges pictures as `cdm upscale` does, to numbers that are not rounded."""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np

from cdm.data.low_res_inputs import Degradation
from cdm.data.photographs import array_pictures
from cdm.sampling import (
  canvas_plan,
  enlarged_jobs,
  enlarged_size,
  loaded_model,
  picture_damage,
  picture_rows,
)
from cdm.sampling.enlargement import Drawn, Enlargement


class How(NamedTuple):
  """How a picture is enlarged.

  Attributes:
    factor: how far.
    detail: from 0, the mean, to 1, a draw.
    window: pixels of the side of windows; None takes what suits the picture.
    seed: of the noise.
  """

  factor: float = 4.0
  detail: float = 0.0
  window: int | None = None
  seed: int = 0


MEAN = How()


class Enlarger:
  """A trained photo stage."""

  def __init__(self, workdir: pathlib.Path, at: str | None):
    """Loads a work directory, or the file that `cdm export` made of it.

    Args:
      workdir: the directory or the file.
      at: a step, or 'best'; None is the newest.
    """
    model = loaded_model.load(workdir, None, loaded_model.Choice(at=at))
    assert model.upscaler is not None and model.upscaler.canvas is not None
    self._canvas = model.upscaler.canvas
    self.step = model.upscaler.record.checkpoint

  @property
  def draws_details(self) -> bool:
    """Whether the stage draws details over its mean."""
    assert self._canvas.stage.canvas is not None
    return self._canvas.stage.canvas.draws_mean

  def __call__(
    self, low: np.ndarray, damage: Degradation, how: How = MEAN
  ) -> np.ndarray:
    """Returns the picture enlarged, float32 [H, W, 3], about in [-1, 1].

    Rounds of back-projection are those of `cdm upscale`.

    Args:
      low: uint8 [h, w, 3].
      damage: what degraded it.
      how: see `How`.
    """
    picture = array_pictures.taken(low).photographs[0]
    canvas = self._canvas
    size = enlarged_size.choose(
      low.shape[:2],
      canvas.factor,
      enlarged_size.Asked(scale=how.factor),
      any_factor=canvas.takes_any_factor,
    )
    canvas = dataclasses.replace(canvas, detail=how.detail)
    if how.window is None:
      ((_, enlargement),) = enlarged_jobs.drawn_together(canvas, [size])
    else:
      stated = canvas.stage.canvas.any_factor
      cut = canvas_plan.any_factor(stated, how.window)
      enlargement = Enlargement.of(dataclasses.replace(canvas, cut=cut), size)
    rounds = picture_damage.rounds_of(picture, size, damage, None)
    drawn = Drawn(seed=how.seed, back_projections=rounds, damage=[damage])
    rows = picture_rows.WholePictures(low[None])
    return np.concatenate(list(enlargement.bands(rows, drawn)), axis=1)[0]
