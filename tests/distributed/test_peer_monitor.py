"""What ends one process of a run ends all, with its code and its reason."""

import threading
import time

import pytest

from cdm.distributed import exit_codes, peer_monitor


class Store:
  """The key-value store of a coordination service, in this process."""

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    if key in self.values and not allow_overwrite:
      raise RuntimeError('ALREADY_EXISTS')
    self.values[key] = value

  def key_value_try_get(self, key):
    if key not in self.values:
      raise RuntimeError(f'NOT_FOUND: {key}')
    return self.values[key]

  def key_value_dir_get(self, key):
    return [(k, v) for k, v in self.values.items() if k.startswith(key)]


class Member(peer_monitor.PeerMonitor):
  """A process that notes its exit code instead of ending."""

  def __init__(self, store, index, count=2):
    super().__init__(store, index, count, end=self.end)
    self.code, self.heard = None, []
    self.before_end = lambda *words: self.heard.append(words)
    self.left = threading.Event()

  def end(self, code):
    self.code = code
    self.left.set()


@pytest.fixture
def store(monkeypatch):
  monkeypatch.setattr(peer_monitor, 'POLL_INTERVAL_S', 0.01)
  monkeypatch.setattr(peer_monitor, 'HEARTBEAT_INTERVAL_S', 0.01)
  monkeypatch.setattr(peer_monitor, 'HEARTBEAT_TIMEOUT_S', 0.5)
  monkeypatch.setattr(peer_monitor, 'EXIT_GRACE_S', 0.05)
  return Store()


def members(store, count=2):
  made = [Member(store, index, count) for index in range(count)]
  for member in made:
    member.start()
  return made


def test_all_end_with_the_code_and_the_reason_of_the_first(store, capsys):
  first, second, third = members(store, 3)
  second.leave(exit_codes.DATA_ERROR, 'no such file')
  assert first.left.wait(5) and third.left.wait(5)
  assert [first.code, second.code, third.code] == [4, 4, 4]
  assert first.heard == [(exit_codes.DATA_ERROR, 'process 1: no such file')]
  told = capsys.readouterr().err
  assert told.count('cdm: data error: process 1: no such file') == 2


def test_where_the_same_goes_wrong_each_ends_by_itself(store, monkeypatch):
  monkeypatch.setattr(peer_monitor, 'EXIT_GRACE_S', 0.5)
  first, second = members(store)
  second.leave(exit_codes.NOT_FINITE, 'NaN')
  first.leave(exit_codes.NOT_FINITE, 'NaN')
  assert (first.code, second.code) == (3, 3)
  time.sleep(0.1)
  assert not first.heard


def test_the_keeper_of_the_store_ends_last(store, monkeypatch):
  monkeypatch.setattr(peer_monitor, 'EXIT_GRACE_S', 5.0)
  first, second = Member(store, 0), Member(store, 1)
  leaving = threading.Thread(target=first.leave, args=(exit_codes.FAULT, 'x'))
  leaving.start()
  assert not first.left.wait(0.3)
  second.leave(exit_codes.FAULT, 'x')
  assert first.left.wait(5)
  leaving.join()


def test_one_without_a_pulse_is_missed(store):
  first, second = members(store)
  time.sleep(0.7)
  assert not first.left.is_set()  # both beat
  second._ended.set()  # as if it were frozen
  assert first.left.wait(5)
  assert first.code == exit_codes.LOST_PEERS.code
  ((ending, sentence),) = first.heard
  assert ending == exit_codes.LOST_PEERS
  assert sentence.startswith('process 1: it has sent no heartbeat for')


def test_one_whose_work_hangs_is_missed_although_its_thread_lives(store):
  """The pulse tells of the work, and not of the thread that sends it."""
  first, second = members(store)
  works = [True]
  second.is_alive = lambda: works[0]
  time.sleep(0.7)
  assert not first.left.is_set()
  works[0] = False
  assert first.left.wait(5)
  assert first.code == exit_codes.LOST_PEERS.code


def test_one_that_reports_its_hang_ends_the_others_with_its_code(store):
  first, second = members(store)
  second.report(exit_codes.NO_PROGRESS, 'waiting for data for 900 s')
  assert first.left.wait(5)
  assert first.code == exit_codes.NO_PROGRESS.code
  assert first.heard[0][1] == 'process 1: waiting for data for 900 s'
  assert not second.left.is_set()  # It ends itself.


def test_who_ends_as_it_should_ends_nobody(store):
  first, second = members(store)
  closing = threading.Thread(target=second.close)
  closing.start()
  # The first one still writes, longer than anyone may be without a pulse.
  time.sleep(0.8)
  assert closing.is_alive()
  first.close()
  closing.join(5)
  assert not closing.is_alive()
  assert not first.left.is_set()
  assert not second.left.is_set()


def test_a_lost_connection_tells_of_the_failure_behind_it(store, monkeypatch):
  monkeypatch.setattr(peer_monitor, '_monitor', Member(store, 0))
  store.key_value_set('cdm/failed', '[1, "data error", 4, "no such file"]')

  class JaxRuntimeError(RuntimeError):
    pass

  error = JaxRuntimeError('Gloo all-reduce failed')
  assert exit_codes.classify(error) == exit_codes.LOST_PEERS
  peer_monitor.explain(error)
  assert exit_codes.classify(error) == exit_codes.DATA_ERROR
  assert exit_codes.sentence(error) == 'process 1: no such file'
  mine = exit_codes.DataError('my own')
  peer_monitor.explain(mine)
  assert exit_codes.sentence(mine) == 'my own'


def test_a_process_alone_leaves_nobody():
  assert not peer_monitor.is_running()
  peer_monitor.leave(exit_codes.FAULT, 'returns')
