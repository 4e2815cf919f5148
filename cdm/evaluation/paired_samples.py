"""Scores a stage's images by the originals they were drawn from, as they come.

Scores are kept, one line each, as soon as they are there, so that a killed
evaluation continues; a process keeps its own.
"""

import hashlib
import json
import pathlib
import shutil

import jax

from cdm.distributed import collectives
from cdm.evaluation import image_source, paired_metrics
from cdm.evaluation.feature_extractor import BATCH_SIZE
from cdm.models.pretrained import download
from cdm.reporting import jsonl, progress


def find(what, scores, **given):
  """Finds a stage's images, each of which is to be scored as it is drawn.

  Args:
    what: WORKDIR@eval or WORKDIR@train.
    scores: `Scores`, which goes on with what a killed evaluation left.
    **given: see `image_source.find`.

  Returns:
    finding.Source.

  Raises:
    ValueError: `what` names something else.
  """
  source = image_source.find(what, tap=scores, **given)
  scores.open(source)
  return source


def draw(source, scores, *, batch_size=BATCH_SIZE):
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
    source: finding.Source, once it is opened.
  """

  def __init__(self, *, perceptual=None, keep=None):
    """Args:

    perceptual: perceptual.Perceptual, for LPIPS, or None.
    keep: folder of what was scored so far; the user's cache by default.
    """
    home = download.folder().parent / 'evaluate'
    self._keep = home if keep is None else pathlib.Path(keep)
    self._perceptual = perceptual
    self.source = self._folder = self._downsample = None
    self._known = {}

  def open(self, source):
    """Reads what was scored of the same images before."""
    self.source = source
    (note,) = source.recipe['stages']
    self._downsample = note['downsample']
    convention = self._perceptual and self._perceptual.convention
    what = ['pairs', source.recipe, source.stamp, convention]
    text = json.dumps(what, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    self._folder = self._keep / name
    for path in sorted(self._folder.glob('process-*.jsonl')):
      self._known |= {number: scored for number, *scored in jsonl.read(path)}

  def leading(self):
    """-> how many images, from the first on, some process has scored."""
    known = set().union(*collectives.gather_objects(sorted(self._known)))
    numbers = range(self.source.count)
    return next((n for n in numbers if n not in known), self.source.count)

  def __call__(self, left_out, numbers, made, originals, low):
    """Scores this process's part of a batch; see `image_source.find`."""
    found = {int(n): [] for n in left_out}
    for row, n in enumerate(map(int, numbers)):
      how = (low[row], self._downsample, self._perceptual)
      found[n] = [
        paired_metrics.score(made[row], originals[row], *how),
        paired_metrics.bicubic_of(originals[row], *how),
      ]
    self._known |= found
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / f'process-{jax.process_index()}.jsonl'
    jsonl.append(path, [[n, *scored] for n, scored in found.items()])

  def row(self):
    """-> the row of all pairs, the same in every process.

    What was kept is removed: the numbers are there.
    """
    known = {}
    for part in collectives.gather_objects(self._known):
      known |= {int(number): scored for number, scored in part.items()}
    ordered = [known[number] for number in range(self.source.count)]
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
    # All have read it; each may have a disk of its own.
    shutil.rmtree(self._folder, ignore_errors=True)
    return row
