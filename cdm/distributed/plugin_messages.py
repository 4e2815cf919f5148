"""Keeps what JAX logs while it looks for devices, for errors to quote it.

JAX logs the error of a plugin that fails, with its traceback, and goes on with
CPUs. Where that is an error of the command, one sentence shall say why; in all
other cases JAX's lines appear as they would without this module.
"""

import contextlib
import logging
from collections.abc import Generator

_MOST = 300  # characters of one message that are quoted
_said: list[logging.LogRecord] = []


class _Keeper(logging.Handler):
  def emit(self, record: logging.LogRecord) -> None:
    """Keeps the record."""
    _said.append(record)


@contextlib.contextmanager
def held() -> Generator[None]:
  """Context manager that holds JAX's lines back, and drops them at an error."""
  logger = logging.getLogger('jax')
  handlers, propagates = logger.handlers, logger.propagate
  keeping: list[logging.Handler] = [_Keeper()]
  first = len(_said)
  logger.handlers, logger.propagate = keeping, False
  try:
    yield
  finally:
    logger.handlers, logger.propagate = handlers, propagates
  for record in _said[first:]:
    logger.handle(record)


def errors() -> str:
  """Returns what JAX said of the plugins that failed, '' if none did."""
  texts = [_text(each) for each in _said if each.levelno >= logging.ERROR]
  return '; '.join(dict.fromkeys(texts))


def backend_error(name: str) -> str:
  """Returns why JAX did not start a backend that it tried by itself, or ''.

  Args:
    name: name of the backend, such as 'tpu'.
  """
  from jax._src import xla_bridge

  # There is no public name for it; JAX logs it at a level that is not shown.
  known = getattr(xla_bridge, '_backend_errors', {})
  return _short(known.get(name, ''))


def _text(record: logging.LogRecord) -> str:
  error = record.exc_info[1] if record.exc_info else None
  if error is None:
    return _short(record.getMessage())
  return _short(f'{type(error).__name__}: {error}')


def _short(text: str) -> str:
  return ' '.join(text.split())[:_MOST].rstrip('.')
