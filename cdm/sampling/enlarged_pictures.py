"""Enlarges pictures in memory, as `enlarged_files` enlarges files."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from cdm.data.photographs.photograph import Photograph
from cdm.sampling import (
  enlarged_files,
  enlarged_jobs,
  enlarged_size,
  picture_damage,
  picture_rows,
)
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlargement import Drawn, Enlargement


def number_of_pixels(one: Photograph) -> int:
  """Returns a number for the noise of a picture that has no file.

  It depends on the values, the dtype and the shape of its pixels alone.

  Args:
    one: the picture.
  """
  digest = hashlib.sha256(f'{one.samples.dtype} {one.samples.shape}'.encode())
  digest.update(np.ascontiguousarray(one.samples).data)
  if one.alpha is not None:
    digest.update(np.ascontiguousarray(one.alpha).data)
  return enlarged_jobs.number_of(digest.hexdigest())


def enlarge(
  upscaler: CanvasUpscaler,
  pictures: Sequence[Photograph],
  numbers: Sequence[int],
  settings: Settings,
) -> list[np.ndarray]:
  """Enlarges pictures; those of one size that are small are drawn together.

  Args:
    upscaler: the stage.
    pictures: the pictures.
    numbers: number of each, which its noise depends on beside the seed.
    settings: size, seed, label, rounds of back-projection, damage and detail;
      the rest is about files.

  Returns:
    The results, [H, W, C] of the dtype of each picture, with alpha as a last
    channel where it has one.

  Raises:
    ValueError: a size is impossible.
  """
  upscaler = dataclasses.replace(upscaler, detail=settings.detail)
  damage = [
    picture_damage.of_picture(one, upscaler, settings.damage)
    for one in pictures
  ]
  sizes = [
    enlarged_size.choose(
      one.samples.shape[:2],
      upscaler.factor,
      settings.asked,
      any_factor=upscaler.takes_any_factor,
    )
    for one in pictures
  ]
  results: dict[int, np.ndarray] = {}
  for chosen, enlargement in enlarged_jobs.drawn_together(upscaler, sizes):
    by_rounds: dict[int, list[int]] = {}
    for i in chosen:
      rounds = picture_damage.rounds_of(
        pictures[i], sizes[i], damage[i], settings.back_projections
      )
      by_rounds.setdefault(rounds, []).append(i)
    for rounds, some in by_rounds.items():
      if len(some) < len(chosen):
        enlargement = Enlargement.of(
          enlargement.upscaler,
          enlargement.size,
          count=len(some),
          at_once=enlargement.plans[0].at_once,
        )
      drawn = Drawn(
        seed=settings.seed,
        numbers=[numbers[i] for i in some],
        label=settings.label,
        back_projections=rounds,
        damage=[damage[i] for i in some],
      )
      given = [pictures[i] for i in some]
      made = _drawn(given, enlargement, drawn)
      results |= dict(zip(some, made, strict=True))
  return [results[i] for i in range(len(pictures))]


def _drawn(pictures, enlargement, drawn):
  """Draws pictures of one size."""
  channels = enlargement.upscaler.stage.channels
  colours = np.stack([enlarged_files.colour(one, channels) for one in pictures])
  bands = enlargement.bands(picture_rows.WholePictures(colours), drawn)
  whole = np.concatenate(list(bands), axis=1)
  return [
    np.concatenate(
      list(enlarged_files.finished(iter([rows]), one, enlargement.size))
    )
    for rows, one in zip(whole, pictures, strict=True)
  ]
