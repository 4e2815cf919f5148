"""Reads records ahead of time, several at once, in threads or processes.

Storage that answers late, as that of a bucket does, is only as fast as the
number of reads that wait for it at the same time. So the records are read by
Grain's threads, one each, and handed over in their order. Where worker
processes read, each takes whole groups of records in turn, so that what a group
holds does not depend on how many workers there are.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import grain
from absl import flags

from cdm.data import memory_budget
from cdm.data.files import storage_retry, transient_errors

GROUPS_AHEAD = 2  # that every worker process keeps ready
_LONGEST_RUN = 8  # records that a thread reads before it hands them over
# A record that kills whoever reads it would otherwise be read for ever.
_MOST_LOST_WORKERS = 3

T = TypeVar('T')


class Reading(NamedTuple):
  """How many records are read ahead; the defaults are Grain's own.

  Attributes:
    threads: records that are being read at once, by all workers together.
    buffer: records that are read or kept ready, by all workers together. It is
      lowered to what `memory_budget.BUFFER_BYTES` holds, but not below
      `threads`.
    worker_count: worker processes; 0 reads in threads of this process.
  """

  threads: int = 16
  buffer: int = 500
  worker_count: int = 0


def run(
  read: Callable[[int, int], Any],
  collate: Callable[[list[Any]], Any],
  *,
  count: int,
  size: int,
  record_bytes: int,
  reading: Reading,
) -> grain.DatasetIterator:
  """Starts to read groups of records.

  The groups come in their order, whichever thread or worker read them. The
  last ones are followed by empty groups where several workers share them out
  unevenly.

  Args:
    read: `read(k, i)` returns record i of group k, None if there is no such
      record, or raises. Several threads call it at once.
    collate: makes a group of the list of its records.
    count: number of groups.
    size: number of records of every group.
    record_bytes: bytes of a record, about.
    reading: how much is read ahead.

  Returns:
    A Grain iterator. Close it; otherwise its worker processes keep running.
  """
  workers = max(1, reading.worker_count)
  options, run_length = read_options(reading, record_bytes, size)
  runs = -(-size // run_length)  # in a group
  # A worker takes every n-th element of Grain's, of the same number n.
  elements = grain.MapDataset.range(-(-count // workers) * workers * runs)
  iterable = (
    elements.map(_InTurns(read, count, size, workers, run_length))
    .to_iter_dataset(options)
    .batch(runs, batch_fn=_Collate(collate))
  )
  if reading.worker_count:
    if not flags.FLAGS.is_parsed():
      # Grain reads its own absl flags when it starts worker processes.
      flags.FLAGS.mark_as_parsed()
    iterable = iterable.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=workers, per_worker_buffer_size=GROUPS_AHEAD
      ),
      worker_init_fn=_end_with_parent,
    )
  return iter(iterable)


def read_options(
  reading: Reading, record_bytes: int, size: int
) -> tuple[grain.ReadOptions, int]:
  """Returns the options of each process that reads, and the length of a run.

  A thread reads so many records one after the other: handing over each of them
  apart would cost more time than reading it where storage is quick.

  Args:
    reading: how much all processes read ahead.
    record_bytes: bytes of a record, about.
    size: number of records of a group.
  """
  workers = max(1, reading.worker_count)
  threads = -(-reading.threads // workers)
  room = memory_budget.BUFFER_BYTES // max(1, record_bytes)
  buffer = -(-max(reading.threads, min(reading.buffer, room)) // workers)
  run_length = max(1, min(_LONGEST_RUN, buffer // threads, size))
  return (
    grain.ReadOptions(
      num_threads=threads, prefetch_buffer_size=-(-buffer // run_length)
    ),
    run_length,
  )


class _InTurns:
  """Maps n to a run of records, such that workers get whole groups in turn.

  Of W workers the w-th reads n = w, w + W, w + 2 W, ...; its groups are w,
  w + W, w + 2 W, ...
  """

  def __init__(self, read, count, size, workers, run_length):
    self._read, self._count = read, count
    self._size, self._workers, self._length = size, workers, run_length

  def __call__(self, n):
    turn, worker = divmod(n, self._workers)
    group, run = divmod(turn, -(-self._size // self._length))
    k = group * self._workers + worker
    if k >= self._count:
      return []
    first = run * self._length
    rows = range(first, min(first + self._length, self._size))
    records = [self._read(k, i) for i in rows]
    return [record for record in records if record is not None]


class _Collate:
  """Makes a group of its runs."""

  def __init__(self, collate):
    self._collate = collate

  def __call__(self, runs):
    return self._collate([record for run in runs for record in run])


def read_next(
  running: list[Any],
  *,
  start: Callable[[], object],
  take: Callable[[Any], T],
  restart: Callable[[], object],
) -> T:
  """Returns what comes next; other workers read it where the first failed.

  Args:
    running: holds the iterator that `run` returned, or nothing.
    start: puts an iterator into `running`, which begins at the first element
      of what was not returned yet. So a new start changes no element.
    take: takes the next elements from the iterator.
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
      return take(running[0])
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
