"""Extracts the features of a set of images, and resumes after a kill.

A `Gatherer` runs a network, FID's by default, over the images and reduces the
features, batch by batch, to what the metrics need. It saves partial results
about every `SAVE_SECONDS`, so that a killed evaluation continues from the last
ones.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np

from cdm.distributed import collectives, user_cache
from cdm.evaluation import (
  feature_networks,
  feature_statistics,
  merged_statistics,
  partial_results,
  set_metrics,
)
from cdm.evaluation.feature_extractor import Extractor
from cdm.evaluation.image_source import Source
from cdm.evaluation.row_types import NetworkManifest
from cdm.models.inception import Features
from cdm.models.pretrained import download, inception
from cdm.reporting import progress

SAVE_SECONDS = 60.0
MOST_AHEAD = 10_000  # batches between two saves, at most
BLOCK = 1024  # images whose features are reduced at once
WAITING = 'waiting.'  # prefix of the arrays of an unfinished block


class GathererOptions(TypedDict, total=False):
  """The keyword arguments of `Gatherer`.

  Attributes:
    weights: path of the weights; they are downloaded by default.
    batch_size: images per batch.
    keep: folder for partial results; the user's cache by default.
  """

  weights: str | os.PathLike | None
  batch_size: int | None
  keep: str | os.PathLike | None


class Stopped(Exception):
  """The run was asked to stop while features were extracted."""


def never() -> bool:
  """Returns False: nobody asks to stop."""
  return False


class Gatherer:
  """A network, loaded once and called with one `Source` after the other.

  Attributes:
    recipe: manifest of the network: everything, apart from the images, that
      the features depend on.
  """

  def __init__(
    self,
    weights: str | os.PathLike | None = None,
    *,
    batch_size: int | None = None,
    keep: str | os.PathLike | None = None,
    flag: str = '--weights',
  ):
    """Loads the network.

    Args:
      weights: path of the weights, see `feature_networks.read`; those of
        Inception-v3 are downloaded by default.
      batch_size: images per batch; see `feature_extractor.Extractor`.
      keep: folder for partial results; the user's cache by default.
      flag: option by which a user gives the path, for error messages.

    Raises:
      ValueError: the file of the weights is missing, damaged, or that of
        another network.
      OSError: the weights cannot be downloaded.
    """
    path = weights
    if path is None:
      path = download.fetch(inception.URL, inception.SHA256, flag=flag)
    elif not pathlib.Path(path).is_file():
      raise ValueError(
        f'{flag.partition("=")[0]}={path} is not there. Give the PyTorch port '
        f'{inception.URL.rpartition("/")[2]} (SHA-256 '
        f'{inception.SHA256[:8]}...), or the frozen graph '
        f'{inception.GRAPH}.'
      )
    network = feature_networks.read(path)
    self.recipe: NetworkManifest = {
      'network': network.name,
      'resize_to_network': network.resize,
      'weights_sha256': download.digest(path),
    }
    self._extractor = Extractor(network, batch_size=batch_size)
    self._keep = pathlib.Path(
      user_cache.folder('evaluate') if keep is None else keep
    )
    self._parts = {}

  @property
  def sizes(self) -> dict[str, int]:
    """{metric: number of features its Gaussian is fitted to}."""
    return self._extractor.sizes

  @property
  def fewest(self) -> int:
    """The number of features, below which a covariance is singular."""
    sizes = self.sizes
    return set_metrics.FEWEST if 'fid' in sizes else sizes['fd']

  def check(self, metrics: Sequence[str]) -> None:
    """Raises ValueError unless the network serves all of the metrics."""
    served = self._extractor.metrics
    other = [name for name in metrics if served and name not in served]
    if other:
      raise ValueError(
        f'{" and ".join(other)} cannot be computed in the features of '
        f'{self.recipe["network"]}; its metrics are {", ".join(served)}, or '
        'give the weights of Inception-v3.'
      )

  def __call__(
    self,
    source: Source,
    metrics: Sequence[str],
    label: str,
    *,
    stop_asked: Callable[[], bool] = never,
  ) -> feature_statistics.Gathered:
    """Extracts the features of a set, continuing a killed run if there is one.

    Args:
      source: the images of the set.
      metrics: names, from `metrics_table.SETS`.
      label: title of the progress bar, and the name by which `forget` finds
        the partial results of this set.
      stop_asked: whether to stop, which is asked after every batch. Every
        process asks equally often and must get the same answer.

    Returns:
      Gathered of the whole set, the same in every process.

    Raises:
      Stopped: `stop_asked` said so; the same call continues.
      ValueError: features that are not finite, or an error of `source`.
      OSError: the partial results cannot be written.
    """
    self.check(metrics)
    folder = self._folder(source, metrics, self._keep)
    parts = self._parts[label] = partial_results.PartialResults(folder)
    with partial_results.hold_folder(folder):
      return self._gather(source, metrics, label, parts, stop_asked)

  def gather_in(
    self,
    home: pathlib.Path,
    source: Source,
    metrics: Sequence[str],
    label: str,
    *,
    stop_asked: Callable[[], bool],
  ) -> feature_statistics.Gathered:
    """Extracts the features of a set, with partial results in a folder.

    Args:
      home: folder for these partial results alone, inside a folder that this
        run holds. Those of other sets are removed from it.
      source, metrics, label, stop_asked: see `__call__`.

    Returns, raises: see `__call__`.
    """
    self.check(metrics)
    folder = self._folder(source, metrics, home)
    if collectives.is_first() and home.is_dir():
      for other in home.iterdir():
        if other != folder:
          shutil.rmtree(other, ignore_errors=True)
    parts = self._parts[label] = partial_results.PartialResults(folder)
    return self._gather(source, metrics, label, parts, stop_asked)

  def _gather(
    self,
    source: Source,
    metrics: Sequence[str],
    label: str,
    parts: partial_results.PartialResults,
    stop_asked: Callable[[], bool],
  ) -> feature_statistics.Gathered:
    done, kept = parts.newest()
    blocks = Blocks(metrics, source.count, kept)
    schedule = SaveSchedule(done)
    size = self._extractor.batch_size
    per_batch = source.drawn_at_once or size * collectives.process_count()
    with progress.Progress(
      label, total=source.count, initial=min(done * per_batch, source.count)
    ) as bar:
      for indices, features in self._features(source, done):
        blocks.add(indices, features)
        done += 1
        bar.move_to(min(done * per_batch, source.count))
        stopped = stop_asked()
        if schedule.due(done) or stopped:
          parts.write(done, blocks.to_arrays())
        if stopped:
          raise Stopped(f'{label}: stopped after {done} batches')
    if schedule.worth_keeping(done):
      parts.write(done, blocks.to_arrays())
    return merged_statistics.of_all_processes(blocks.finished())

  def _folder(
    self, source: Source, metrics: Sequence[str], home: pathlib.Path
  ) -> pathlib.Path:
    """Returns the folder for the partial results of this set alone."""
    import jax

    settings = [source.recipe, source.stamp, self.recipe, sorted(metrics)]
    # These decide which images are in which batch.
    settings += [
      self._extractor.batch_size,
      collectives.process_count(),
      jax.device_count(),
    ]
    if source.drawn_at_once is not None:
      settings.append(source.drawn_at_once)
    return home / partial_results.digest(settings)

  def _features(
    self, source: Source, done: int
  ) -> Iterator[tuple[np.ndarray, Features | None]]:
    """Yields (indices, features) for every batch after the first `done`.

    features is None if this process has no image of the batch. The features of
    a batch are yielded after the next batch was started, so that the host reads
    images and reduces features while the network runs.
    """
    previous = None
    for indices, images in source.batches(done, self._extractor.batch_size):
      started = self._extractor.start(images) if images is not None else None
      if previous is not None:
        yield self._finished(*previous)
      previous = indices, started
    if previous is not None:
      yield self._finished(*previous)

  def _finished(
    self, indices: np.ndarray, started: list | None
  ) -> tuple[np.ndarray, Features | None]:
    features = None if started is None else self._extractor.finish(started)
    return indices, features

  def forget(self, label: str | None = None) -> None:
    """Deletes the partial results, which a finished comparison does not need.

    Args:
      label: label of the set whose results are deleted; by default those of
        all sets.
    """
    for name in list(self._parts) if label is None else [label]:
      if name in self._parts:
        self._parts.pop(name).remove()


class Blocks:
  """Reduces the features of batches to sums, a block of batches at a time.

  Merging moments takes as long for one image as for a block of `BLOCK`. Where a
  block ends depends on the batches alone, so that a run that was killed and
  continued gives the same result to the last bit.
  """

  def __init__(
    self, metrics: Sequence[str], count: int, kept: Mapping[str, np.ndarray]
  ):
    """Starts empty, or from the partial results of a killed run.

    Args:
      metrics: names, from `metrics_table.SETS`.
      count: number of images in the whole set.
      kept: result of `to_arrays` to continue from, or {}.
    """
    self._metrics, self._count = metrics, count
    waiting = {k: v for k, v in kept.items() if k.startswith(WAITING)}
    rest = {k: v for k, v in kept.items() if k not in waiting}
    self._gathered = (
      feature_statistics.from_arrays(rest) if rest else feature_statistics.EMPTY
    )
    self._waiting = []
    if waiting:
      values = [waiting[f'{WAITING}{name}'] for name in Features._fields]
      self._waiting = [(waiting[f'{WAITING}numbers'], Features(*values))]

  def add(self, indices: np.ndarray, features: Features | None) -> None:
    """Adds a batch.

    Args:
      indices: int [n], of the images in the set.
      features: features of the n images, or None if there are no images.
    """
    if features is None:
      return
    self._waiting.append((indices, features))
    if sum(len(n) for n, _ in self._waiting) >= BLOCK:
      self.finished()

  def finished(self) -> feature_statistics.Gathered:
    """Returns the Gathered of all batches so far, and ends the block."""
    if self._waiting:
      indices, features = self._joined()
      batch = feature_statistics.summarize(
        features, indices, metrics=self._metrics, count=self._count
      )
      self._gathered = feature_statistics.merge(self._gathered, batch)
      self._waiting = []
    return self._gathered

  def to_arrays(self) -> dict[str, np.ndarray]:
    """Returns {name: array}, from which a new `Blocks` can continue."""
    arrays = feature_statistics.to_arrays(self._gathered)
    if self._waiting:
      indices, features = self._joined()
      arrays[f'{WAITING}numbers'] = indices
      for name, value in features._asdict().items():
        arrays[f'{WAITING}{name}'] = value
    return arrays

  def _joined(self) -> tuple[np.ndarray, Features]:
    indices, features = zip(*self._waiting, strict=True)
    values = zip(*features, strict=True)
    return np.concatenate(indices), Features(*map(np.concatenate, values))


class SaveSchedule:
  """Decides after which batches all processes save their partial results.

  A killed run can continue only from a batch that every process has saved, and
  the clocks of the processes differ. So the clock of process 0 decides, some
  batches ahead, and its decision is broadcast.
  """

  def __init__(self, done: int):
    """Starts the clock.

    Args:
      done: number of batches in the partial results that exist already.
    """
    self._begun = self._since = time.monotonic()
    self._kept, self._next = done, None

  def due(self, done: int) -> bool:
    """Returns whether to save the partial results of the first `done` batches.

    This is a collective: every process calls it after each of its batches.
    """
    if self._next is not None and done < self._next:
      return False
    now = time.monotonic()
    each = (now - self._since) / max(done - self._kept, 1)
    first = self._next is None and each < SAVE_SECONDS
    ahead = min(int(SAVE_SECONDS / max(each, 1e-9)), MOST_AHEAD)
    self._next = done + int(collectives.broadcast_from_first(max(1, ahead)))
    if bool(collectives.broadcast_from_first(first)):
      return False
    # No process may run ahead: it keeps its last two saves only, and would
    # delete the one that the slowest process has reached.
    collectives.barrier('the saved partial results')
    self._since, self._kept = now, done
    return True

  def worth_keeping(self, done: int) -> bool:
    """Returns whether to save the result of the whole set as well.

    It is worth saving if it took long, because the run may be killed later,
    while it processes another set.
    """
    took = time.monotonic() - self._begun
    return (
      collectives.broadcast_from_first(took > SAVE_SECONDS)
      and done > self._kept
    )
