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
    stamp: JSON-able; another one, and what was gathered before is not gone on
      with.
  """

  count: int
  batches: Callable
  recipe: dict
  paper: dict
  stamp: object = None


def judge(
  samples,
  reference,
  *,
  metrics,
  weights=None,
  batch_size=BATCH_SIZE,
  keep=None,
  seed=None,
  **given,
):
  """Compares two sets by the features of FID's network.

  Args:
    samples, reference: WHAT; reference may be None for 'is' alone.
    metrics: names, of `distribution.METRICS`.
    weights, batch_size, keep: see `Gatherer`.
    seed: of a cascade's samples; the config's by default.
    **given: see `compare`.

  Returns:
    JSON-able dict.

  Raises:
    ValueError: what was given cannot be compared.
    OSError: the weights are not there and cannot be fetched.
  """
  against = Reference(reference, metrics, seed=seed)
  gatherer = Gatherer(weights, batch_size=batch_size, keep=keep)
  return compare(
    samples, against, gatherer, metrics=metrics, seed=seed, **given
  )


def compare(
  samples,
  reference,
  gatherer,
  *,
  metrics,
  num=None,
  seed=None,
  overrides=(),
  few=False,
  kid_size=1000,
):
  """Judges one set by a reference, which may serve for several.

  Args:
    samples: WHAT.
    reference: Reference.
    gatherer: Gatherer.
    metrics: names, of `distribution.METRICS`.
    num: images to draw of a cascade, or to take of a set, spread over it.
    seed: of a cascade's samples; the config's by default.
    overrides: ((dotted key, text), ...) of what is drawn: of a cascade's
      config, of a stage's saved one; `level` is a stage's augmentation level.
    few: see `distribution.check`.
    kid_size: images of a subset of KID.

  Returns:
    JSON-able dict.

  Raises:
    ValueError: what was given cannot be compared.
  """
  mine = find(samples, num=num, seed=seed, overrides=overrides)
  distribution.check(
    metrics,
    samples=mine.count,
    reference=reference.source.count if reference.source else None,
    few=few,
    kid_size=kid_size,
  )
  found = gatherer(mine, metrics, 'samples')
  row = {'conventions': {}}
  for part, other in reference.parts(gatherer):
    given = distribution.compare(found, other, metrics=part, kid_size=kid_size)
    conventions = row['conventions'] | given['conventions']
    row |= given | {'conventions': conventions}
  recipe = mine.recipe | gatherer.recipe
  theirs = reference.recipe(gatherer)
  gatherer.forget()  # the numbers are there
  return {
    'samples': str(samples),
    'reference': reference.name,
    'n': found.count,
    'n_reference': reference.count,
    **row,
    'warnings': []
    if theirs is None
    else statistics.differences(recipe, theirs),
    'samples_recipe': recipe,
    'reference_recipe': theirs,
    'paper': mine.paper,
    'versions': versions(),
  }


class Reference:
  """What sets are compared with; gathered once, however many they are.

  Of an .npz that holds both, as [ADM]'s, statistics serve FID and sFID, and
  images the rest.

  Attributes:
    name: WHAT, or None.
    stored: statistics.Statistics, or None.
    source: Source of the images, or None where none are needed.
    count: images it was made of; None where that is not known.
  """

  def __init__(self, what, metrics, *, seed=None):
    """Opens it.

    Args:
      what: WHAT; None for the metrics that need no reference.
      metrics: names, of `distribution.METRICS`.
      seed: of a cascade's samples.

    Raises:
      ValueError: there is no such set, or none where one is needed.
    """
    self.name = None if what is None else str(what)
    self._alone = [m for m in metrics if m == 'is']
    wanted = [m for m in metrics if m != 'is']
    if what is None and wanted:
      raise ValueError(
        '--reference is missing: only `is` is taken without one.'
      )
    self.stored = self.source = self._gathered = None
    self._of_stored = []
    if wanted and is_statistics(what):
      self.stored = statistics.read(what)
      self._of_stored = [m for m in wanted if m in ('fid', 'sfid')]
    self._of_images = [m for m in wanted if m not in self._of_stored]
    if self._of_images and self.stored and not sets.holds_images(what):
      raise ValueError(
        f'{self._of_images[0]} compares images one by one, and {what} holds '
        'statistics only; give its images.'
      )
    if self._of_images:
      self.source = find(what, num=None, seed=seed, overrides=())
    self.count = self.source.count if self.source else None
    if self.stored and self.stored.count is not None:
      self.count = self.stored.count

  def parts(self, gatherer):
    """-> [(metrics, what they are compared with), ...]."""
    if self.source and self._gathered is None:
      self._gathered = gatherer(self.source, self._of_images, 'reference')
    every = (
      (self._alone, None),
      (self._of_stored, self.stored),
      (self._of_images, self._gathered),
    )
    return [(metrics, other) for metrics, other in every if metrics]

  def recipe(self, gatherer):
    """-> dict of all that it depends on, {} if unknown, None without one."""
    if self.stored:
      return self.stored.recipe
    return self.source.recipe | gatherer.recipe if self.source else None


def make_reference(
  what,
  out,
  *,
  num=None,
  seed=None,
  weights=None,
  batch_size=BATCH_SIZE,
  keep=None,
):
  """Writes statistics of a set, with the recipe they were made by.

  Args:
    what: WHAT.
    out: path of the .npz.
    weights, batch_size, keep: see `Gatherer`.
    num: images to draw, or to take, spread over the set.
    seed: of drawn ones.

  Returns:
    statistics.Statistics.

  Raises:
    ValueError, OSError: see `judge`.
  """
  source = find(what, num=num, seed=seed, overrides=())
  if source.count < 2:
    raise ValueError(f'{what} holds {source.count} image; two are needed.')
  gatherer = Gatherer(weights, batch_size=batch_size, keep=keep)
  found = gatherer(source, ('fid', 'sfid'), 'reference')
  made = statistics.of(found, source.recipe | gatherer.recipe)
  if processes.is_first():
    statistics.write(out, made)
  processes.wait_for_all('the statistics')
  gatherer.forget()
  return made


class Gatherer:
  """FID's network, read once; called with a `Source` it gathers it.

  Attributes:
    recipe: dict of all that features depend on but for the images.
  """

  def __init__(self, weights=None, *, batch_size=BATCH_SIZE, keep=None):
    """Reads the network.

    Args:
      weights: path; fetched by default.
      batch_size: images at once.
      keep: folder of what was gathered so far; the user's cache by default.

    Raises:
      ValueError: the file is not there, or of another network.
      OSError: it cannot be fetched.
    """
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
    self._parts = []

  def __call__(self, source, metrics, label):
    """Gathers a set, continuing what a killed run left.

    Args:
      source: Source.
      metrics: names, of `distribution.METRICS`.
      label: of the progress.

    Returns:
      gathered.Gathered of the whole set, the same in every process.
    """
    what = [source.recipe, source.stamp, self.recipe, sorted(metrics)]
    what += [self._extractor.batch_size, processes.count()]
    text = json.dumps(what, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    parts = partial.Partial(self._keep / name)
    self._parts.append(parts)
    done, found = parts.newest()
    size, saved = self._extractor.batch_size, time.monotonic()
    begun, kept = saved, done
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
          saved, kept = time.monotonic(), done
    if kept < done and time.monotonic() - begun > SAVE_SECONDS:
      parts.write(done, found)
    gathered = processes.gather_arrays(gather.to_arrays(found))
    whole = gather.EMPTY
    for part in map(gather.from_arrays, gathered):
      whole = gather.merge(whole, part)
    return whole

  def forget(self):
    """Removes what was kept for a killed run: its result is there."""
    while self._parts:
      self._parts.pop().remove()


def is_statistics(what):
  """Whether WHAT is an .npz that holds statistics."""
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

  # Pictures that were drawn anew change their folder.
  stamp = pathlib.Path(what).stat().st_mtime_ns
  return Source(count, shared_out(read, count), recipe, {}, stamp)


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
