"""Checks that labels are in range, and that a run's data stay the same."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cdm.checkpointing import reader
from cdm.config import key_errors, loader
from cdm.data import class_names, picture_order
from cdm.data.pipeline import PipelineOptions
from cdm.distributed import exit_codes

if TYPE_CHECKING:
  from cdm.config.loader import ConfigDict
  from cdm.data.pipeline import Batches
  from cdm.data.pipeline_state import PipelineState


class LabelCheckedBatches:
  """Batches whose labels are checked against the network's classes.

  Without the check, a label that is out of range, such as -1, could silently
  stand for another class on the device.
  """

  def __init__(
    self,
    batches: Batches,
    num_classes: int | None,
    *,
    before_resuming: Callable[[], None],
  ):
    """Wraps an iterator of batches.

    Args:
      batches: see `data.pipeline`.
      num_classes: number of classes of the network; None lets any label pass.
      before_resuming: called before a position is restored; it raises an error
        if the run must not continue with this data.
    """
    self._batches, self._num_classes = batches, num_classes
    self._before_resuming = before_resuming
    # The first batch, once `peek` has read it and until it is yielded.
    self._peeked: dict[str, np.ndarray] | None = None

  def close(self) -> None:
    """Ends the threads or processes that read data."""
    self._batches.close()

  def peek(self) -> None:
    """Reads the first batch now, so that bad input is refused at the start.

    The batch is kept and yielded first.

    Raises:
      ValueError: if the data does not fit the config.
      exit_codes.DataError: if the batch cannot be read.
    """
    try:
      with key_errors.naming('pipeline', PipelineOptions._fields, otherwise=''):
        self._peeked = next(self)
    except Exception as error:
      if exit_codes.classify(error) is exit_codes.BAD_INPUT and isinstance(
        error, ValueError
      ):
        raise
      raise exit_codes.data_error(
        'The first batch could not be read', error
      ) from error

  def get_state(self) -> PipelineState:
    """Returns the position of the wrapped iterator, see `data.pipeline`."""
    return self._batches.get_state()

  def set_state(self, state: PipelineState) -> None:
    """Continues from a position that `get_state` returned.

    If `before_resuming` raises an error, the position does not change.
    """
    self._before_resuming()
    self._peeked = None
    self._batches.set_state(state)

  def __iter__(self) -> LabelCheckedBatches:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._peeked is not None:
      batch, self._peeked = self._peeked, None
      return batch
    batch = next(self._batches)
    check_range(batch['label'], self._num_classes)
    return batch


def check_range(
  label: np.ndarray, num_classes: int | None, data: str = 'data'
) -> None:
  """Raises ValueError if one of the labels is none of the network's classes.

  Args:
    label: int [N].
    num_classes: number of classes of the network; None lets any label pass.
    data: what the labels belong to, for the message.
  """
  n = num_classes
  if n is None or not label.size or (0 <= label.min() and label.max() < n):
    return
  raise ValueError(
    f'config.model.num_classes is {n}: labels are 0 to {n - 1}, but the {data} '
    f'has labels from {label.min()} to {label.max()}. Use data with those '
    'labels, or --config.model.num_classes=None.'
  )


def check_classes(workdir: str | os.PathLike, source: Any) -> None:
  """Raises ValueError if labels mean other classes than when the run began.

  Args:
    workdir: work directory of the run, which names its classes.
    source: the training data, see `data.source`.
  """
  before = class_names.read(workdir)
  if before is None or not reader.complete_steps(workdir):
    return
  for n, (old, new) in enumerate(
    itertools.zip_longest(before, source.class_names)
  ):
    if old != new:
      raise ValueError(
        f'Class {n} of the run in {workdir} is {old!r}, but in the data it is '
        f'{new!r}. Use the same classes in the same order, or another '
        '--workdir.'
      )


def check_same_data(
  workdir: str | os.PathLike, c: ConfigDict, source: Any
) -> None:
  """Raises ValueError if a run cannot go on with these data.

  Args:
    workdir: work directory of the run, which has a checkpoint.
    c: config of the run as it is now.
    source: the training data, see `data.source`.
  """
  check_classes(workdir, source)
  saved = loader.from_json(reader.read_config(workdir), workdir)
  check_order(saved, c, source)


def check_order(saved: ConfigDict, c: ConfigDict, source: Any) -> None:
  """Raises ValueError if the pictures of a folder have another order.

  The position of a run counts them in their order.

  Args:
    saved: config of the run when it was saved.
    c: config of the run as it is now.
    source: the training data.
  """
  before, now = saved.train_data, c.train_data
  if before.kind != 'folder' or now.kind != 'folder':
    return
  # Runs of versions without the key have the order 'text'.
  order = before.get('order', picture_order.TEXT)
  if order == source.order:
    return
  if picture_order.ordered(sorted(source.files), order) != source.files:
    raise ValueError(
      f'config.train_data.order is {source.order!r} and was {order!r} when the '
      'run was saved, which are two orders of these pictures: the run would '
      f'not go on where it stopped. Use --config.train_data.order={order}.'
    )
