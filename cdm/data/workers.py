"""Evaluates a Grain data set ahead of time, in threads or worker processes."""

import os
import signal
import threading
import time

import grain
from absl import flags


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
