"""Processes that do not find each other end in time, in words and by choice."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from cdm.distributed import exit_codes, peer_monitor, rendezvous

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


@pytest.fixture
def listener():
  """-> HOST:PORT at which somebody answers."""
  with socket.create_server(('127.0.0.1', 0)) as server:
    yield f'127.0.0.1:{server.getsockname()[1]}'


def free_address():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return f'127.0.0.1:{probe.getsockname()[1]}'


@pytest.fixture
def wait(monkeypatch):
  """-> rendezvous.wait, by default of one that is never connected."""
  monkeypatch.setattr(peer_monitor, '_abandoned', False)
  monkeypatch.setattr(rendezvous, 'WARN_AFTER_S', 0.2)
  monkeypatch.setattr(rendezvous, 'PROBE_S', 0.05)
  never = threading.Event()

  def run(connect=never.wait, *, address=None, index=1, **more):
    rendezvous.wait(
      connect,
      seconds=1.0,
      address=lambda: address,
      index=lambda: index,
      **more,
    )

  yield run
  never.set()


@pytest.mark.parametrize('index', [0, 1])
def test_an_address_that_does_not_answer_is_warned_of_and_given_up(
  wait, capsys, index
):
  address = free_address()
  with pytest.raises(
    rendezvous.PeersNotFound, match=f'{address} .*Connection refused'
  ) as caught:
    wait(address=address, index=index)
  assert exit_codes.classify(caught.value) is exit_codes.NEVER_JOINED
  assert peer_monitor.must_leave()  # its thread waits on
  warned = capsys.readouterr().err
  assert warned.count(f'process {index} waits for ') == 1
  assert f' at {address}, which does not answer (Connection ref' in warned
  # In the first process, this machine is the right one.
  assert ('means the machine that uses it' in warned) == (index == 1)


def test_who_answers_is_told_from_who_did_not_come(wait, listener, capsys):
  with pytest.raises(rendezvous.PeersNotFound) as caught:
    wait(address=listener)
  assert str(caught.value).startswith(f'Process 0 answers at {listener}, but')
  assert capsys.readouterr().err == ''


def test_an_address_that_is_never_detected_is_named_as_that(wait):
  with pytest.raises(rendezvous.PeersNotFound, match='was not detected within'):
    wait(address=None)


def test_a_request_to_stop_is_heeded_while_waiting(wait):
  start = time.monotonic()
  with pytest.raises(rendezvous.StoppedWaiting) as caught:
    wait(stopped=lambda: exit_codes.PREEMPTED)
  assert time.monotonic() - start < 0.9
  assert exit_codes.classify(caught.value) is exit_codes.PREEMPTED


def test_an_error_of_the_attempt_arrives_and_success_leaves_no_trace(wait):
  def fail():
    raise RuntimeError('no port')

  wait(lambda: None)
  assert not peer_monitor.must_leave()
  with pytest.raises(RuntimeError, match='no port'):
    wait(fail)


@pytest.mark.parametrize('text', ['soon', '0', '-3', 'nan', 'inf', ''])
def test_a_patience_that_is_no_time_is_refused(text):
  with pytest.raises(ValueError, match='CDM_JOIN_SECONDS is .* number of sec'):
    rendezvous.patience({rendezvous.VARIABLE: text})
  assert rendezvous.patience({rendezvous.VARIABLE: '7.5'}) == 7.5


@pytest.mark.parametrize('name', ['http_proxy', 'ALL_PROXY', 'grpc_proxy'])
def test_proxies_are_hidden_while_connecting_and_back_afterwards(
  monkeypatch, capsys, name
):
  for other in os.environ:
    if other.lower().endswith('_proxy'):
      monkeypatch.delenv(other)
  monkeypatch.setenv(name, 'http://proxy:3128')
  monkeypatch.setenv('no_proxy', 'localhost')  # JAX would warn of it too.
  with rendezvous.without_proxies():
    assert name not in os.environ and 'no_proxy' not in os.environ
  assert os.environ[name] == 'http://proxy:3128'
  assert os.environ['no_proxy'] == 'localhost'
  assert f'cdm: warning: {name}: ' in capsys.readouterr().err
  monkeypatch.delenv(name)
  with rendezvous.without_proxies():
    pass
  assert not capsys.readouterr().err


def command(*words, **environment):
  return subprocess.Popen(
    [sys.executable, *words],
    cwd=ROOT,
    env={**os.environ, 'NO_COLOR': '1', **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    encoding='utf-8',
  )


def train(address, index, workdir, **environment):
  return command(
    *('-m', 'cdm', 'train', '--config=configs/smoke.py'),
    *(f'--workdir={workdir}', f'--coordinator_address={address}'),
    *('--num_processes=2', f'--process_id={index}'),
    **environment,
  )


def test_a_run_that_never_joins_ends_in_one_sentence_and_without_abort(
  tmp_path,
):
  process = train(free_address(), 1, tmp_path / 'run', CDM_JOIN_SECONDS='1')
  _, said = process.communicate(timeout=60)
  assert process.returncode == exit_codes.NEVER_JOINED.code == 76
  (line,) = said.splitlines()
  assert line.startswith('cdm: did not find the other processes: Process 0 did')
  assert not (tmp_path / 'run').exists()


def test_sigterm_ends_a_run_that_waits_for_the_others(tmp_path):
  address = free_address()
  process = train(address, 0, tmp_path / 'run')
  while rendezvous.unreachable(address):
    assert process.poll() is None
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=20)
  assert process.returncode == exit_codes.PREEMPTED.code
  assert 'cdm: preempted: asked to stop while waiting' in said


JOIN = """
import sys, time
from cdm.distributed import initialize
initialize.join(sys.argv[1], 2, int(sys.argv[2]))
print('joined', file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_a_proxy_is_bypassed_and_sigterm_ends_a_command_without_steps():
  """JAX takes SIGTERM over, and nobody would ask JAX for it."""
  address = free_address()
  running = [
    command('-c', JOIN, address, str(index), http_proxy='http://127.0.0.1:9')
    for index in range(2)
  ]
  try:
    for process in running:
      assert 'bypasses this proxy' in process.stderr.readline()
      assert process.stderr.readline() == 'joined\n'
    running[1].send_signal(signal.SIGTERM)
    assert running[1].wait(20) == -signal.SIGTERM
  finally:
    for process in running:
      process.kill()
      process.communicate()
