"""Scores a stage's images by the originals they were drawn from, as they come.

Scores are kept, one line each, as soon as they are there, so that a killed
evaluation continues.
"""

import pathlib

from cdm.evaluation import image_source, paired_metrics, partial_results
from cdm.evaluation.feature_extractor import BATCH_SIZE
from cdm.models.pretrained import download
from cdm.reporting import progress


def resolve_stage(what, scores, **given):
  """Finds a stage's images, each of which is to be scored as it is drawn.

  Args:
    what: WORKDIR@eval or WORKDIR@train.
    scores: `Scores`, which goes on with what a killed evaluation left.
    **given: see `image_source.resolve`.

  Returns:
    image_source.Source.

  Raises:
    ValueError: `what` names something else.
  """
  source = image_source.resolve(what, on_batch=scores, **given)
  scores.open(source)
  return source


def draw_missing(source, scores, *, batch_size=BATCH_SIZE):
  """Draws what has no score yet."""
  count, size = source.count, min(batch_size, source.count)
  done = scores.leading()
  if done == count:
    return
  first = done // size
  with progress.Progress('samples', total=count, initial=first * size) as bar:
    bar.say('samples: compiling ...')
    for batch, _ in enumerate(source.batches(first, size), first + 1):
      bar.move_to(min(batch * size, count))


class Scores:
  """Takes images as they are drawn, and keeps what they score.

  Attributes:
    source: image_source.Source, once it is opened.
  """

  def __init__(self, *, perceptual=None, keep=None):
    """Args:

    perceptual: lpips_scorer.LpipsScorer, for LPIPS, or None.
    keep: folder of what was scored so far; the user's cache by default.
    """
    home = download.folder().parent / 'evaluate'
    self._keep = home if keep is None else pathlib.Path(keep)
    self._perceptual = perceptual
    self.source = self._rows = self._downsample = None

  def open(self, source):
    """Reads what was scored of the same images before."""
    self.source = source
    (note,) = source.recipe['stages']
    self._downsample = note['downsample']
    convention = self._perceptual and self._perceptual.convention
    self._rows = partial_results.image_rows(
      self._keep, ['pairs', source.recipe, source.stamp, convention]
    )

  def leading(self):
    """-> how many images, from the first on, have a score."""
    count = self.source.count
    return min(self._rows.missing(range(count)), default=count)

  def __call__(self, left_out, numbers, made, originals, low):
    """Scores this process's part of a batch; see `image_source.resolve`."""
    found = [[int(n)] for n in left_out]
    for row, n in enumerate(map(int, numbers)):
      how = (low[row], self._downsample, self._perceptual)
      mine = paired_metrics.score(made[row], originals[row], *how)
      found.append([n, mine, paired_metrics.bicubic_of(originals[row], *how)])
    self._rows.append(found)

  def row(self):
    """-> the row of all pairs, the same in every process.

    What was kept is removed: the numbers are there.
    """
    ordered = [self._rows.rows[n][1:] for n in range(self.source.count)]
    ordered = [scored for scored in ordered if scored]
    recipe = self.source.recipe
    side = recipe['stages'][0]['lowres_size']
    row = paired_metrics.row_of(
      [mine for mine, _ in ordered],
      [bicubic for _, bicubic in ordered],
      {'samples': recipe['image_size'], 'lowres': [side] * 2},
      self._downsample,
      self._perceptual,
    )
    self._rows.remove()
    return row
