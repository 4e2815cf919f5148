"""Judges a set of images by features: from what is named to a row of numbers.

WHAT names a set:

  FOLDER, FILE.npz     pictures; or statistics, as a reference
  CONFIG.py:train      the data of a config, through its own preprocessing
  CONFIG.py:eval
  CONFIG.py@WORKDIR    a trained cascade (or base), sampled as it is judged
  WORKDIR@eval         a trained super-resolution stage on true low-res images,
  WORKDIR@train        its own data's, made small as in training
"""

import hashlib
import itertools
import json
import pathlib
import re
import time
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np

from cdm import (
  build,
  cascade,
  config,
  downloads,
  processes,
  progress,
  restore,
  sampling,
  sharding,
  upscaling,
)
from cdm.evaluate import distribution, partial, sets, statistics
from cdm.evaluate import gathered as gather
from cdm.evaluate.features import BATCH_SIZE, Extractor
from cdm.models import inception_weights

SAVE_SECONDS = 60.0
READERS = 8  # threads that decode
NETWORK = 'inception-2015-12-05'
RESIZE = 'tf1 bilinear to 299'


class Source(NamedTuple):
  """A set of images that can be gone through in batches, again and again.

  Attributes:
    count: images.
    batches: (first batch, size) -> iterable of (numbers, uint8 [n, H, W, 3]),
      this process's part of each batch from the first on.
    recipe: JSON-able dict of all that the images depend on.
    paper: {name: number} that the config states for it.
  """

  count: int
  batches: Callable
  recipe: dict
  paper: dict


def judge(
  samples,
  reference,
  *,
  metrics,
  weights=None,
  num=None,
  seed=None,
  overrides=(),
  few=False,
  kid_size=1000,
  batch_size=BATCH_SIZE,
  keep=None,
):
  """Compares two sets by the features of FID's network.

  Args:
    samples, reference: WHAT; reference may be None for 'is' alone.
    metrics: names, of `distribution.METRICS`.
    weights: path of the network's; fetched by default.
    num: images to draw of a cascade, or to take of a set (its first).
    seed: of a cascade's samples; the config's by default.
    overrides: ((dotted key, text), ...) of what is drawn: of a cascade's
      config, of a stage's saved one; `level` is a stage's augmentation level.
    few: see `distribution.check`.
    kid_size: images of a subset of KID.
    batch_size: images at once.
    keep: folder of what was gathered so far; the user's cache by default.

  Returns:
    JSON-able dict.

  Raises:
    ValueError: what was given cannot be compared.
    OSError: the weights are not there and cannot be fetched.
  """
  mine = find(samples, num=num, seed=seed, overrides=overrides)
  known = reference is not None and is_statistics(reference)
  theirs = None
  if reference is not None and not known:
    theirs = find(reference, num=None, seed=seed, overrides=())
  if reference is None and set(metrics) != {'is'}:
    raise ValueError('--reference is missing: only `is` is taken without one.')
  distribution.check(
    metrics,
    samples=mine.count,
    reference=theirs.count if theirs else None,
    few=few,
    kid_size=kid_size,
  )
  stored = statistics.read(reference) if known else None
  extract = Judge(weights, batch_size=batch_size, keep=keep)
  found = extract(mine, metrics, 'samples')
  wanted = [m for m in metrics if m != 'is']
  against = stored
  if theirs is not None and wanted:
    against = extract(theirs, wanted, 'reference')
  recipe = mine.recipe | extract.recipe
  if known:
    other = stored.recipe
  else:
    other = theirs.recipe | extract.recipe if theirs else recipe
  return {
    'samples': str(samples),
    'reference': None if reference is None else str(reference),
    'n': found.count,
    'n_reference': stored.count if known else theirs and theirs.count,
    **distribution.compare(found, against, metrics=metrics, kid_size=kid_size),
    'warnings': statistics.differences(recipe, other),
    'samples_recipe': recipe,
    'reference_recipe': other if reference is not None else None,
    'paper': mine.paper,
    'versions': versions(),
  }


def make_reference(what, out, *, weights=None, num=None, batch_size=BATCH_SIZE,
                   keep=None):  # fmt: skip
  """Writes statistics of a set, with the recipe they were made by.

  Args:
    what: WHAT.
    out: path of the .npz.
    weights, num, batch_size, keep: see `judge`.

  Returns:
    statistics.Statistics.

  Raises:
    ValueError, OSError: see `judge`.
  """
  source = find(what, num=num, seed=None, overrides=())
  if source.count < 2:
    raise ValueError(f'{what} holds {source.count} image; two are needed.')
  extract = Judge(weights, batch_size=batch_size, keep=keep)
  found = extract(source, ('fid', 'sfid'), 'reference')
  recipe = source.recipe | extract.recipe
  made = statistics.of(found, recipe)
  if processes.is_first():
    statistics.write(out, made)
  processes.wait_for_all('the statistics')
  return made


