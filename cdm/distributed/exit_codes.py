"""How a command ends: its exit code, its name, and what an error means.

Launchers act on the code: 75 and 76 are to be started again as they are
(EX_TEMPFAIL and EX_PROTOCOL of sysexits.h), 0 is done, all others want a person
first.
"""

import pathlib
import traceback
from typing import NamedTuple


class ExitCode(NamedTuple):
  """A name for people and a code for launchers."""

  kind: str
  code: int


COMPLETE = ExitCode('complete', 0)
FAULT = ExitCode('fault of the program', 1)
BAD_INPUT = ExitCode('bad input', 2)
NOT_FINITE = ExitCode('not finite', 3)
DATA_ERROR = ExitCode('data error', 4)
OUT_OF_MEMORY = ExitCode('out of memory', 5)
PREEMPTED = ExitCode('preempted', 75)
LOST_PEERS = ExitCode('lost the other processes', 76)
INTERRUPTED = ExitCode('interrupted', 130)


class DataError(Exception):
  """Reading, decoding or a worker process failed; caused by the original."""

  ending = DATA_ERROR


def data_error(what, error):
  """-> DataError that says what failed and why; to be raised from `error`."""
  return DataError(f'{what}. {type(error).__name__}: {error}')


def annotate(error, text):
  """Adds a line to what is printed of an error, whoever prints it."""
  error.add_note(text)
  # JAX and Grain add notes too, which are for readers of tracebacks.
  error.annotation = text


def classify(error):
  """-> the Ending that an exception stands for.

  An exception can name its own as the attribute `ending`; one that is given to
  a single exception, with a `sentence`, tells what was behind it. Of the
  others, ValueError and OSError that this package raised are complaints about
  what was given, and so is what the system says about a file; the rest are
  faults of the program.
  """
  if any(_is_out_of_memory(e) for e in _chain(error)):
    return OUT_OF_MEMORY
  if isinstance(error, KeyboardInterrupt):
    return INTERRUPTED
  if 'ending' in getattr(error, '__dict__', ()):
    return error.ending
  if any(_is_lost_peer(e) for e in _chain(error)):
    return LOST_PEERS
  if hasattr(error, 'ending'):
    return error.ending
  if isinstance(error, ValueError | OSError) and _raised_by_cdm(error):
    return BAD_INPUT
  if isinstance(error, OSError) and error.strerror:
    return BAD_INPUT
  return FAULT


def sentence(error):
  """-> what to print of an error whose kind is known."""
  if 'sentence' in getattr(error, '__dict__', ()):
    return error.sentence
  if (
    isinstance(error, OSError) and error.strerror and not _raised_by_cdm(error)
  ):
    where = f'{error.filename}: ' if error.filename else ''
    return f'{where}{error.strerror}.'
  return str(error) or type(error).__name__


def _chain(error):
  """The error and what it was raised from."""
  seen = []
  while error is not None and error not in seen:
    seen.append(error)
    error = error.__cause__
  return seen


def _is_out_of_memory(error):
  return isinstance(error, MemoryError) or (
    _raised_by_jax(error) and 'RESOURCE_EXHAUSTED' in str(error)
  )


def _is_lost_peer(error):
  # Of a small array that is sent around, JAX gives Gloo's words as ValueError.
  sent = isinstance(error, ValueError) and 'Gloo ' in str(error)
  return sent or (
    _raised_by_jax(error)
    and any(sign in str(error) for sign in _LOST_PEER_MESSAGES)
  )


# In what JAX raises when a process that it talks to is gone.
_LOST_PEER_MESSAGES = (
  'Connection closed by peer',
  'Connection reset by peer',
  'Gloo ',
  'coordination service',
  'CoordinationService',
  'heartbeat',
)


def _raised_by_jax(error):
  # By name: this file is read before JAX is wanted.
  return type(error).__name__ in ('JaxRuntimeError', 'XlaRuntimeError')


def _raised_by_cdm(error):
  """True if the innermost frame of the error lies in this package."""
  frames = traceback.extract_tb(error.__traceback__)
  home = pathlib.Path(__file__).resolve().parents[1]
  if not frames:
    return True
  return home in pathlib.Path(frames[-1].filename).resolve().parents
