"""Resolves the name of a set to its images, read or sampled batch by batch.

The forms of a name are listed in `set_name`. Sets of files and of a config's
data are read; those of a trained cascade or stage are sampled on the fly.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple, cast

import numpy as np

from cdm.config import (
  class_agreement,
  datasets,
  evaluated_images,
  instantiate,
  loader,
)
from cdm.data import image_set, subset
from cdm.data.files import json_file
from cdm.distributed import collectives
from cdm.evaluation import (
  drawn_images,
  image_manifests,
  set_name,
  shared_listing,
  stage_stamp,
)
from cdm.evaluation.drawn_images import READERS, Batches, select_present
from cdm.evaluation.image_selection import ALL_IMAGES, Selection
from cdm.evaluation.row_types import ImageManifest, StageEntry
from cdm.sampling import (
  cascade,
  drawing_batch,
  drawing_cost,
  kept_images,
  named_upscaler,
  restore,
)


class Source(NamedTuple):
  """A set of images that can be iterated over in batches, any number of times.

  Attributes:
    count: number of images, including those that are skipped.
    batches: (first, size) -> iterator over (indices int [n], images uint8
      [n, H, W, 3]), this process's part of every batch from batch number
      `first` on. images is None where this process has none. size is the
      number of images per process; images that are drawn come in batches of
      their own size, `drawn_at_once`.
    recipe: manifest of the images: everything that they depend on.
    paper: {name: number}, the results that the config quotes from its paper.
    stamp: JSON-able fingerprint of the files or checkpoints. The partial
      results of a killed run are continued only if it has not changed.
    drawn_at_once: number of images of a batch, over all processes, that is
      drawn; None for images that are read.
    costs: what an image that is drawn costs in each stage, see
      `sampling.drawing_cost`; None for others.
  """

  count: int
  batches: Batches
  recipe: ImageManifest
  paper: dict[str, float]
  stamp: object = None
  drawn_at_once: int | None = None
  costs: Callable[[], list[drawing_cost.StageCost]] | None = None


def resolve(
  what: str | os.PathLike,
  selection: Selection = ALL_IMAGES,
  *,
  on_batch: Callable[..., object] | None = None,
  kept: kept_images.Kept | None = None,
) -> Source:
  """Resolves the name of a set.

  Args:
    what: name of the set, see `set_name`.
    selection: the images to read or sample.
    on_batch: callback for every batch that a stage samples, `on_batch(skipped,
      indices, super_resolved, originals, lowres)`, in every process with its
      part of the batch. skipped are the indices that have no image; the others
      come with their images uint8 [n, H, W, 3].
    kept: what sets that are sampled under several settings share, or None.

  Returns:
    Source.

  Raises:
    ValueError: there is no such set, or `on_batch` is given and the set is not
      that of a stage.
  """
  name = set_name.parse(what)
  if name.kind == 'data':
    assert name.path is not None and name.split is not None
    return open_config_data(name.path, name.split, selection)
  if name.kind == 'stage':
    assert name.workdir is not None and name.split is not None
    return open_stage(name.workdir, name.split, selection, on_batch, kept)
  if on_batch is not None:
    raise ValueError(
      f'{what} is not sampled from originals that its images could be paired '
      'with; give WORKDIR@eval.'
    )
  if name.kind == 'cascade':
    assert name.path is not None and name.workdir is not None
    return open_cascade(name.path, name.workdir, selection, kept)
  return open_files(what, selection.num, max_value=selection.max_value)


def open_files(
  what: str | os.PathLike,
  num: int | None,
  *,
  max_value: float | None = None,
) -> Source:
  """Returns the images of a folder, an .npz archive or a single file.

  Args:
    what: path.
    num: number of images to take, spread over the set; all by default.
    max_value: see `Selection`.
  """
  listing = shared_listing.list_folder(what)
  images = image_set.load_images(what, max_value=max_value, listing=listing)
  count = check_available(what, images.count, num)
  chosen = subset.spread_indices(range(images.count), count)
  first = images.read(0)
  recipe: ImageManifest = {
    **image_manifests.of_files(what, count, images.count),
    'image_size': list(first.shape[:2]),
    'suffixes': image_set.suffixes_of(what, listing),
    **describe_samples(what),
  }
  if max_value is not None:
    recipe['max_value'] = max_value

  def read(index):
    image = images.read(chosen[index])
    if image.shape != first.shape:
      raise ValueError(
        f'{image_set.name_of(images, chosen[index])} has '
        f'{image_set.size_of(image)} '
        f'pixels but {image_set.name_of(images, 0)} has '
        f'{image_set.size_of(first)}; '
        'evaluate images of one size.'
      )
    return image

  return Source(
    count,
    read_in_parallel(read, count),
    recipe,
    {},
    collectives.call_in_first(lambda: image_set.fingerprint_of(what, listing)),
  )


def describe_samples(what: str | os.PathLike) -> ImageManifest:
  """Returns {'sampling': manifest} if cdm drew the images, else {}.

  The manifest of `cdm sample` lies in the folder of the images or in the one
  above it, that of `cdm upscale --held_out` above its folder `upscaled`.
  """
  path = pathlib.Path(what)
  files = [path / 'sampling.json', path.parent / 'sampling.json']
  if path.name == 'upscaled':
    files.append(path.parent / 'upscaling.json')
  for file in files:
    if file.is_file():
      remedy = (
        'Run the same cdm sample again, which names what the folder holds, or '
        'remove the file: the images are then compared without their recipe.'
      )
      return {'sampling': json_file.read(file, dict[str, Any], remedy=remedy)}
  return {}


def open_config_data(
  path: str | os.PathLike, section: str, selection: Selection = ALL_IMAGES
) -> Source:
  """Returns the data of a config after the config's own preprocessing.

  Args:
    path: path of the config.
    section: 'train' or 'eval'.
    selection: its `num` images are taken, spread over the data, and its
      `overrides` change the config.

  Raises:
    ValueError: the data cannot be opened, or an override does not change it.
  """
  parts = ('pipeline', f'{section}_data')
  for key, _ in selection.overrides:
    if key.partition('.')[0] not in parts:
      raise ValueError(
        f'--config.{key} does not change the images of {path}:{section}, which '
        f'depend on config.{parts[0]} and config.{parts[1]} alone; leave it '
        'out.'
      )
  loaded = loader.load(path, selection.overrides)
  instantiate.require(loaded, *parts)
  return config_data(loaded, section, selection.num, path)


def config_data(
  loaded: loader.ConfigDict,
  section: str,
  num: int | None,
  path: str | os.PathLike,
) -> Source:
  """Returns the data of a config that was loaded, see `open_config_data`.

  Args:
    loaded: the config; a copy is used.
    section: see `open_config_data`.
    num: number of images to take, spread over the data; None takes all.
    path: where the config comes from, for error messages.
  """
  loaded = loaded.copy_and_resolve_references()
  if section == 'train':
    loaded.eval_data = loaded.train_data
  source = datasets.open_source(
    loaded.eval_data, f'{section}_data', remedy=f'Set it in {path}.'
  )
  available = len(source)
  count = check_available(f'{path}:{section}', available, num)
  read, stamp = evaluated_images.open_evaluated(loaded, count)
  recipe = image_manifests.of_config(loaded, source, count)

  def read_image(index):
    example = read(index)  # (image, label), or None if it is skipped
    return None if example is None else example[0]

  return Source(count, read_in_parallel(read_image, count), recipe, {}, stamp)


def open_cascade(
  path: str | os.PathLike,
  workdir: str | os.PathLike,
  selection: Selection,
  kept: kept_images.Kept | None = None,
) -> Source:
  """Returns the images of a trained cascade, sampled on the fly.

  No image is written to disk.

  Args:
    path: path of the cascade's config.
    workdir: folder with the work directories of the stages.
    selection: the images to sample; its `num` is required.
    kept: see `resolve`.

  Raises:
    ValueError: `num` is None, or the cascade cannot be restored.
  """
  num, overrides = selection.num, selection.overrides
  if num is None:
    raise ValueError(
      f'The images of {path}@{workdir} are sampled now: give --num, the number '
      'of images (the papers: 50000).'
    )
  loaded = loader.load(path, overrides)
  seed = loaded.seed if selection.seed is None else selection.seed
  stages, notes = restore.restored_cascade(
    loaded,
    pathlib.Path(workdir),
    overrides,
    selection.at,
    None if kept is None else kept.parameters,
    selection.redraws,
  )
  size = drawing_batch.batch_size(
    stages, num=num, per_device=selection.batch_per_device
  )
  draw = cascade.sampler(stages)
  if kept is not None:
    draw = kept_images.sampler(stages, kept)
  batches = drawn_images.cascade_batches(
    draw,
    seed=seed,
    labels=drawn_images.label_cycle(stages, num),
    num=num,
    size=size,
  )
  recipe = drawn_images.cascade_recipe(
    loaded.name, stages, notes, seed=seed, num=num
  )
  paper = loader.plain(loaded.get('paper', {}))
  stamp = [
    *map(list, (*overrides, *selection.redraws)),
    *(
      stage_stamp.of_checkpoint(pathlib.Path(workdir) / note['folder'], note)
      for note in notes
    ),
  ]
  costs = functools.partial(drawing_cost.of_stages, stages)
  return Source(num, batches, recipe, paper, stamp, size, costs)


def open_stage(
  workdir: str | os.PathLike,
  section: str,
  selection: Selection,
  on_batch: Callable[..., object] | None = None,
  kept: kept_images.Kept | None = None,
) -> Source:
  """Returns the images of a super-resolution stage, sampled on the fly.

  The low-res inputs are the stage's own data, downsampled as in training. No
  image is written to disk.

  Args:
    workdir: work directory of the stage.
    section: 'train' or 'eval', the data to use.
    selection: the images to sample; `num` None samples an image for every image
      of the data, and `seed` None is 0.
    on_batch, kept: see `resolve`.
  """
  seed = 0 if selection.seed is None else selection.seed
  overrides = selection.overrides
  level = [float(text) for key, text in overrides if key == 'level']
  rest = [pair for pair in overrides if pair[0] != 'level']
  upscaler, saved = named_upscaler.opened(
    pathlib.Path(workdir),
    level=level[-1] if level else 0.0,
    overrides=rest,
    at=selection.at,
    kept=kept,
    limits=drawing_batch.OWN_ROWS._replace(
      per_device=selection.batch_per_device
    ),
    redraws=selection.redraws,
  )
  saved = class_agreement.of_stage(
    saved, workdir, upscaler.num_classes, f'{section}_data'
  )
  if section == 'train':
    saved.eval_data = saved.train_data
  available = len(datasets.open_source(saved.eval_data, f'{section}_data'))
  count = check_available(f'{workdir}@{section}', available, selection.num)
  read, stamp = evaluated_images.open_evaluated(saved, count)
  upscaler = dataclasses.replace(
    upscaler,
    batch_size=drawing_batch.evened(upscaler.batch_size, count, upscaler.mesh),
  )
  lowres = {
    'lowres_size': upscaler.lowres_size,
    'downsample': upscaler.lowres.downsample,
  }
  note = upscaler.record.manifest('name', after_level=lowres)
  recipe: ImageManifest = {
    'drawn': saved.name,
    'low_res': 'true',
    'data': loader.plain(saved.eval_data),
    'seed': seed,
    'count': count,
    'image_size': [upscaler.image_size] * 2,
    'stages': [cast(StageEntry, note)],
    'weights': upscaler.record.weights,
  }

  batches = drawn_images.stage_batches(
    upscaler, read, seed=seed, count=count, on_batch=on_batch
  )
  paper = loader.plain(saved.get('paper', {}))
  changes = map(list, (*overrides, *selection.redraws))
  stamp = [stamp, *changes, stage_stamp.of_stage(workdir, note)]
  size, costs = upscaler.batch_size, upscaler.costs
  return Source(count, batches, recipe, paper, stamp, size, costs)


def check_available(
  what: str | os.PathLike, available: int, num: int | None
) -> int:
  """Returns how many images of a set are used: `num`, or all of them.

  Args:
    what: name of the set, for the error message.
    available: number of images in the set.
    num: value of --num, or None.

  Raises:
    ValueError: `num` is below 1 or above `available`.
  """
  if num is not None and not 1 <= num <= available:
    raise ValueError(f'--num={num}: {what} holds {available:,} images.')
  return available if num is None else num


def read_in_parallel(
  read: Callable[[int], np.ndarray | None], count: int
) -> Batches:
  """Returns `Source.batches` for images that can be read one by one.

  Every process reads its own part of a batch, in several threads.

  Args:
    read: index -> image uint8 [H, W, 3], or None if the image is skipped.
    count: number of images; indices run from 0 to count - 1.
  """

  def batches(first, size):
    import jax

    parts, index = collectives.process_count(), jax.process_index()
    plan = [
      range(start + index, min(start + size * parts, count), parts)
      for start in range(0, count, size * parts)
    ][first:]
    with futures.ThreadPoolExecutor(READERS) as pool:
      # Images are decoded one batch ahead of the network.
      ahead = [[pool.submit(read, n) for n in part] for part in plan[:1]]
      for i, indices in enumerate(plan):
        if i + 1 < len(plan):
          ahead.append([pool.submit(read, n) for n in plan[i + 1]])
        results = (task.result() for task in ahead.pop(0))
        indices, images = select_present(np.asarray(indices), results)
        yield indices, np.stack(images) if images else None

  return batches
