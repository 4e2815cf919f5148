"""Gathers what metrics need of a set: its images through FID's network."""

import pathlib
import time

import numpy as np

from cdm.distributed import collectives
from cdm.evaluation import feature_statistics, partial_results
from cdm.evaluation.feature_extractor import Extractor
from cdm.models.inception import Features
from cdm.models.pretrained import download, inception
from cdm.reporting import progress

SAVE_SECONDS = 60.0
MOST_AHEAD = 10_000  # batches
BLOCK = 1024  # images that are added up at once
WAITING = 'waiting.'
NETWORK = 'inception-2015-12-05'
RESIZE = 'tf1 bilinear to 299'


class Gatherer:
  """FID's network, read once; called with a `Source` it gathers it.

  Attributes:
    recipe: dict of all that features depend on but for the images.
  """

  def __init__(self, weights=None, *, batch_size=None, keep=None):
    """Reads the network.

    Args:
      weights: path; fetched by default.
      batch_size: images at once; see `feature_extractor.Extractor`.
      keep: folder of what was gathered so far; the user's cache by default.

    Raises:
      ValueError: the file is not there, damaged, or of another network.
      OSError: it cannot be fetched.
    """
    path = weights
    if path is None:
      path = download.fetch(inception.URL, inception.SHA256)
    elif not pathlib.Path(path).is_file():
      raise ValueError(
        f'--weights={path} is not there. Give the PyTorch port '
        f'{inception.URL.rpartition("/")[2]} (SHA-256 '
        f'{inception.SHA256[:8]}...), or the frozen graph '
        f'{inception.GRAPH}.'
      )
    elif pathlib.Path(path).name == inception.URL.rpartition('/')[2]:
      # Its form has no checksums inside, and a flipped bit is another FID.
      download.verify(path, inception.SHA256)
    self.recipe = {
      'network': NETWORK,
      'resize_to_network': RESIZE,
      'weights_sha256': download.digest(path),
    }
    params = inception.read(path)
    self._extractor = Extractor(params, batch_size=batch_size)
    home = download.folder().parent / 'evaluate'
    self._keep = home if keep is None else pathlib.Path(keep)
    self._parts = {}

  @property
  def sizes(self):
    """{metric: features that its Gaussian is of}."""
    return self._extractor.sizes

  def __call__(self, source, metrics, label):
    """Gathers a set, continuing what a killed run left.

    Args:
      source: image_source.Source.
      metrics: names, of `set_metrics.METRICS`.
      label: of the progress, and of what is kept for a killed run.

    Returns:
      gathered.Gathered of the whole set, the same in every process.

    Raises:
      ValueError: features that are not finite; of what `source` gives.
      OSError: what is there cannot be kept for a killed run.
    """
    parts = partial_results.Partial(self._folder(source, metrics))
    self._parts[label] = parts
    done, kept = parts.newest()
    blocks = Blocks(metrics, source.count, kept)
    turns = Turns(done)
    size = self._extractor.batch_size
    per_batch = size * (
      1 if source.recipe.get('drawn') else collectives.process_count()
    )
    with progress.Progress(
      label, total=source.count, initial=min(done * per_batch, source.count)
    ) as bar:
      for numbers, features in self._features(source, done):
        blocks.add(numbers, features)
        done += 1
        bar.move_to(min(done * per_batch, source.count))
        if turns.due(done):
          parts.write(done, blocks.to_arrays())
    if turns.worth_keeping(done):
      parts.write(done, blocks.to_arrays())
    whole = feature_statistics.EMPTY
    for part in collectives.gather_arrays(
      feature_statistics.to_arrays(blocks.finished())
    ):
      whole = feature_statistics.merge(
        whole, feature_statistics.from_arrays(part)
      )
    return whole

  def _folder(self, source, metrics):
    """-> where the parts of a set lie: of nothing else."""
    import jax

    what = [source.recipe, source.stamp, self.recipe, sorted(metrics)]
    # On them it depends which images are in which batch.
    what += [
      self._extractor.batch_size,
      collectives.process_count(),
      jax.device_count(),
    ]
    return self._keep / partial_results.digest(what)

  def _features(self, source, done):
    """Yields (numbers, Features or None) per batch.

    One batch behind: the host reads and adds up while the network runs.
    """
    behind = None
    for numbers, images in source.batches(done, self._extractor.batch_size):
      started = self._extractor.start(images) if len(numbers) else None
      if behind is not None:
        yield self._finished(*behind)
      behind = numbers, started
    if behind is not None:
      yield self._finished(*behind)

  def _finished(self, numbers, started):
    features = None if started is None else self._extractor.finish(started)
    return numbers, features

  def forget(self, label=None):
    """Removes what was kept for a killed run: its result is there.

    Args:
      label: of the set; all by default.
    """
    for name in list(self._parts) if label is None else [label]:
      if name in self._parts:
        self._parts.pop(name).remove()


