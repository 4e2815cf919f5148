"""Every way to end has its code, and an error is called what it is."""

import errno

import jax
import pytest

from cdm.config import instantiate
from cdm.distributed import exit_codes, rendezvous
from cdm.training import running_metrics


def raised(make):
  try:
    make()
  except BaseException as error:
    return error


def from_memory():
  raise exit_codes.DataError('reading failed') from MemoryError()


def throw(error):
  raise error


FULL = 'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17 bytes.'
ERRORS = {
  'ours': (lambda: instantiate.require({}, 'train'), exit_codes.BAD_INPUT),
  'of a file': (
    lambda: open('/nowhere/x', encoding='utf-8'),
    exit_codes.BAD_INPUT,
  ),
  'foreign': (lambda: int('x'), exit_codes.FAULT),
  'bug': (lambda: {}['x'], exit_codes.FAULT),
  'no file': (lambda: throw(OSError('odd')), exit_codes.FAULT),
  'device memory': (
    lambda: throw(jax.errors.JaxRuntimeError(FULL)),
    exit_codes.OUT_OF_MEMORY,
  ),
  'other of XLA': (
    lambda: throw(jax.errors.JaxRuntimeError('INTERNAL: broken')),
    exit_codes.FAULT,
  ),
  'host memory': (lambda: throw(MemoryError()), exit_codes.OUT_OF_MEMORY),
  'memory of a reader': (from_memory, exit_codes.OUT_OF_MEMORY),
  'data': (lambda: throw(exit_codes.DataError('x')), exit_codes.DATA_ERROR),
  'diverged': (
    lambda: throw(running_metrics.Diverged('x', None)),
    exit_codes.NOT_FINITE,
  ),
  'Ctrl-C': (lambda: throw(KeyboardInterrupt()), exit_codes.INTERRUPTED),
}


@pytest.mark.parametrize('name', ERRORS)
def test_an_error_is_called_what_it_is(name):
  make, ending = ERRORS[name]
  assert exit_codes.classify(raised(make)) is ending


def test_codes_are_those_that_launchers_know():
  """75, 76: EX_TEMPFAIL, EX_PROTOCOL of sysexits.h; 130: a shell's SIGINT."""
  import os

  endings = [
    e for e in vars(exit_codes).values() if isinstance(e, exit_codes.ExitCode)
  ]
  codes = [0, 1, 2, 2, 3, 4, 5, 75, 75, 75, 75, 76, 77, 130]
  assert sorted(e.code for e in endings) == codes
  assert exit_codes.NO_STORAGE.code == exit_codes.PREEMPTED.code
  assert exit_codes.NO_PROGRESS.code == exit_codes.PREEMPTED.code
  assert exit_codes.REPLICAS_DIFFER.code == exit_codes.PREEMPTED.code
  assert exit_codes.PREEMPTED.code == os.EX_TEMPFAIL
  assert exit_codes.NEVER_JOINED.code == os.EX_PROTOCOL
  assert exit_codes.LOST_PEERS.code == 77


def test_a_lost_process_is_no_fault_of_the_program():
  class JaxRuntimeError(RuntimeError):
    pass

  for text in (
    'FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer',
    'UNAVAILABLE: The tasks have crashed. Check their heartbeat.',
  ):
    assert exit_codes.classify(JaxRuntimeError(text)) is exit_codes.LOST_PEERS
    assert exit_codes.classify(RuntimeError(text)) is exit_codes.FAULT
  assert (
    exit_codes.classify(JaxRuntimeError('INTERNAL: bug')) is exit_codes.FAULT
  )
  # As JAX raises it where a small array is sent around.
  text = 'UNKNOWN: Gloo all-reduce failed: Read error: Connection reset by peer'
  assert exit_codes.classify(ValueError(text)) is exit_codes.LOST_PEERS
  apart = rendezvous.PeersNotFound('Process 0 did not answer')
  assert exit_codes.classify(apart) is exit_codes.NEVER_JOINED


def test_a_file_is_named_with_what_the_system_says():
  error = OSError(errno.ENOENT, 'No such file or directory', 'a/b')
  assert exit_codes.sentence(raised(lambda: throw(error))) == (
    'a/b: No such file or directory.'
  )
  assert exit_codes.sentence(MemoryError()) == 'MemoryError'
