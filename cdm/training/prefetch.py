"""Reads ahead of the step, in a thread, onto the device."""

import contextlib
import copy
import queue
import threading

from cdm.distributed import device_mesh, exit_codes

# Batches read ahead of the step, already on the device.
AHEAD = 2


class Prefetch:
  """Reads batches ahead in a thread, each with the data position after it.

  The position that is saved belongs to the batches that were trained on, not
  to those that were read.
  """

  def __init__(self, iterator, mesh):
    self._iterator = iterator
    self._mesh = mesh
    self._ready = queue.Queue(AHEAD)
    self._closed = threading.Event()
    self._thread = threading.Thread(
      target=self._read, name='prefetch', daemon=True
    )

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._closed.set()
    # A read that hangs must not keep the process from ending.
    self._thread.join(timeout=10)

  def _read(self):
    try:
      while True:
        try:
          batch = next(self._iterator)
        except Exception as error:
          self._put(_Unread(error))
          return
        # Copied: an iterator may give its own dict and go on changing it.
        position = copy.deepcopy(self._iterator.get_state())
        if not self._put(
          (device_mesh.shard_batch(batch, self._mesh), position)
        ):
          return
    except BaseException as error:  # raised in the loop, where it belongs
      self._put(error)

  def _put(self, item):
    while not self._closed.is_set():
      with contextlib.suppress(queue.Full):
        self._ready.put(item, timeout=0.1)
        return True
    return False

  def next(self, stop, at):
    """-> (batch on the mesh, position after it); None once asked to stop."""
    while not stop.may_leave:
      with contextlib.suppress(queue.Empty):
        item = self._ready.get(timeout=0.1)
        break
    else:
      return None
    # Ctrl-C reaches worker processes too; their end is no error then.
    if stop.may_leave:
      return None
    if isinstance(item, _Unread):
      raise item.told(at) from item.error
    if isinstance(item, BaseException):
      raise item
    return item


class _Unread:
  """An error of the data, on its way to the loop."""

  def __init__(self, error):
    self.error = error

  def told(self, at):
    if isinstance(self.error, StopIteration):
      return exit_codes.DataError(
        f'The data ended after step {at}, before the run did; make the '
        'iterator with repeat=True, or lower train.num_steps.'
      )
    return exit_codes.data_error(
      f'Reading the batch of step {at + 1} failed', self.error
    )