class Blocks:
  """Adds batches up, many at once: adding up moments costs as much for one.

  Where a block ends depends on the batches alone, so that a run that was killed
  gives the same to the last bit.
  """

  def __init__(self, metrics, count, kept):
    """Begins, or goes on.

    Args:
      metrics: names, of `set_metrics.METRICS`.
      count: images of the whole set.
      kept: what `to_arrays` gave, or {}.
    """
    self._metrics, self._count = metrics, count
    waiting = {k: v for k, v in kept.items() if k.startswith(WAITING)}
    rest = {k: v for k, v in kept.items() if k not in waiting}
    self._found = (
      feature_statistics.from_arrays(rest) if rest else feature_statistics.EMPTY
    )
    self._waiting = []
    if waiting:
      values = [waiting[f'{WAITING}{name}'] for name in Features._fields]
      self._waiting = [(waiting[f'{WAITING}numbers'], Features(*values))]

  def add(self, numbers, features):
    """Adds a batch; features may be None where it has no images."""
    if features is None:
      return
    self._waiting.append((numbers, features))
    if sum(len(n) for n, _ in self._waiting) >= BLOCK:
      self.finished()

  def finished(self):
    """-> gathered.Gathered of all that was added."""
    if self._waiting:
      batch = feature_statistics.summarize(
        *reversed(self._joined()), metrics=self._metrics, count=self._count
      )
      self._found = feature_statistics.merge(self._found, batch)
      self._waiting = []
    return self._found

  def to_arrays(self):
    """-> {name: array}, from which another goes on."""
    made = feature_statistics.to_arrays(self._found)
    if self._waiting:
      numbers, features = self._joined()
      made[f'{WAITING}numbers'] = numbers
      for name, value in features._asdict().items():
        made[f'{WAITING}{name}'] = value
    return made

  def _joined(self):
    numbers, features = zip(*self._waiting, strict=True)
    values = zip(*features, strict=True)
    return np.concatenate(numbers), Features(*map(np.concatenate, values))


class Turns:
  """Says after which batches to keep what is there: the same everywhere.

  Every process goes by its own clock, and only what all have kept is of use. So
  the first one's clock decides, some batches ahead.
  """

  def __init__(self, done):
    """done: batches that were kept."""
    self._begun = self._since = time.monotonic()
    self._kept, self._next = done, None

  def due(self, done):
    """Whether to keep what the first `done` batches gave."""
    if self._next is not None and done < self._next:
      return False
    now = time.monotonic()
    each = (now - self._since) / max(done - self._kept, 1)
    first = self._next is None and each < SAVE_SECONDS
    ahead = min(int(SAVE_SECONDS / max(each, 1e-9)), MOST_AHEAD)
    self._next = done + int(collectives.broadcast_from_first(max(1, ahead)))
    if bool(collectives.broadcast_from_first(first)):
      return False
    # Nobody is further ahead than this, or an older part might be gone.
    collectives.barrier('what is kept')
    self._since, self._kept = now, done
    return True

  def worth_keeping(self, done):
    """Whether to keep the end, too: another set may come after it."""
    took = time.monotonic() - self._begun
    return (
      collectives.broadcast_from_first(took > SAVE_SECONDS)
      and done > self._kept
    )
