"""The thread that writes: in order, bounded, and whole or given up."""

import contextlib
import threading

import pytest

from cdm.sampling import background_writer
from cdm.sampling.background_writer import BackgroundWriter


def test_batches_are_written_in_order_while_the_caller_goes_on():
  """The caller waits only for more than `AHEAD` batches."""
  may_write, written = threading.Event(), []

  def consume(batches):
    for batch in batches:
      may_write.wait()
      written.append(batch)

  with BackgroundWriter(consume) as writer:
    for n in range(1 + background_writer.AHEAD):  # One is in the thread.
      writer.put(n)
    assert not written
    may_write.set()
    writer.put(9)
  assert written == [*range(1 + background_writer.AHEAD), 9]


@pytest.mark.parametrize('more', [0, 50])
def test_an_error_of_the_thread_ends_the_caller(more):
  def consume(batches):
    next(batches)
    raise OSError('the disk is full')

  with pytest.raises(OSError, match='the disk is full'):
    with BackgroundWriter(consume) as writer:
      for n in range(1 + more):
        writer.put(n)


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError])
def test_an_error_of_the_caller_undoes_what_is_half_written(error):
  undone, finished = [], []

  @contextlib.contextmanager
  def file():
    try:
      yield
    except BaseException as error:
      undone.append(type(error))
      raise

  def consume(batches):
    with file():
      for batch in batches:
        finished.append(batch)

  with pytest.raises(error):
    with BackgroundWriter(consume) as writer:
      writer.put(1)
      raise error
  assert len(undone) == 1
  assert threading.active_count() == 1 or not [
    t for t in threading.enumerate() if t.name == 'background writer'
  ]
