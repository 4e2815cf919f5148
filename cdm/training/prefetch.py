"""Reads batches in a background thread, ahead of the step, onto the device."""

from __future__ import annotations

import contextlib
import copy
import queue
import threading
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np

from cdm.distributed import device_mesh, exit_codes

if TYPE_CHECKING:
  from cdm.data.pipeline_state import PipelineState
  from cdm.training.preemption import Stop

# Batches read ahead of the step, already on the device.
AHEAD = 2


class BatchIterator(Protocol):
  """Yields host batches of this process; its position can be saved."""

  def __next__(self) -> dict[str, np.ndarray]: ...

  def get_state(self) -> PipelineState:
    """Returns the position after the last batch, as a dict of JSON values."""
    ...

  def set_state(self, state: Any) -> None:
    """Continues after the batch at which `get_state` was called."""
    ...


class Prefetch:
  """Reads batches ahead in a thread, each with the data position after it.

  The position that is saved belongs to the batches that were trained on, not
  to those that were read.
  """

  def __init__(self, iterator: BatchIterator, mesh: jax.sharding.Mesh):
    """Prepares to read; the thread starts on entering the context.

    Args:
      iterator: yields host batches of this process, see `BatchIterator`.
      mesh: the device mesh that the batches are split over.
    """
    self._iterator = iterator
    self._mesh = mesh
    self._ready = queue.Queue(AHEAD)
    self._closed = threading.Event()
    self._thread = threading.Thread(
      target=self._read, name='prefetch', daemon=True
    )

  def __enter__(self) -> Prefetch:
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self._closed.set()
    # A read that hangs must not keep the process from ending.
    self._thread.join(timeout=10)

  def _read(self):
    try:
      while True:
        try:
          batch = next(self._iterator)
        except Exception as error:
          self._put(_ReadError(error))
          return
        # The position is copied, because an iterator may return its own dict
        # and change it later.
        position = copy.deepcopy(self._iterator.get_state())
        if not self._put(
          (device_mesh.shard_batch(batch, self._mesh), position)
        ):
          return
    except BaseException as error:  # `next` raises it in the main thread.
      self._put(error)

  def _put(self, item):
    """Waits for room in the queue. Returns False if reading was ended."""
    while not self._closed.is_set():
      with contextlib.suppress(queue.Full):
        self._ready.put(item, timeout=0.1)
        return True
    return False

  def next(self, stop: Stop, step: int) -> tuple[dict, PipelineState] | None:
    """Waits for the next batch.

    Args:
      stop: ends the wait as soon as the run is asked to stop.
      step: the last step made, for the message of an error.

    Returns:
      (global batch on the mesh, data position after it), or None if the run
      was asked to stop.

    Raises:
      exit_codes.DataError: if reading the batch failed, or the data ended.
    """
    while not stop.may_leave:
      with contextlib.suppress(queue.Empty):
        item = self._ready.get(timeout=0.1)
        break
    else:
      return None
    # Ctrl-C also ends the worker processes that read data; that is not a data
    # error.
    if stop.may_leave:
      return None
    if isinstance(item, _ReadError):
      raise item.to_data_error(step) from item.error
    if isinstance(item, BaseException):
      raise item
    return item


class _ReadError:
  """An error of the data iterator, on its way to the main thread."""

  def __init__(self, error):
    self.error = error

  def to_data_error(self, step):
    if isinstance(self.error, StopIteration):
      return exit_codes.DataError(
        f'The data ended after step {step}, before the run was complete; make '
        'the iterator with repeat=True, or lower train.num_steps.'
      )
    return exit_codes.data_error(
      f'Reading the batch of step {step + 1} failed', self.error
    )
