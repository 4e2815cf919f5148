"""Ends a process that is done, although threads of it wait for ever.

A read of a storage that never answers cannot be interrupted, and Python waits
for the threads of its executors before a process ends. A run that no longer
needs what they read would then hang when all is done, and the other processes
of the run with it.
"""

import atexit
import contextlib
import logging
import os
import sys
import threading

GRACE_S = 30.0  # for threads that do return

_log = logging.getLogger(__name__)


def end_without_them(code: int, *, grace: float = GRACE_S) -> None:
  """Makes this process end soon; call it when nothing is left to do.

  Python first waits for all threads, and then calls what is registered for the
  exit. If the threads do not return, that is called without them.

  Args:
    code: the exit code.
    grace: seconds that threads have.
  """
  returned = threading.Event()
  # What is registered last is called first, once the threads have returned.
  atexit.register(returned.set)
  threading.Thread(
    target=_end, args=(code, grace, returned), name='exit', daemon=True
  ).start()


def _end(code: int, grace: float, returned: threading.Event) -> None:
  if returned.wait(grace):
    return
  _log.warning(
    'The work is done, but threads still wait for a storage that does not '
    'answer. The process ends without them.'
  )
  with contextlib.suppress(Exception):
    atexit._run_exitfuncs()
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(Exception):
      stream.flush()
  os._exit(code)
