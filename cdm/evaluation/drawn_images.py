"""Draws a set of images batch by batch, with a cascade or with one stage.

Images are drawn in batches of their own size, whatever the size of the batches
in which they are judged.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, cast

import jax
import numpy as np

from cdm.distributed import collectives, device_mesh
from cdm.evaluation.row_types import ImageManifest, StageEntry
from cdm.ops.keys import seed_pairs
from cdm.sampling import generate
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
    notes: what is noted of each stage, see `restore.CascadeEntry`.
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

  The low-res inputs are made of the stage's data, as in training.

  Args:
    upscale: the stage; its `batch_size` images are drawn at once. The last
      batch is filled up, so that one shape is compiled.
    read: index of an image -> (image, label), or None if it is skipped.
    seed: seed of the images.
    count: number of images.
    on_batch: see `image_source.resolve`.
  """
  size = upscale.batch_size

  def batches(first, _):
    with futures.ThreadPoolExecutor(READERS) as pool:
      for start in range(first * size, count, size):
        batch = np.arange(start, min(start + size, count))
        indices, examples = select_present(batch, pool.map(read, batch))
        skipped = np.setdiff1d(batch, indices)
        if not examples:
          if on_batch is not None:
            on_batch(skipped, indices, (), (), ())
          yield indices, None
          continue
        originals, labels = map(np.stack, zip(*examples, strict=True))
        filled = np.resize(np.arange(len(indices)), size)
        low = upscale.shrink(originals[filled])
        keys = seed_pairs(seed, indices[filled])
        images = upscale(low, keys=keys, label=labels[filled])
        local = list(collectives.local_indices(len(indices)))
        if on_batch is not None:
          on_batch(
            skipped,
            indices[local],
            images[local],
            originals[local],
            low[local],
          )
        yield indices[local], images[local] if local else None

  return batches


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
