"""A slow host is named in the record, and said once; nobody waits for it."""

import threading
import time

import pytest

from cdm.distributed import notice_board
from cdm.training import host_spread


class Store:
  """As JAX's coordination service keeps values."""

  def __init__(self):
    self.values, self.down = {}, threading.Event()

  def key_value_set(self, key, value, allow_overwrite=False):
    assert allow_overwrite
    if self.down.is_set():
      raise RuntimeError('UNAVAILABLE')
    self.values[key] = value

  def key_value_dir_get(self, folder):
    return [(k, v) for k, v in self.values.items() if k.startswith(folder)]


def wait_for(condition):
  deadline = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.005)


@pytest.fixture
def run():
  """-> (store, boards, spreads, lines said) of three processes."""
  store, said = Store(), []
  boards = [notice_board.NoticeBoard(store, p, 'test') for p in range(3)]
  spreads = [
    host_spread.HostSpread(board, p, said.append, f'node{p}')
    for p, board in enumerate(boards)
  ]
  return store, boards, spreads, said


def line(wait):
  return {'loss': 1.0, 'step_seconds': 2.0, 'data_wait_fraction': wait}


def leave(store, boards, spreads, waits):
  """All processes write a line; -> what process 0 adds to its own."""
  for process in (2, 1, 0):
    before = boards[0].notes()
    added = spreads[process].add(10, line(waits[process]))
    key = f'cdm/notes/test/{process}'
    wait_for(lambda k=key, w=waits[process]: f'{w}' in store.values.get(k, ''))
  wait_for(lambda: boards[0].notes() is not before)
  return added


def test_the_slowest_process_is_recorded_and_said_once(run):
  store, boards, spreads, said = run
  assert leave(store, boards, spreads, (0.01, 0.02, 0.43)) == {}
  added = leave(store, boards, spreads, (0.01, 0.02, 0.44))
  assert added == {
    'hosts/step_seconds_min': 2.0,
    'hosts/step_seconds_max': 2.0,
    'hosts/step_seconds_max_at': 'process 2 on node2',
    'hosts/data_wait_fraction_min': 0.01,
    'hosts/data_wait_fraction_max': 0.43,
    'hosts/data_wait_fraction_max_at': 'process 2 on node2',
  }
  leave(store, boards, spreads, (0.01, 0.02, 0.43))
  assert said == [
    'step 10: process 2 on node2 has 43% of its time waiting for data; the '
    'least 1% of its time waiting for data'
  ]


def test_a_store_that_does_not_answer_holds_up_nothing(run):
  store, boards, spreads, _ = run
  store.down.set()
  for _ in range(5):
    assert spreads[0].add(10, line(0.1)) == {}
  assert boards[0].notes() == {}
