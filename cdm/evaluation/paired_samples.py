"""PairScorer the samples of a super-resolution stage against their originals.

The samples are scored while they are drawn, and only the scores are kept: one
line per image, written at once, so that a killed evaluation continues.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from cdm.distributed import user_cache
from cdm.evaluation import (
  image_source,
  metrics_table,
  paired_metrics,
  partial_results,
)
from cdm.evaluation.image_selection import ALL_IMAGES, Selection
from cdm.evaluation.lpips_scorer import LpipsScorer
from cdm.evaluation.paired_metrics import Scores
from cdm.evaluation.row_types import PairRow
from cdm.reporting import progress


def resolve_stage(
  what: str | os.PathLike,
  scores: 'PairScorer',
  selection: Selection = ALL_IMAGES,
) -> image_source.Source:
  """Opens the samples of a stage, so that `scores` scores them when drawn.

  Args:
    what: name of the set, WORKDIR@eval or WORKDIR@train.
    scores: takes the samples; continues from the scores of a killed evaluation.
    selection: the images to sample.

  Returns:
    The samples; iterating over its batches fills `scores`.

  Raises:
    ValueError: `what` is not the name of a stage.
  """
  source = image_source.resolve(what, selection, on_batch=scores)
  scores.open(source)
  return source


def draw_missing(source: image_source.Source, scores: 'PairScorer') -> None:
  """Samples the images that have no score yet, and thereby scores them.

  Args:
    source: the samples, from `resolve_stage`.
    scores: the scores that `source` fills.
  """
  count, size = source.count, source.drawn_at_once
  assert size is not None  # these images are drawn
  done = scores.leading()
  if done == count:
    return
  first = done // size
  with progress.Progress('samples', total=count, initial=first * size) as bar:
    bar.compiling()
    for batch, _ in enumerate(source.batches(first, size), first + 1):
      bar.move_to(min(batch * size, count))


class PairScorer:
  """A callback that scores the batches of a stage and stores the scores.

  Attributes:
    source: the samples that are scored; None before `open`.
  """

  def __init__(
    self,
    *,
    perceptual: LpipsScorer | None = None,
    keep: str | os.PathLike | None = None,
  ):
    """Creates the callback; `open` must be called before the first batch.

    Args:
      perceptual: computes LPIPS; None leaves it out.
      keep: folder for the stored scores; the user's cache by default.
    """
    self._keep = pathlib.Path(
      user_cache.folder('evaluate') if keep is None else keep
    )
    self._perceptual = perceptual
    self.source: image_source.Source | None = None
    self._rows: Any = None
    self._downsample: Any = None

  def open(self, source: image_source.Source) -> None:
    """Reads the scores that an earlier run stored for the same images."""
    self.source = source
    (note,) = source.recipe['stages']
    self._downsample = note['downsample']
    convention = self._perceptual and self._perceptual.convention
    self._rows = partial_results.image_rows(
      self._keep,
      [
        *('pairs', source.recipe, source.stamp, convention),
        list(metrics_table.PAIRS),
      ],
      # The row of an image that was skipped has no scores.
      declared=tuple[int] | tuple[int, Scores, Scores],
    )

  def leading(self) -> int:
    """Returns the number of images before the first one without a score."""
    assert self.source is not None  # `open` was called
    count = self.source.count
    self._rows.flush()
    return min(self._rows.missing(range(count)), default=count)

  def __call__(
    self,
    skipped: Sequence[int] | np.ndarray,
    indices: Sequence[int] | np.ndarray,
    super_resolved: Sequence[np.ndarray] | np.ndarray,
    originals: Sequence[np.ndarray] | np.ndarray,
    lowres: Sequence[np.ndarray] | np.ndarray,
  ) -> None:
    """PairScorer this process's part of a batch; see `image_source.resolve`."""
    rows: list[list] = [[int(n)] for n in skipped]
    for i, n in enumerate(map(int, indices)):
      how = (lowres[i], self._downsample, self._perceptual)
      scores = paired_metrics.score(super_resolved[i], originals[i], *how)
      rows.append([n, scores, paired_metrics.score_bicubic(originals[i], *how)])
    self._rows.add(rows)

  def row(self) -> PairRow:
    """Returns the row of all pairs, the same in every process.

    The stored scores are deleted, because the result is complete.
    """
    assert self.source is not None  # `open` was called
    self._rows.flush()
    ordered = [self._rows.rows[n][1:] for n in range(self.source.count)]
    ordered = [scored for scored in ordered if scored]
    recipe = self.source.recipe
    side = recipe['stages'][0]['lowres_size']
    row = paired_metrics.combine_scores(
      [scores for scores, _ in ordered],
      [bicubic for _, bicubic in ordered],
      {'samples': recipe['image_size'], 'lowres': [side] * 2},
      self._downsample,
      self._perceptual,
    )
    self._rows.remove()
    return row
