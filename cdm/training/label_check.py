"""Checks the labels of a run: their range, and that classes stay the same."""

import itertools

from cdm.checkpointing import reader
from cdm.data import class_names
from cdm.distributed import exit_codes


class LabelCheckedBatches:
  """Batches whose labels are checked against the network's classes.

  A label out of range would silently be another class on the device.
  """

  def __init__(self, batches, num_classes, *, before_resuming):
    """Args:

    batches: see `data.pipeline`.
    num_classes: None lets any label pass.
    before_resuming: called before a position is restored; raises to refuse.
    """
    self._batches, self._num_classes = batches, num_classes
    self._before_resuming = before_resuming
    self._seen = None  # a batch that was looked at and not yet given
    self.get_state = batches.get_state

  def close(self):
    """Ends the threads or processes that read."""
    self._batches.close()

  def peek(self):
    """Reads the first batch now, so that bad input is refused at the start.

    Raises:
      ValueError: if it cannot be what the config wants.
      exits.DataError: if it cannot be read.
    """
    try:
      self._seen = next(self)
    except Exception as error:
      if exit_codes.classify(error) is exit_codes.BAD_INPUT and isinstance(
        error, ValueError
      ):
        raise
      raise exit_codes.data_error(
        'The first batch could not be read', error
      ) from error

  def set_state(self, state):
    self._before_resuming()
    self._seen = None
    self._batches.set_state(state)

  def __iter__(self):
    return self

  def __next__(self):
    if self._seen is not None:
      batch, self._seen = self._seen, None
      return batch
    batch = next(self._batches)
    label, n = batch['label'], self._num_classes
    if n is not None and not (0 <= label.min() and label.max() < n):
      raise ValueError(
        f'The data has labels from {label.min()} to {label.max()}, but '
        f'config.model.num_classes is {n}: labels are 0 to {n - 1}. Use data '
        'with those labels, or num_classes=None.'
      )
    return batch


def check_labels(c, net, source):
  """Raises ValueError if the data has labels the network does not know."""
  if net.num_classes is None:
    return
  if not source.num_classes:
    raise ValueError(
      f'config.model.num_classes is {net.num_classes}, but the data '
      f'({c.train_data.kind}) has no classes; use labelled data, or '
      'num_classes=None.'
    )
  if source.num_classes > net.num_classes:
    raise ValueError(
      f'The data has {source.num_classes} classes, labels 0 to '
      f'{source.num_classes - 1}, but config.model.num_classes is '
      f'{net.num_classes}; set it to {source.num_classes}.'
    )


def check_classes(workdir, source):
  """Raises ValueError if a run would go on with labels of another meaning."""
  before = class_names.read(workdir)
  if before is None or not reader.complete_steps(workdir):
    return
  for n, (old, new) in enumerate(
    itertools.zip_longest(before, source.class_names)
  ):
    if old != new:
      raise ValueError(
        f'{workdir} was trained with class {n} being {old!r}; in the data it '
        f'is {new!r} now. Use the same classes in the same order, or another '
        '--workdir.'
      )
