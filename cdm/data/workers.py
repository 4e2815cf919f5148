"""Evaluates a Grain data set ahead of time, in threads or worker processes."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import grain
from absl import flags

from cdm.data.files import storage_retry, transient_errors

# A record that kills whoever reads it would otherwise be read for ever.
_MOST_LOST_WORKERS = 3


def run(
  dataset: grain.MapDataset, *, worker_count: int, buffer_size: int
) -> grain.DatasetIterator:
  """Starts to evaluate the elements of a data set.

  The elements come in the order of the data set, whichever thread or worker
  computed them.

  Args:
    dataset: a map whose elements do not depend on each other.
    worker_count: worker processes; 0 uses two threads of this process.
    buffer_size: elements that each worker keeps ready.

  Returns:
    A Grain iterator. Close it; otherwise its worker processes keep running.
  """
  # A worker has one thread, because the processes are parallel already.
  threads = 1 if worker_count else 2
  iterable = dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer_size)
  )
  if worker_count:
    if not flags.FLAGS.is_parsed():
      # Grain reads its own absl flags when it starts worker processes.
      flags.FLAGS.mark_as_parsed()
    iterable = iterable.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=worker_count, per_worker_buffer_size=buffer_size
      ),
      worker_init_fn=_end_with_parent,
    )
  return iter(iterable)


def read_next(
  running: list[Any],
  *,
  start: Callable[[], object],
  restart: Callable[[], object],
) -> Any:
  """Returns the next element; other workers read it where the first failed.

  Args:
    running: holds the iterator that `run` returned, or nothing.
    start: puts an iterator into `running`, which begins at the first element
      that was not returned yet. So a new start changes no element.
    restart: closes the iterator and takes it out of `running`, when its workers
      have failed.

  Raises:
    StopIteration: the elements have ended.
    transient_errors.NotAnswering: reading failed again and again.
    Exception: any other error of reading, or a worker was lost too often.
  """
  began, lost = time.monotonic(), 0
  pauses = storage_retry.pauses()
  while True:
    try:
      if not running:
        start()
      return next(running[0])
    except StopIteration:
      raise
    except Exception as error:
      lost += _is_lost_worker(error)
      if lost > _MOST_LOST_WORKERS or not (
        _is_lost_worker(error) or transient_errors.of_a_library(error)
      ):
        raise
      restart()
      spent, pause = time.monotonic() - began, next(pauses)
      if spent + pause > storage_retry.patience():
        what = 'Reading the data'
        raise storage_retry.not_answering(what, error, spent) from error
      storage_retry.announce('A worker that reads data', error, pause)
    time.sleep(pause)


def _is_lost_worker(error: Exception) -> bool:
  return 'Worker process was terminated unexpectedly' in str(error)


def _end_with_parent(worker_index, worker_count):
  """Makes a worker exit when its parent has ended in any way, and only then."""
  del worker_index, worker_count
  # Ctrl-C interrupts the whole process group. The worker ignores it: the parent
  # saves its state first, and then ends its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  watch = threading.Thread(
    target=_exit_after, args=(os.getppid(),), daemon=True
  )
  watch.start()


def _exit_after(parent):
  # A killed parent cannot notify its workers; without this thread, Grain's
  # workers would wait forever.
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)