class Judge:
  """The network, read once; called with a `Source` it gathers it."""

  def __init__(self, weights=None, *, batch_size=BATCH_SIZE, keep=None):
    path = weights
    if path is None:
      path = downloads.fetch(inception_weights.URL, inception_weights.SHA256)
    elif not pathlib.Path(path).is_file():
      raise ValueError(
        f'--weights={path} is not there. Give the PyTorch port '
        f'{inception_weights.URL.rpartition("/")[2]} (SHA-256 '
        f'{inception_weights.SHA256[:8]}...), or the frozen graph '
        f'{inception_weights.GRAPH}.'
      )
    self.recipe = {
      'network': NETWORK,
      'resize_to_network': RESIZE,
      'weights_sha256': downloads.digest(path),
    }
    params = inception_weights.read(path)
    self._extractor = Extractor(params, batch_size=batch_size)
    home = downloads.folder().parent / 'evaluate'
    self._keep = home if keep is None else pathlib.Path(keep)

  def __call__(self, source, metrics, label):
    """Gathers a set, continuing what a killed run left."""
    what = [source.recipe, self.recipe, sorted(metrics), source.count]
    what += [self._extractor.batch_size, processes.count()]
    text = json.dumps(what, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    parts = partial.Partial(self._keep / name)
    done, found = parts.newest()
    size, saved = self._extractor.batch_size, time.monotonic()
    per_batch = size * (1 if source.recipe.get('drawn') else processes.count())
    with progress.Progress(
      label, total=source.count, initial=min(done * per_batch, source.count)
    ) as bar:
      for numbers, images in source.batches(done, size):
        if len(numbers):
          features = self._extractor(images)
          batch = gather.of(
            features, numbers, metrics=metrics, count=source.count
          )
          found = gather.merge(found, batch)
        done += 1
        bar.move_to(min(done * per_batch, source.count))
        if time.monotonic() - saved > SAVE_SECONDS:
          parts.write(done, found)
          saved = time.monotonic()
    gathered = processes.gather_arrays(gather.to_arrays(found))
    whole = gather.EMPTY
    for part in map(gather.from_arrays, gathered):
      whole = gather.merge(whole, part)
    parts.remove()
    return whole


def is_statistics(what):
  """Whether WHAT is an .npz that holds statistics and no pictures."""
  path = pathlib.Path(what)
  return path.suffix == '.npz' and path.is_file() and statistics.holds(path)


def find(what, *, num, seed, overrides):
  """WHAT -> Source.

  Raises:
    ValueError: there is no such set.
  """
  data = re.fullmatch(r'(.+\.py):(train|eval)', str(what))
  if data:
    return of_data(*data.groups(), num)
  upscaled = re.fullmatch(r'(.+)@(train|eval)', str(what))
  if upscaled and not upscaled[1].endswith('.py'):
    return of_stage(*upscaled.groups(), num, seed, overrides)
  drawn = re.fullmatch(r'(.+\.py)@(.+)', str(what))
  if drawn:
    return of_cascade(*drawn.groups(), num, seed, overrides)
  return of_pictures(what, num)


def of_pictures(what, num):
  """A folder or an .npz of pictures."""
  pictures = sets.load_images(what)
  count = taken(what, pictures.count, num)
  first = pictures.read(0)
  recipe = {'data': str(pathlib.Path(what).resolve()), 'count': count}
  recipe |= {'image_size': list(first.shape[:2])} | described(what)

  def read(number):
    image = pictures.read(number)
    if image.shape != first.shape:
      raise ValueError(
        f'{sets.called(pictures, number)} has {sets.size_of(image)} pixels but '
        f'{sets.called(pictures, 0)} has {sets.size_of(first)}; evaluate '
        'pictures of one size.'
      )
    return image

  return Source(count, shared_out(read, count), recipe, {})


def described(what):
  """-> {'sampling': recipe} that `cdm sample` left beside its pictures."""
  path = pathlib.Path(what)
  for folder in (path, path.parent):
    file = folder / 'sampling.json'
    if file.is_file():
      return {'sampling': json.loads(file.read_text())}
  return {}


def of_data(path, section, num):
  """The data of a config, through its own preprocessing."""
  loaded = config.load(path, ())
  build.require(loaded, 'pipeline', f'{section}_data')
  if section == 'train':
    loaded.eval_data = loaded.train_data
  available = len(build.source(loaded.eval_data, f'{section}_data'))
  count = taken(f'{path}:{section}', available, num)
  read_all = build.held_out(loaded, count)
  chosen = loaded.pipeline
  recipe = {
    'data': config.plain(loaded.eval_data),
    'count': count,
    'image_size': [chosen.image_size] * 2,
    'crop': chosen.crop,
    'filter': chosen.filter,
    'min_side': chosen.min_side,
  }
  return Source(
    count, shared_out(lambda n: read_all([n])[0][0], count), recipe, {}
  )


def of_cascade(path, workdir, num, seed, overrides):
  """A trained cascade, sampled as it is judged; nothing is written."""
  if num is None:
    raise ValueError(
      f'{path}@{workdir} is sampled as it is judged: give --num, the number of '
      'images (the papers: 50000).'
    )
  loaded = config.load(path, overrides)
  seed = loaded.seed if seed is None else seed
  stages, notes = restore.restored_cascade(
    loaded, pathlib.Path(workdir), overrides
  )
  classes = [s.num_classes for s in stages if s.num_classes is not None]
  cycle = list(range(classes[0])) if classes else None
  labels = sampling.label_cycle(cycle, num)
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
    size = sharding.padded(min(size, num), stages[0].mesh)
    for start in range(first * size, num, size):
      numbers = np.arange(start, min(start + size, num))
      filled = np.resize(numbers, size)
      given = None if labels is None else labels[filled]
      drawn = draw(seed, filled, given)[-1]
      rows = [
        (row, image)
        for row, image in sharding.local_images(drawn)
        if row < len(numbers)
      ]
      mine = numbers[[row for row, _ in rows]] if rows else numbers[:0]
      yield mine, np.stack([image for _, image in rows]) if rows else None

  paper = config.plain(loaded.get('paper', {}))
  return Source(num, batches, recipe, paper)


def of_stage(workdir, section, num, seed, overrides):
  """A super-resolution stage on true low-res images; nothing is written."""
  seed = 0 if seed is None else seed
  level = [float(text) for key, text in overrides if key == 'level']
  rest = [pair for pair in overrides if pair[0] != 'level']
  stage, saved, step = restore.restored_upscaler(
    pathlib.Path(workdir), level=level[-1] if level else 0.0, overrides=rest
  )
  if section == 'train':
    saved.eval_data = saved.train_data
  available = len(build.source(saved.eval_data, f'{section}_data'))
  count = taken(f'{workdir}@{section}', available, num)
  read = build.held_out(saved, count)
  note = {
    'name': saved.name,
    'checkpoint': step,
    'level': stage.level,
    'sampler': config.plain(saved.sampler),
  }
  recipe = {
    'drawn': saved.name,
    'low_res': 'true',
    'data': config.plain(saved.eval_data),
    'seed': seed,
    'count': count,
    'image_size': [stage.image_size] * 2,
    'stages': [note],
    'weights': 'EMA',
  }

  def batches(first, size):
    size = min(size, count)
    run = upscaling.Upscaler(stage, seed=seed, batch_size=size)
    for start in range(first * size, count, size):
      numbers = np.arange(start, min(start + size, count))
      originals, labels = read(numbers)
      given = labels if stage.num_classes is not None else None
      made = run(run.shrink(originals), numbers, given)
      mine = list(processes.share(len(numbers)))
      yield numbers[mine], made[mine] if mine else None

  return Source(count, batches, recipe, config.plain(saved.get('paper', {})))


def taken(what, available, num):
  """-> how many images of a set are looked at."""
  if num is not None and not 1 <= num <= available:
    raise ValueError(f'--num={num}: {what} holds {available:,} images.')
  return available if num is None else num


def shared_out(read, count):
  """-> `Source.batches` of images that can be read one by one."""

  def batches(first, size):
    parts, index = processes.count(), None
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
        images = [task.result() for task in ahead.pop(0)]
        yield np.asarray(numbers), np.stack(images) if images else None

  return batches


def versions():
  """-> {package: version} of what the numbers depend on."""
  from importlib import metadata

  names = ('jax', 'jaxlib', 'flax', 'numpy', 'scipy', 'scikit-image', 'pillow')
  return {name: metadata.version(name) for name in names}
