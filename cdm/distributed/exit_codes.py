"""Defines the exit codes of the commands, and which error leads to which.

Launchers act on the code. After 75 (EX_TEMPFAIL of sysexits.h) and 77 the same
command can simply be started again, and after 1 too: a GPU that fails and a
runtime that breaks cannot be told from a bug of the program. 0 means that the
work is complete; every other code needs a person to look first. 76
(EX_PROTOCOL) is one of these: where the processes never found each other, an
address is wrong or a host is missing, and another start would wait in vain
again. A run that is started again and again without getting on ends with 2, see
`training.restarts`.
"""

import pathlib
import traceback
from typing import Any, NamedTuple

from cdm.data.files import transient_errors


class ExitCode(NamedTuple):
  """How a command ended.

  Attributes:
    kind: name for people, used in error messages.
    code: exit code of the process, for launchers.
  """

  kind: str
  code: int


COMPLETE = ExitCode('complete', 0)
FAULT = ExitCode('fault of the program', 1)
BAD_INPUT = ExitCode('bad input', 2)
NOT_FINITE = ExitCode('not finite', 3)
DATA_ERROR = ExitCode('data error', 4)
OUT_OF_MEMORY = ExitCode('out of memory', 5)
PREEMPTED = ExitCode('preempted', 75)
# What a restart may mend, perhaps on another host. Nothing was saved.
NO_STORAGE = ExitCode('the storage does not answer', 75)
REPLICAS_DIFFER = ExitCode('devices hold different values', 75)
NO_PROGRESS = ExitCode('no progress', 75)
# What restarts have not mended.
TOO_MANY_RESTARTS = ExitCode('started again too often', 2)
NEVER_JOINED = ExitCode('did not find the other processes', 76)
LOST_PEERS = ExitCode('lost the other processes', 77)
INTERRUPTED = ExitCode('interrupted', 130)


class DataError(Exception):
  """Reading data, decoding it, or a worker process failed.

  It is raised from the original error.
  """

  ending = DATA_ERROR


def data_error(what: str, error: BaseException) -> DataError:
  """Returns a DataError that says what failed and why.

  Args:
    what: the beginning of the message, which says what failed.
    error: the original error. The caller raises the DataError from it.
  """
  return DataError(f'{what}. {type(error).__name__}: {error}')


def annotate(error: Any, text: str) -> None:
  """Adds a line to an error, which is printed with the error.

  Tracebacks show the line as a note, and the command line prints the attribute
  `annotation` below the message.

  Args:
    error: an exception.
    text: the line.
  """
  error.add_note(text)
  # The attribute keeps the line apart from the notes, because JAX and Grain add
  # notes of their own, which are meant for readers of tracebacks.
  error.annotation = text


def classify(error: Any) -> ExitCode:
  """Returns the exit code that an exception leads to.

  The first of these rules that applies decides:

    memory ran out here or in a cause              OUT_OF_MEMORY
    it is a KeyboardInterrupt                      INTERRUPTED
    the instance has an attribute `ending`         that one
    the connection to another process was lost     LOST_PEERS
    it or a cause is an error that may pass        NO_STORAGE
    the class has an attribute `ending`            that one
    the class has a true `is_data_error`           DATA_ERROR
    a ValueError or OSError that cdm raised        BAD_INPUT
    an OSError of the operating system             BAD_INPUT
    anything else                                  FAULT

  `is_data_error` marks the errors of packages that do not know this file.
  `peer_monitor.explain` sets `ending` on an instance, together with `sentence`,
  when the failure of another process caused the error.

  Args:
    error: an exception.
  """
  if any(_is_out_of_memory(e) for e in _chain(error)):
    return OUT_OF_MEMORY
  if isinstance(error, KeyboardInterrupt):
    return INTERRUPTED
  if 'ending' in getattr(error, '__dict__', ()):
    return error.ending
  if any(_is_lost_peer(e) for e in _chain(error)):
    return LOST_PEERS
  if transient_errors.of_the_system(error):
    return NO_STORAGE
  if hasattr(error, 'ending'):
    return error.ending
  if getattr(error, 'is_data_error', False):
    return DATA_ERROR
  if isinstance(error, ValueError | OSError) and _raised_by_cdm(error):
    return BAD_INPUT
  if isinstance(error, OSError) and error.strerror:
    return BAD_INPUT
  return FAULT


def sentence(error: Any) -> str:
  """Returns the message to print for an error that `classify` recognizes."""
  if 'sentence' in getattr(error, '__dict__', ()):
    return error.sentence
  if (
    isinstance(error, OSError) and error.strerror and not _raised_by_cdm(error)
  ):
    where = f'{error.filename}: ' if error.filename else ''
    return f'{where}{error.strerror}.'
  return str(error) or type(error).__name__


def _chain(error: BaseException | None) -> list[BaseException]:
  """Returns the error, its cause, the cause of that, and so on."""
  seen = []
  while error is not None and error not in seen:
    seen.append(error)
    error = error.__cause__
  return seen


def _is_out_of_memory(error: BaseException) -> bool:
  return isinstance(error, MemoryError) or (
    _raised_by_jax(error) and 'RESOURCE_EXHAUSTED' in str(error)
  )


def _is_lost_peer(error: BaseException) -> bool:
  # When the transfer of a small array fails, JAX raises Gloo's message as a
  # ValueError.
  from_gloo = isinstance(error, ValueError) and 'Gloo ' in str(error)
  return from_gloo or (
    _raised_by_jax(error)
    and any(sign in str(error) for sign in _LOST_PEER_MESSAGES)
  )


# Parts of the messages that JAX raises when it has lost another process.
_LOST_PEER_MESSAGES = (
  'Connection closed by peer',
  'Connection reset by peer',
  'Gloo ',
  'coordination service',
  'CoordinationService',
  'heartbeat',
)


def _raised_by_jax(error: BaseException) -> bool:
  # Compares names, because this file must not import JAX: commands that need no
  # JAX import it too.
  return type(error).__name__ in ('JaxRuntimeError', 'XlaRuntimeError')


def _raised_by_cdm(error: BaseException) -> bool:
  """Returns whether the innermost frame of the error lies in the cdm package.

  An error without a traceback counts as raised by cdm.
  """
  frames = traceback.extract_tb(error.__traceback__)
  home = pathlib.Path(__file__).resolve().parents[1]
  if not frames:
    return True
  return home in pathlib.Path(frames[-1].filename).resolve().parents
