"""What Orbax prints of errors that it raises is dropped, and nothing else."""

import asyncio
import logging
import sys
import types

import pytest

from cdm.checkpointing import orbax_output


@pytest.fixture(autouse=True)
def silent(monkeypatch):
  monkeypatch.setattr(sys, 'excepthook', sys.__excepthook__)
  orbax_output.silence()
  orbax_output.silence()  # Twice is once.


def closed_loop():
  """-> the error of a callback that finds its loop closed."""
  loop = asyncio.new_event_loop()
  loop.close()
  with pytest.raises(RuntimeError, match='Event loop is closed') as caught:
    loop.call_soon_threadsafe(print)
  return caught.value


def test_a_callback_that_finds_its_loop_closed_is_not_printed(capsys):
  error = closed_loop()
  # TensorStore calls it, so that no frame is of a program.
  sys.excepthook(RuntimeError, error, error.__traceback__.tb_next)
  assert not capsys.readouterr().err


def test_the_same_error_of_the_program_is_printed(capsys):
  error = closed_loop()
  sys.excepthook(RuntimeError, error, error.__traceback__)
  assert 'Event loop is closed' in capsys.readouterr().err


def test_another_error_is_printed(capsys):
  sys.excepthook(ValueError, ValueError('ours'), None)
  assert 'ValueError: ours' in capsys.readouterr().err


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
