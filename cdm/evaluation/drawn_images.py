"""Draws a set of images batch by batch, with a cascade or with one stage.

Images are drawn in batches of their own size, whatever the size of the batches
in which they are judged.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, cast

import jax
import numpy as np

from cdm.distributed import device_mesh
from cdm.evaluation.row_types import ImageManifest, StageEntry
from cdm.ops.keys import seed_pairs
from cdm.sampling import generate, search_report
from cdm.sampling.cascade import Stage
from cdm.sampling.upscaler import Upscaler

READERS = 8  # threads that decode images

# (index of the first batch, size of the batches that are judged) -> (indices,
# images) of each batch.
Batches = Callable[[int, int], Iterator[tuple[np.ndarray, np.ndarray | None]]]


def label_cycle(stages: Sequence[Stage], num: int) -> np.ndarray | None:
  """Returns int32 [num], all classes in turn; None if no stage takes a label.

  Args:
    stages: the stages of a cascade.
    num: number of images.
  """
  classes = [s.num_classes for s in stages if s.num_classes is not None]
  return generate.label_cycle(list(range(classes[0])) if classes else None, num)


def cascade_recipe(
  name: str,
  stages: Sequence[Stage],
  notes: Sequence[Mapping[str, Any]],
  *,
  seed: int,
  num: int,
) -> ImageManifest:
  """Returns the manifest of images that a cascade draws.

  Args:
    name: name of the cascade's config.
    stages: its stages.
    notes: what is noted of each stage, see `stage_record.CascadeEntry`.
    seed: seed of the images.
    num: number of images.
  """
  labels = label_cycle(stages, 1)
  return {
    'drawn': name,
    'seed': seed,
    'labels': None if labels is None else 'all in turn',
    'count': num,
    'image_size': [stages[-1].image_size] * 2,
    'stages': [cast(StageEntry, note) for note in notes],
    'weights': 'EMA',
    'rounding': 'round(127.5 x + 127.5), clipped, between stages too',
  }


def cascade_batches(
  draw: Callable[..., Sequence[jax.Array]],
  *,
  seed: int,
  labels: np.ndarray | None,
  num: int,
  size: int,
) -> Batches:
  """Returns `image_source.Source.batches` of images that a cascade draws.

  Args:
    draw: what `cascade.sampler` returns.
    seed: seed of the images.
    labels: int32 [num], or None.
    num: number of images.
    size: images that are drawn at once, see `drawing_batch.batch_size`.
  """

  def batches(first, _):
    for start in range(first * size, num, size):
      indices = np.arange(start, min(start + size, num))
      filled = np.resize(indices, size)
      label = None if labels is None else labels[filled]
      images = draw(seed, filled, label)[-1]
      rows = [
        (row, image)
        for row, image in device_mesh.local_images(images)
        if row < len(indices)
      ]
      local = indices[[row for row, _ in rows]] if rows else indices[:0]
      yield local, np.stack([image for _, image in rows]) if rows else None

  return batches


def stage_batches(
  upscale: Upscaler,
  read: Callable[[int], tuple[np.ndarray, int] | None],
  *,
  seed: int,
  count: int,
  on_batch: Callable[..., object] | None = None,
) -> Batches:
  """Returns `image_source.Source.batches` of images that a stage draws.

  The low-res inputs are made of the stage's data, as in training. Every process
  reads and holds only the images that its own devices draw.

  Args:
    upscale: the stage; its `batch_size` images, which divide over its mesh, are
      drawn at once. The place of an image that is skipped or beyond the last is
      filled with another, so that one shape is compiled.
    read: index of an image -> (image, label), or None if it is skipped.
    seed: seed of the images.
    count: number of images.
    on_batch: see `image_source.resolve`.
  """
  size, side = upscale.batch_size, upscale.image_size
  rows = np.arange(size)
  if upscale.mesh is not None:
    rows = device_mesh.local_rows(upscale.mesh, size)
  black = np.zeros((side, side, 3), np.uint8), 0
  missed = []

  def batches(first, _):
    with futures.ThreadPoolExecutor(READERS) as pool:
      for start in range(first * size, count, size):
        numbers = [int(n) for n in start + rows]
        there = [n for n in numbers if n < count]
        found = dict(zip(there, pool.map(read, there), strict=True))
        skipped = [n for n in there if found[n] is None]
        drawn = _filled(numbers, [n for n in there if found[n] is not None])
        examples = [found.get(n) or black for n in drawn]
        originals, labels = map(np.stack, zip(*examples, strict=True))
        results = upscale.upscale_rows(
          originals, keys=seed_pairs(seed, np.array(drawn)), label=labels
        )
        own = [(start + row, *both) for row, *both in results]
        own = [entry for entry in own if found.get(entry[0]) is not None]
        if upscale.is_found is not None:
          missed.extend(
            int(n)
            for n, low, image in own
            if not upscale.is_found(image[None], low[None])[0]
          )
        indices = np.array([n for n, _, _ in own], int)
        images = [image for _, _, image in own]
        if on_batch is not None:
          original_of = dict(zip(drawn, originals, strict=True))
          originals = [original_of[n] for n in indices]
          on_batch(
            skipped, indices, images, originals, [low for _, low, _ in own]
          )
        yield indices, np.stack(images) if images else None
    if upscale.is_found is not None:
      # Of this run; what an earlier one has drawn is not drawn again.
      search_report.say(missed, range(count))

  return batches


def _filled(numbers, present):
  """Returns the numbers, with present ones in the place of the others.

  Without any they stay: all processes draw, and one may have no image.
  """
  if not present:
    return numbers
  known = set(present)
  return [
    n if n in known else present[i % len(present)]
    for i, n in enumerate(numbers)
  ]


def select_present(
  indices: np.ndarray, values: Iterable
) -> tuple[np.ndarray, list]:
  """Drops the pairs (index, value) whose value is None.

  Returns:
    (indices int [n], values [n]) of the remaining pairs.
  """
  both = [
    pair for pair in zip(indices, values, strict=True) if pair[1] is not None
  ]
  return np.array([n for n, _ in both], int), [value for _, value in both]
