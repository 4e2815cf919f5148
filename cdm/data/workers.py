"""Threads or worker processes that evaluate a Grain data set ahead of time."""

import os
import signal
import threading
import time

import grain
from absl import flags


def run(dataset, *, worker_count, buffer_size):
  """Starts reading; elements come in their own order, whoever made them.

  Args:
    dataset: grain.MapDataset whose elements do not depend on each other.
    worker_count: processes; 0 is two threads of this process.
    buffer_size: elements that are kept ready, by each worker.

  Returns:
    A Grain iterator. Close it: worker processes outlive it otherwise.
  """
  # In a worker, one thread: the processes are parallel already.
  threads = 1 if worker_count else 2
  iterable = dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer_size)
  )
  if worker_count:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own there.
    iterable = iterable.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=worker_count, per_worker_buffer_size=buffer_size
      ),
      worker_init_fn=_follow_parent,
    )
  return iter(iterable)


def _follow_parent(worker_index, worker_count):
  """A worker ends with its parent, however that ends, and not before."""
  del worker_index, worker_count
  # Ctrl-C reaches the whole process group; the parent saves, then ends us.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  watch = threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True)
  watch.start()


def _exit_with(parent):
  # A killed parent tells nobody, and Grain's workers would wait forever.
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)
