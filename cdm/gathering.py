"""Gathers what metrics need of a set: its images through FID's network."""

import hashlib
import json
import pathlib
import time

from cdm import downloads, processes, progress
from cdm.evaluate import gathered as gather
from cdm.evaluate import partial
from cdm.evaluate.features import BATCH_SIZE, Extractor
from cdm.models import inception_weights

SAVE_SECONDS = 60.0
NETWORK = 'inception-2015-12-05'
RESIZE = 'tf1 bilinear to 299'


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
      source: finding.Source.
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
