"""Judges sets of images by features: from what is named to a row of numbers.

What may be named: see `image_source`. What is gathered of it: see
`extract_features`.
"""

import pathlib
import sys

from cdm.data import image_set
from cdm.distributed import collectives
from cdm.evaluation import reference_statistics, set_metrics
from cdm.evaluation.extract_features import Gatherer
from cdm.evaluation.image_source import Source, resolve
from cdm.reporting import output_files

# Callers find the parts of judging here.
__all__ = [
  'Gatherer',
  'Reference',
  'Source',
  'compare',
  'is_statistics',
  'judge',
  'make_reference',
  'resolve',
  'versions',
]

SAMPLES, REFERENCE = 'samples', 'reference'


def judge(
  samples,
  reference,
  *,
  metrics,
  weights=None,
  batch_size=None,
  keep=None,
  seed=None,
  **given,
):
  """Compares two sets by the features of FID's network.

  Args:
    samples, reference: WHAT; reference may be None for 'is' alone.
    metrics: names, of `set_metrics.METRICS`.
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
  source=None,
  agree=None,
  again=False,
):
  """Judges one set by a reference, which may serve for several.

  Args:
    samples: WHAT.
    reference: Reference.
    gatherer: Gatherer.
    metrics: names, of `set_metrics.METRICS`.
    num: images to draw of a cascade, or to take of a set, spread over it.
    seed: of a cascade's samples; the config's by default.
    overrides: ((dotted key, text), ...) of what is drawn: of a cascade's
      config, of a stage's saved one; `level` is a stage's augmentation level.
    few: see `set_metrics.check`.
    kid_size: images of a subset of KID.
    source: the samples, where they are found already.
    agree: called with the recipe of the samples and that of the reference,
      before any work; may raise.
    again: the reference serves once more, so what was gathered of it for a
      killed run is kept; `gatherer.forget` removes it.

  Returns:
    JSON-able dict.

  Raises:
    ValueError: what was given cannot be compared.
  """
  mine = source
  if mine is None:
    mine = resolve(samples, num=num, seed=seed, overrides=overrides)
  for part, count in reference.counts(metrics):
    set_metrics.check(
      part, samples=mine.count, reference=count, few=few, kid_size=kid_size
    )
  reference.check(gatherer.sizes)
  recipe = mine.recipe | gatherer.recipe
  theirs = reference.recipe(gatherer)
  warnings = (
    [] if theirs is None else reference_statistics.differences(recipe, theirs)
  )
  if collectives.is_first():
    for warning in warnings:  # before the hours, and with the number again
      print(f'cdm: NOT COMPARABLE: {warning}.', file=sys.stderr, flush=True)
  if agree is not None:
    agree(recipe, theirs)
  found = gatherer(mine, metrics, SAMPLES)
  row = {'conventions': {}}
  for part, other in reference.parts(gatherer):
    given = set_metrics.compare(found, other, metrics=part, kid_size=kid_size)
    conventions = row['conventions'] | given['conventions']
    row |= given | {'conventions': conventions}
  gatherer.forget(SAMPLES if again else None)  # the numbers are there
  return {
    'samples': str(samples),
    'reference': reference.name,
    'n': found.count,
    'n_reference': reference.count,
    **row,
    'warnings': warnings,
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
    count: images it was made of; None where that is not known. Of both, of
      the statistics.
  """

  def __init__(self, what, metrics, *, seed=None):
    """Opens it.

    Args:
      what: WHAT; None for the metrics that need no reference.
      metrics: names, of `set_metrics.METRICS`.
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
      self.stored = reference_statistics.read(what)
      self._of_stored = [m for m in wanted if m in ('fid', 'sfid')]
    self._of_images = [m for m in wanted if m not in self._of_stored]
    if self._of_images and self.stored and not image_set.holds_images(what):
      raise ValueError(
        f'{self._of_images[0]} compares images one by one, and {what} holds '
        'statistics only; give its images.'
      )
    if self._of_images:
      self.source = resolve(what, num=None, seed=seed, overrides=())
    self.count = self.source.count if self.source else None
    if self._of_stored:
      self.count = self.stored.count

  def counts(self, metrics):
    """-> [(names of `metrics`, images they are taken of or None), ...]."""
    alone = [m for m in metrics if m == 'is']
    stored = self.stored.count if self.stored else None
    found = self.source.count if self.source else None
    every = (alone, None), (self._of_stored, stored), (self._of_images, found)
    return [(names, count) for names, count in every if names]

  def check(self, sizes):
    """Raises ValueError unless statistics are of features of these sizes."""
    if self._of_stored:
      reference_statistics.check_sizes(
        self.name, self.stored, self._of_stored, sizes
      )

  def parts(self, gatherer):
    """-> [(metrics, what they are compared with), ...]."""
    if self.source and self._gathered is None:
      self._gathered = gatherer(self.source, self._of_images, REFERENCE)
      if not self._of_stored:
        self.count = self._gathered.count  # without what was left out
    every = (
      (self._alone, None),
      (self._of_stored, self.stored),
      (self._of_images, self._gathered),
    )
    return [(metrics, other) for metrics, other in every if metrics]

  def recipe(self, gatherer):
    """-> dict of all that it depends on, {} if unknown, None without one."""
    if self._of_stored:
      return self.stored.recipe
    return self.source.recipe | gatherer.recipe if self.source else None


def make_reference(
  what,
  out,
  *,
  num=None,
  seed=None,
  weights=None,
  batch_size=None,
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
  if collectives.is_first():
    output_files.check(out)
  source = resolve(what, num=num, seed=seed, overrides=())
  if source.count < 2:
    raise ValueError(f'{what} holds {source.count} image; two are needed.')
  gatherer = Gatherer(weights, batch_size=batch_size, keep=keep)
  found = gatherer(source, ('fid', 'sfid'), REFERENCE)
  made = reference_statistics.from_gathered(
    found, source.recipe | gatherer.recipe
  )
  if collectives.is_first():
    reference_statistics.write(out, made)
  collectives.barrier('the statistics')
  gatherer.forget()
  return made


def is_statistics(what):
  """Whether WHAT is an .npz that holds statistics."""
  path = pathlib.Path(what)
  return (
    path.suffix == '.npz'
    and path.is_file()
    and reference_statistics.holds(path)
  )


def versions():
  """-> {package: version} of what the numbers depend on."""
  from importlib import metadata

  names = ('jax', 'jaxlib', 'flax', 'numpy', 'scipy', 'scikit-image', 'pillow')
  return {name: metadata.version(name) for name in names}
