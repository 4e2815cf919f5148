"""Compares two sets of images by the metrics of sets, such as FID and KID.

`judge` takes two names of sets and returns one row of numbers. `image_source`
resolves the names, and `extract_features` runs the network over the images.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from cdm.data import image_set
from cdm.data.files import damaged_file
from cdm.distributed import collectives
from cdm.evaluation import (
  feature_statistics,
  metrics_table,
  reference_statistics,
  set_metrics,
)
from cdm.evaluation.extract_features import Gatherer, GathererOptions
from cdm.evaluation.image_selection import ALL_IMAGES, Selection
from cdm.evaluation.image_source import Source, resolve
from cdm.evaluation.row_types import ImageManifest, NetworkManifest, SetRow
from cdm.reporting import output_files

# Callers import these names from here.
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

# Takes the manifests of the samples and of the reference, which is None where
# no metric needs one; raises to refuse the comparison.
ManifestCheck = Callable[[ImageManifest, ImageManifest | None], object]


def judge(
  samples: str | os.PathLike,
  reference: str | os.PathLike | None,
  choice: set_metrics.MetricChoice,
  *,
  selection: Selection = ALL_IMAGES,
  network: GathererOptions | None = None,
  source: Source | None = None,
  reference_overrides: Sequence[tuple[str, str]] = (),
) -> SetRow:
  """Compares two sets by the features of FID's network.

  Args:
    samples: name of the set to judge, see `set_name`.
    reference: name of the reference set; None is allowed for 'is' alone.
    choice: the metrics to compute.
    selection: which images of the samples are read or sampled. Its seed is also
      that of a reference that is sampled.
    network: keyword arguments of `Gatherer`.
    source: the images of `samples`, if the caller has resolved the name.
    reference_overrides: the `overrides` of the reference, see `Selection`.

  Raises:
    ValueError: the two sets cannot be compared.
    OSError: the weights are missing and cannot be downloaded.
  """
  opened = Reference(
    reference,
    choice.names,
    selection=Selection(
      seed=selection.seed,
      overrides=reference_overrides,
      max_value=selection.max_value,
      batch_per_device=selection.batch_per_device,
    ),
  )
  gatherer = Gatherer(**network or {})
  return compare(
    samples, opened, gatherer, choice, selection=selection, source=source
  )


def compare(
  samples: str | os.PathLike,
  reference: Reference,
  gatherer: Gatherer,
  choice: set_metrics.MetricChoice,
  *,
  selection: Selection = ALL_IMAGES,
  source: Source | None = None,
  check_manifests: ManifestCheck | None = None,
  keep_reference: bool = False,
) -> SetRow:
  """Compares one set with a reference that several comparisons may share.

  Args:
    samples: name of the set to judge, see `set_name`.
    reference: the opened reference.
    gatherer: extracts the features of both sets.
    choice: the metrics to compute.
    selection: which images of the samples are read or sampled.
    source: the images of `samples`, if the caller has resolved the name.
    check_manifests: callback that is called before any work, with the
      manifests of the samples and of the reference; it may raise.
    keep_reference: keep the partial results of the reference on disk, because
      another comparison will use the reference; `gatherer.forget` removes
      them.

  Raises:
    ValueError: the two sets cannot be compared.
  """
  gatherer.check(choice.names)
  if source is None:
    source = resolve(samples, selection)
  for part, count in reference.counts(choice.names):
    set_metrics.check(
      part,
      samples=source.count,
      reference=count,
      allow_few_images=choice.allow_few_images,
      kid_size=choice.subset_size,
      features=gatherer.fewest,
    )
  reference.check(gatherer.sizes)
  recipe = join_manifests(source.recipe, gatherer.recipe)
  reference_recipe = reference.recipe(gatherer)
  warnings, compared_images = [], {}
  if reference_recipe is not None:
    warnings = reference_statistics.differences(recipe, reference_recipe)
    compared_images['compared'] = reference_statistics.comparison(
      recipe, reference_recipe
    )
  if collectives.is_first():
    # The warning is printed before hours of work; the result repeats it.
    for warning in warnings:
      print(f'cdm: NOT COMPARABLE: {warning}.', file=sys.stderr, flush=True)
  if check_manifests is not None:
    check_manifests(recipe, reference_recipe)
  gathered = gatherer(source, choice.names, SAMPLES)
  scores, conventions = {}, {}
  for part, other in reference.parts(gatherer):
    compared = set_metrics.compare(
      gathered, other, metrics=part, kid_size=choice.subset_size
    )
    scores |= compared.scores
    conventions |= compared.conventions
  # Partial results are not needed once the scores are computed.
  gatherer.forget(SAMPLES if keep_reference else None)
  row = {
    'samples': str(samples),
    'reference': reference.name,
    'n': gathered.count,
    'n_reference': reference.count,
    'conventions': conventions,
    **scores,
    'warnings': warnings,
    **compared_images,
    'samples_recipe': recipe,
    'reference_recipe': reference_recipe,
    'paper': source.paper,
    'versions': versions(),
  }
  return cast(SetRow, row)


def join_manifests(
  images: ImageManifest, network: NetworkManifest
) -> ImageManifest:
  """Returns the manifest of the features that a network gives of images."""
  return {**images, **network}


class Reference:
  """A reference set, whose features are extracted once for all comparisons.

  If an .npz holds both statistics and images, as those of [ADM] do, FID and
  sFID use the statistics and all other metrics use the images.

  Attributes:
    name: name of the set, or None.
    stored: `reference_statistics.Statistics` read from a file, or None.
    source: `Source` of the images, or None where no images are needed.
    count: number of images in the reference, or None if it is not known. If
      both statistics and images are used, the number behind the statistics.
  """

  def __init__(
    self,
    what: str | os.PathLike | None,
    metrics: Sequence[str],
    *,
    selection: Selection = ALL_IMAGES,
    source: Source | None = None,
  ):
    """Opens the reference.

    Args:
      what: name of the set, see `set_name`; None if no metric needs a
        reference.
      metrics: names, from `metrics_table.SETS`.
      selection: how its images are read or sampled.
      source: its images, if the caller has resolved the name.

    Raises:
      ValueError: there is no such set, or a metric needs a reference and none
        is named.
    """
    self.name = None if what is None else str(what)
    table = metrics_table.SETS
    self._alone = [m for m in metrics if table[m].alone]
    wanted = [m for m in metrics if m not in self._alone]
    if what is None and wanted:
      raise ValueError(
        '--reference is missing: the only metric that needs none is `is`.'
      )
    self.stored: reference_statistics.Statistics | None = None
    self.source: Source | None = None
    self._gathered: feature_statistics.Gathered | None = None
    self._of_stored = []
    if what is not None and wanted and source is None and is_statistics(what):
      self.stored = reference_statistics.read(what)
      self._of_stored = [m for m in wanted if table[m].from_moments]
    self._of_images = [m for m in wanted if m not in self._of_stored]
    if what is not None and self._of_images:
      if self.stored and not image_set.holds_images(what):
        raise ValueError(
          f'{self._of_images[0]} compares images one by one, and {what} holds '
          'statistics only; give its images.'
        )
      if source is None:
        source = resolve_reference(what, selection)
      self.source = source
    self.count = self.source.count if self.source else None
    if self.stored and self._of_stored:
      self.count = self.stored.count

  def counts(
    self, metrics: Sequence[str]
  ) -> list[tuple[list[str], int | None]]:
    """Returns the number of reference images behind each group of metrics.

    Args:
      metrics: names, from `metrics_table.SETS`.

    Returns:
      [(names, count), ...]; count is None for metrics without a reference, and
      for statistics whose number of images is not known.
    """
    alone = [m for m in metrics if metrics_table.SETS[m].alone]
    stored = self.stored.count if self.stored else None
    images = self.source.count if self.source else None
    every = (alone, None), (self._of_stored, stored), (self._of_images, images)
    return [(names, count) for names, count in every if names]

  def check(self, sizes: Mapping[str, int]) -> None:
    """Raises ValueError unless the stored statistics have these sizes.

    Args:
      sizes: {metric: number of features}, see `Gatherer.sizes`.
    """
    if self.stored and self._of_stored:
      assert self.name is not None  # statistics are read from a path
      reference_statistics.check_sizes(
        self.name, self.stored, self._of_stored, sizes
      )

  def parts(
    self, gatherer: Gatherer
  ) -> list[
    tuple[
      list[str],
      feature_statistics.Gathered | reference_statistics.Statistics | None,
    ]
  ]:
    """Returns [(metrics, what the samples are compared with), ...].

    The first call extracts the features of the images, if any are needed.
    """
    if self.source and self._gathered is None:
      self._gathered = gatherer(self.source, self._of_images, REFERENCE)
      if not self._of_stored:
        # From here on the count excludes images that were skipped.
        self.count = self._gathered.count
    every = (
      (self._alone, None),
      (self._of_stored, self.stored),
      (self._of_images, self._gathered),
    )
    return [(metrics, other) for metrics, other in every if metrics]

  def recipe(self, gatherer: Gatherer) -> ImageManifest | None:
    """Returns the manifest of the reference: all that its features depend on.

    The manifest is {} if it is not known, and None if there is no reference.
    """
    if self.stored and self._of_stored:
      return self.stored.recipe
    if self.source is None:
      return None
    return join_manifests(self.source.recipe, gatherer.recipe)


def resolve_reference(
  what: str | os.PathLike, selection: Selection = ALL_IMAGES
) -> Source:
  """Resolves the name of a reference, see `image_source.resolve`.

  Raises:
    ValueError: there is no such set. An override that the message names is
      written as that of a reference.
  """
  try:
    return resolve(what, selection)
  except ValueError as error:
    text = str(error).replace('--config.', '--reference_config.')
    if text == str(error):
      raise
    raise damaged_file.reworded(error, text) from error


def make_reference(
  what: str | os.PathLike,
  out: str | os.PathLike,
  *,
  selection: Selection = ALL_IMAGES,
  network: GathererOptions | None = None,
) -> reference_statistics.Statistics:
  """Writes the statistics of a set, together with their manifest.

  Args:
    what: name of the set, see `set_name`.
    out: path of the .npz to write.
    selection: which images are read or sampled.
    network: keyword arguments of `Gatherer`.

  Returns:
    The statistics that were written.

  Raises:
    ValueError, OSError: see `judge`.
  """
  if collectives.is_first():
    output_files.check(out, overwrite=True)
  source = resolve_reference(what, selection)
  if source.count < 2:
    raise ValueError(f'{what} holds {source.count} image; two are needed.')
  gatherer = Gatherer(**network or {})
  # Of a network that is not FID's, the pooled features are all there is.
  kept = ('fid', 'sfid') if 'fid' in gatherer.sizes else ('fd',)
  gathered = gatherer(source, kept, REFERENCE)
  made = reference_statistics.from_gathered(
    gathered, join_manifests(source.recipe, gatherer.recipe)
  )
  if collectives.is_first():
    reference_statistics.write(out, made)
  collectives.barrier('the statistics')
  gatherer.forget()
  return made


def is_statistics(what: str | os.PathLike) -> bool:
  """Returns whether the name is that of an .npz file with statistics in it."""
  path = pathlib.Path(what)
  return (
    path.suffix == '.npz'
    and path.is_file()
    and reference_statistics.holds(path)
  )


def versions() -> dict[str, str]:
  """Returns {package: version} for the packages that affect the scores."""
  from importlib import metadata

  names = ('jax', 'jaxlib', 'flax', 'numpy', 'scipy', 'scikit-image', 'pillow')
  return {name: metadata.version(name) for name in names}
