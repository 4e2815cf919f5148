"""What Orbax prints of errors that it raises is dropped, and nothing else."""

import asyncio
import logging
import sys
import types

import pytest

from cdm.checkpointing import orbax_output


@pytest.fixture(autouse=True)
def printed(monkeypatch):
  """-> the errors that are printed after all."""
  errors = []
  monkeypatch.setattr(
    sys, 'unraisablehook', lambda given: errors.append(given.exc_value)
  )
  orbax_output.silence()
  orbax_output.silence()  # Twice is once.
  return errors


def closed_loop():
  """-> the error of a callback that finds its loop closed."""
  loop = asyncio.new_event_loop()
  loop.close()
  with pytest.raises(RuntimeError, match='Event loop is closed') as caught:
    loop.call_soon_threadsafe(print)
  return caught.value


def unraisable(error, trace):
  """-> what Python hands to the hook for an error in a callback from C++."""
  return types.SimpleNamespace(
    exc_type=type(error),
    exc_value=error,
    exc_traceback=trace,
    err_msg=None,
    object=None,
  )


def test_a_callback_that_finds_its_loop_closed_is_not_printed(printed):
  error = closed_loop()
  # TensorStore calls it, so that no frame is of a program.
  sys.unraisablehook(unraisable(error, error.__traceback__.tb_next))
  assert not printed


def test_the_same_error_of_the_program_is_printed(printed):
  error = closed_loop()
  sys.unraisablehook(unraisable(error, error.__traceback__))
  assert printed == [error]


def test_another_error_is_printed(printed):
  error = ValueError('ours')
  sys.unraisablehook(unraisable(error, None))
  assert printed == [error]


@pytest.mark.parametrize(
  ('path', 'is_logged'),
  [('/lib/orbax/checkpoint/serialization.py', False), ('/cdm/ours.py', True)],
)
def test_a_task_that_orbax_gave_up_is_not_logged(caplog, path, is_logged):
  code = compile('raise OSError(28, "full")', path, 'exec')
  try:
    types.FunctionType(code, {})()
  except OSError:
    logging.getLogger('asyncio').exception('Task exception was never retrieved')
  assert bool(caplog.records) == is_logged
