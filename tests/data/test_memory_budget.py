"""Threads that decode share a budget, and nobody waits forever."""

import threading
import time

import numpy as np
import pytest

from cdm.data import memory_budget


def most_at_once(budget, needs):
  """-> the largest sum of needs that threads held at the same time."""
  lock, held, most = threading.Lock(), 0, 0

  def work(need):
    nonlocal held, most
    with budget.reserve(need):
      with lock:
        held += need
        most = max(most, held)
      time.sleep(0.01)
      with lock:
        held -= need

  threads = [
    threading.Thread(target=work, args=(n,), daemon=True) for n in needs
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(20)
    assert not thread.is_alive()
  return most


@pytest.mark.parametrize('needs', [[40] * 8, [100] * 4, [10, 90, 30, 70] * 3])
def test_threads_hold_no_more_than_the_budget(needs):
  assert most_at_once(memory_budget.MemoryBudget(100), needs) <= 100


def test_what_exceeds_the_budget_is_done_alone():
  assert (
    most_at_once(memory_budget.MemoryBudget(100), [500, 60, 500, 60]) <= 500
  )


def test_small_needs_are_served_at_the_same_time():
  assert most_at_once(memory_budget.MemoryBudget(100), [25] * 12) > 25


def test_a_failure_returns_what_was_reserved():
  budget = memory_budget.MemoryBudget(100)
  with pytest.raises(ValueError, match='inside'), budget.reserve(90):
    raise ValueError('inside')
  assert most_at_once(budget, [100]) == 100
  assert budget._used == budget._active == 0


def test_large_images_count_until_they_are_freed():
  budget = memory_budget.MemoryBudget(2**27)
  image = np.empty(2**26, np.uint8)
  budget.count_until_freed(image)
  budget.count_until_freed(np.empty(9, np.uint8))
  assert budget._used == 2**26
  # They slow the others down and never stop them.
  assert most_at_once(budget, [2**26 + 1] * 3) == 2**26 + 1
  del image
  assert budget._used == 0
