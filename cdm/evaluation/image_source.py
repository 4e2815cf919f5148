"""Finds the images that a set is named by, see `set_name`."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np

from cdm.checkpointing import checksums, reader
from cdm.config import datasets, instantiate, loader
from cdm.data import image_set, subset
from cdm.distributed import collectives, device_mesh
from cdm.evaluation import set_name
from cdm.models.pretrained import download
from cdm.ops.keys import image_pairs
from cdm.sampling import cascade, generate, restore

READERS = 8  # threads that decode


class Source(NamedTuple):
  """A set of images that can be gone through in batches, again and again.

  Attributes:
    count: images, those that are left out included.
    batches: (first batch, size) -> iterable of (numbers, uint8 [n, H, W, 3]),
      this process's part of each batch from the first on.
    recipe: JSON-able dict of all that the images depend on.
    paper: {name: number} that the config states for it.
    stamp: JSON-able; another one, and what was gathered before is not gone on
      with.
  """

  count: int
  batches: Callable
  recipe: dict
  paper: dict
  stamp: object = None


def resolve(what, *, num, seed, overrides, on_batch=None):
  """WHAT -> Source.

  Args:
    what: see `set_name`.
    num, seed, overrides: see `compare_sets.compare`.
    on_batch: callback for every batch that a stage draws, `on_batch(skipped,
      indices, super_resolved, originals, lowres)`: the indices that have no
      image, and this process's part of the others with its images.

  Raises:
    ValueError: there is no such set, or none that can be tapped.
  """
  name = set_name.parse(what)
  if name.kind == 'data':
    return open_config_data(name.path, name.split, num)
  if name.kind == 'stage':
    return open_stage(name.workdir, name.split, num, seed, overrides, on_batch)
  if on_batch is not None:
    raise ValueError(
      f'{what} is not drawn from originals that it could be paired with; give '
      'WORKDIR@eval.'
    )
  if name.kind == 'cascade':
    return open_cascade(name.path, name.workdir, num, seed, overrides)
  return open_files(what, num)


def open_files(what, num):
  """A folder or an .npz of pictures."""
  pictures = image_set.load_images(what)
  count = check_available(what, pictures.count, num)
  chosen = subset.spread(range(pictures.count), count)
  first = pictures.read(0)
  recipe = {'data': str(pathlib.Path(what).resolve()), 'count': count}
  recipe |= {'image_size': list(first.shape[:2])} | describe_samples(what)

  def read(number):
    image = pictures.read(chosen[number])
    if image.shape != first.shape:
      raise ValueError(
        f'{image_set.name_of(pictures, chosen[number])} has '
        f'{image_set.size_of(image)} '
        f'pixels but {image_set.name_of(pictures, 0)} has '
        f'{image_set.size_of(first)}; '
        'evaluate pictures of one size.'
      )
    return image

  return Source(
    count,
    read_in_parallel(read, count),
    recipe,
    {},
    image_set.fingerprint_of(what),
  )


def describe_samples(what):
  """-> {'sampling': recipe} that `cdm sample` left beside its pictures."""
  path = pathlib.Path(what)
  for folder in (path, path.parent):
    file = folder / 'sampling.json'
    if file.is_file():
      return {'sampling': json.loads(file.read_text())}
  return {}


def open_config_data(path, section, num):
  """The data of a config, through its own preprocessing."""
  loaded = loader.load(path, ())
  instantiate.require(loaded, 'pipeline', f'{section}_data')
  if section == 'train':
    loaded.eval_data = loaded.train_data
  available = len(datasets.open_source(loaded.eval_data, f'{section}_data'))
  count = check_available(f'{path}:{section}', available, num)
  read, stamp = datasets.open_evaluated(loaded, count)
  chosen = loaded.pipeline
  recipe = {
    'data': loader.plain(loaded.eval_data),
    'count': count,
    'image_size': [chosen.image_size] * 2,
    'crop': chosen.crop,
    'filter': chosen.filter,
    'min_side': chosen.min_side,
  }

  def image(number):
    found = read(number)
    return None if found is None else found[0]

  return Source(count, read_in_parallel(image, count), recipe, {}, stamp)


def open_cascade(path, workdir, num, seed, overrides):
  """A trained cascade, sampled as it is judged; nothing is written."""
  if num is None:
    raise ValueError(
      f'{path}@{workdir} is sampled as it is judged: give --num, the number of '
      'images (the papers: 50000).'
    )
  loaded = loader.load(path, overrides)
  seed = loaded.seed if seed is None else seed
  stages, notes = restore.restored_cascade(
    loaded, pathlib.Path(workdir), overrides
  )
  classes = [s.num_classes for s in stages if s.num_classes is not None]
  cycle = list(range(classes[0])) if classes else None
  labels = generate.label_cycle(cycle, num)
  recipe = {
    'drawn': loaded.name,
    'seed': seed,
    'labels': 'all in turn' if classes else None,
    'count': num,
    'image_size': [stages[-1].image_size] * 2,
    'stages': notes,
    'weights': 'EMA',
    'rounding': 'round(127.5 x + 127.5), clipped, between stages too',
  }

  def batches(first, size):
    draw = cascade.sampler(stages)
    size = device_mesh.padded(min(size, num), stages[0].mesh)
    for start in range(first * size, num, size):
      numbers = np.arange(start, min(start + size, num))
      filled = np.resize(numbers, size)
      given = None if labels is None else labels[filled]
      drawn = draw(seed, filled, given)[-1]
      rows = [
        (row, image)
        for row, image in device_mesh.local_images(drawn)
        if row < len(numbers)
      ]
      mine = numbers[[row for row, _ in rows]] if rows else numbers[:0]
      yield mine, np.stack([image for _, image in rows]) if rows else None

  paper = loader.plain(loaded.get('paper', {}))
  stamp = [
    *map(list, overrides),
    *(
      checkpoint_stamp(pathlib.Path(workdir) / note['folder'], note)
      for note in notes
    ),
  ]
  return Source(num, batches, recipe, paper, stamp)


def open_stage(workdir, section, num, seed, overrides, on_batch=None):
  """A super-resolution stage on true low-res images; nothing is written."""
  seed = 0 if seed is None else seed
  level = [float(text) for key, text in overrides if key == 'level']
  rest = [pair for pair in overrides if pair[0] != 'level']
  upscaler, saved = restore.restored_upscaler(
    pathlib.Path(workdir), level=level[-1] if level else 0.0, overrides=rest
  )
  if section == 'train':
    saved.eval_data = saved.train_data
  available = len(datasets.open_source(saved.eval_data, f'{section}_data'))
  count = check_available(f'{workdir}@{section}', available, num)
  read, stamp = datasets.open_evaluated(saved, count)
  lowres = {
    'lowres_size': upscaler.lowres_size,
    'downsample': upscaler.lowres.downsample,
  }
  note = upscaler.record.manifest('name', after_level=lowres)
  recipe = {
    'drawn': saved.name,
    'low_res': 'true',
    'data': loader.plain(saved.eval_data),
    'seed': seed,
    'count': count,
    'image_size': [upscaler.image_size] * 2,
    'stages': [note],
    'weights': 'EMA',
  }

  def batches(first, size):
    size = min(size, count)
    upscale = dataclasses.replace(upscaler, batch_size=size)
    with futures.ThreadPoolExecutor(READERS) as pool:
      for start in range(first * size, count, size):
        batch = np.arange(start, min(start + size, count))
        numbers, found = select_present(batch, pool.map(read, batch))
        left_out = np.setdiff1d(batch, numbers)
        if not found:
          if on_batch is not None:
            on_batch(left_out, numbers, (), (), ())
          yield numbers, None
          continue
        originals, labels = map(np.stack, zip(*found, strict=True))
        low = upscale.shrink(originals)
        made = upscale(low, keys=image_pairs(seed, numbers), label=labels)
        mine = list(collectives.local_indices(len(numbers)))
        if on_batch is not None:
          on_batch(
            left_out, numbers[mine], made[mine], originals[mine], low[mine]
          )
        yield numbers[mine], made[mine] if mine else None

  paper = loader.plain(saved.get('paper', {}))
  stamp = [stamp, *map(list, overrides), checkpoint_stamp(workdir, note)]
  return Source(count, batches, recipe, paper, stamp)


def checkpoint_stamp(workdir, note):
  """-> JSON-able; another one of another checkpoint, be it of the same step.

  Args:
    workdir: of the stage.
    note: dict with its step as `checkpoint`.
  """
  step = str(note['checkpoint'])
  folder = pathlib.Path(workdir).resolve() / reader.CHECKPOINTS / step
  sums = folder / checksums.FILE
  if sums.is_file():
    return [str(folder), download.digest(sums)]
  return [str(folder), folder.stat().st_mtime_ns]


def check_available(what, available, num):
  """-> how many images of a set are looked at."""
  if num is not None and not 1 <= num <= available:
    raise ValueError(f'--num={num}: {what} holds {available:,} images.')
  return available if num is None else num


def read_in_parallel(read, count):
  """-> `Source.batches` of images that can be read one by one.

  Args:
    read: number -> uint8 [H, W, 3], or None of what is left out.
    count: how many.
  """

  def batches(first, size):
    parts, index = collectives.process_count(), None
    import jax

    index = jax.process_index()
    plan = [
      range(start + index, min(start + size * parts, count), parts)
      for start in range(0, count, size * parts)
    ][first:]
    with futures.ThreadPoolExecutor(READERS) as pool:
      # One batch ahead of the network.
      ahead = [
        list(map(pool.submit, itertools.repeat(read), n)) for n in plan[:1]
      ]
      for i, numbers in enumerate(plan):
        if i + 1 < len(plan):
          ahead.append(
            list(map(pool.submit, itertools.repeat(read), plan[i + 1]))
          )
        found = (task.result() for task in ahead.pop(0))
        numbers, images = select_present(np.asarray(numbers), found)
        yield numbers, np.stack(images) if images else None

  return batches


def select_present(numbers, found):
  """-> (int [n], [...]): the numbers and what was found, but for None."""
  both = [
    pair for pair in zip(numbers, found, strict=True) if pair[1] is not None
  ]
  return np.array([n for n, _ in both], int), [value for _, value in both]
