"""Every way to end has its code, and an error is called what it is."""

import errno

import jax
import pytest

from cdm import exits, processes, sections
from cdm.train import window


def raised(make):
  try:
    make()
  except BaseException as error:
    return error


def from_memory():
  raise exits.DataError('reading failed') from MemoryError()


def throw(error):
  raise error


FULL = 'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17 bytes.'
ERRORS = {
  'ours': (lambda: sections.require({}, 'train'), exits.BAD_INPUT),
  'of a file': (lambda: open('/nowhere/x'), exits.BAD_INPUT),
  'foreign': (lambda: int('x'), exits.FAULT),
  'bug': (lambda: {}['x'], exits.FAULT),
  'no file': (lambda: throw(OSError('odd')), exits.FAULT),
  'device memory': (
    lambda: throw(jax.errors.JaxRuntimeError(FULL)),
    exits.OUT_OF_MEMORY,
  ),
  'other of XLA': (
    lambda: throw(jax.errors.JaxRuntimeError('INTERNAL: broken')),
    exits.FAULT,
  ),
  'host memory': (lambda: throw(MemoryError()), exits.OUT_OF_MEMORY),
  'memory of a reader': (from_memory, exits.OUT_OF_MEMORY),
  'data': (lambda: throw(exits.DataError('x')), exits.DATA_ERROR),
  'diverged': (lambda: throw(window.Diverged('x', None)), exits.NOT_FINITE),
  'Ctrl-C': (lambda: throw(KeyboardInterrupt()), exits.INTERRUPTED),
}


@pytest.mark.parametrize('name', ERRORS)
def test_an_error_is_called_what_it_is(name):
  make, ending = ERRORS[name]
  assert exits.of(raised(make)) is ending


def test_codes_are_those_that_launchers_know():
  """75, 76: EX_TEMPFAIL, EX_PROTOCOL of sysexits.h; 130: a shell's SIGINT."""
  import os

  endings = [e for e in vars(exits).values() if isinstance(e, exits.Ending)]
  assert sorted(e.code for e in endings) == [0, 1, 2, 3, 4, 5, 75, 76, 130]
  assert exits.PREEMPTED.code == os.EX_TEMPFAIL
  assert exits.LOST.code == os.EX_PROTOCOL


def test_a_lost_process_is_no_fault_of_the_program():
  class JaxRuntimeError(RuntimeError):
    pass

  for text in (
    'FAILED_PRECONDITION: Gloo all-reduce failed: Connection closed by peer',
    'UNAVAILABLE: The tasks have crashed. Check their heartbeat.',
  ):
    assert exits.of(JaxRuntimeError(text)) is exits.LOST
    assert exits.of(RuntimeError(text)) is exits.FAULT
  assert exits.of(JaxRuntimeError('INTERNAL: bug')) is exits.FAULT
  # As JAX raises it where a small array is sent around.
  text = 'UNKNOWN: Gloo all-reduce failed: Read error: Connection reset by peer'
  assert exits.of(ValueError(text)) is exits.LOST
  apart = processes.Apart('The processes of this run did not find each other')
  assert exits.of(apart) is exits.LOST


def test_a_file_is_named_with_what_the_system_says():
  error = OSError(errno.ENOENT, 'No such file or directory', 'a/b')
  assert exits.sentence(raised(lambda: throw(error))) == (
    'a/b: No such file or directory.'
  )
  assert exits.sentence(MemoryError()) == 'MemoryError'
