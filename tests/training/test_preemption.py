import os
import signal
import threading

import pytest
from jax.experimental import multihost_utils

from cdm.distributed import collectives, exit_codes, folder_lock
from cdm.training import preemption


class Ended(BaseException):
  """Stands for the end of the process."""


@pytest.fixture
def sent(monkeypatch):
  """The signals that are sent; nothing ends this process."""
  signals = []

  def end(code):
    raise Ended(code)

  monkeypatch.setattr(os, '_exit', end)
  monkeypatch.setattr(os, 'kill', lambda pid, signum: signals.append(signum))
  return signals


@pytest.fixture
def together(monkeypatch):
  """Two processes, which agree to stop where this list says so."""
  agreed = []
  monkeypatch.setattr(collectives, 'process_count', lambda: 2)
  monkeypatch.setattr(
    multihost_utils,
    'reached_preemption_sync_point',
    lambda boundary: boundary in agreed,
  )
  return agreed


@pytest.fixture
def handlers():
  """Puts back the handlers of this process."""
  before = [signal.getsignal(s) for s in preemption.Stop.SIGNALS]
  yield before
  for signum, handler in zip(preemption.Stop.SIGNALS, before, strict=True):
    signal.signal(signum, handler)


@pytest.mark.parametrize(
  ('signum', 'ending'),
  [
    (signal.SIGINT, exit_codes.INTERRUPTED),
    (signal.SIGTERM, exit_codes.PREEMPTED),
  ],
)
def test_the_first_signal_asks_and_the_second_ends(
  sent, capfd, monkeypatch, signum, ending
):
  released = []
  monkeypatch.setattr(folder_lock, 'release_all', lambda: released.append(1))
  stop = preemption.Stop()
  assert not stop.due(1) and not stop.may_leave
  assert stop.asked_to_end() is None
  stop.ask(signum)
  assert stop.due(2) and stop.due(3) and stop.may_leave
  assert stop.asked_to_end() is ending and stop.ending is ending
  assert not sent and not released
  with pytest.raises(Ended) as ended:
    stop.ask(signal.SIGTERM)
  assert ended.value.args == (ending.code,) and released
  name = signal.Signals(signum).name
  assert capfd.readouterr().err == (
    f'\n{name}: finishing the step and saving (again: end at once)\n'
    '\nSIGTERM again: ending at once\n'
  )


def test_handlers_stand_from_the_outermost_context_to_its_end(handlers):
  stop = preemption.Stop()

  def current():
    return [signal.getsignal(s) for s in stop.SIGNALS]

  for _ in range(2):
    with stop as entered:
      assert entered is stop
      assert current() == [stop.ask, stop.ask]
      with stop:
        assert current() == [stop.ask, stop.ask]
      assert current() == [stop.ask, stop.ask]
    assert current() == handlers


def test_another_thread_than_the_main_one_sets_no_handler(handlers):
  def enter():
    with preemption.Stop() as stop:
      found.append([signal.getsignal(s) for s in stop.SIGNALS])

  found = []
  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert found == [handlers]


def test_processes_stop_where_all_have_agreed_to(sent, together, handlers):
  stop = preemption.Stop()
  stop.agree()
  stop.ask(signal.SIGINT)
  assert sent == [signal.SIGTERM]  # by which JAX tells the others
  assert not stop.due(1) and not stop.may_leave
  together.append(2)
  assert stop.due(2)
  assert stop.due(3)  # JAX says so once only
  assert stop.ending is exit_codes.INTERRUPTED


def test_a_process_that_was_told_by_the_others_is_preempted(
  sent, together, handlers
):
  stop = preemption.Stop()
  stop.agree()
  together.append(1)
  assert stop.due(1)
  assert stop.signum == signal.SIGTERM and not sent
  assert signal.getsignal(signal.SIGTERM) == stop.ask
  assert stop.asked_to_end() is exit_codes.PREEMPTED


def test_a_signal_before_they_joined_is_passed_on(sent, together):
  early = preemption.Stop()
  early.ask(signal.SIGTERM)
  assert not sent
  early.agree()
  assert sent == [signal.SIGTERM]


def test_one_process_asks_nobody(sent):
  stop = preemption.Stop()
  stop.ask(signal.SIGTERM)
  stop.agree()
  assert not sent and stop.due(1) and stop.may_leave
