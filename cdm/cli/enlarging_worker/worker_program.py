"""Reads and draws pictures for `cdm serve`, as a process of its own.

See `cdm.cli.web.enlarging.worker_process` for what it is told and what it says.
It ends by itself when nobody can tell it anything any more.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import traceback
from typing import Any, Protocol

from absl import logging

from cdm.cli.enlarging_worker.task_report import Cancelled, Report, Speaker
from cdm.cli.web.enlarging.serving_limits import ServingLimits


class Tasks(Protocol):
  """What the worker can do.

  Attributes:
    about: what it says of its model.
  """

  about: dict[str, Any]

  def run(self, request: dict[str, Any], report: Report) -> dict[str, Any]: ...


def main() -> None:
  """Opens the model that the first argument describes, and does tasks."""
  given = json.loads(sys.argv[1])
  speak = _speaker()
  requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
  cancelled: set[int] = set()
  listener = threading.Thread(
    target=_listen, args=(requests, cancelled), daemon=True
  )
  listener.start()
  limits = ServingLimits(**given.pop('limits'))
  # What libraries say names files of users, for whom this is no place.
  logging.set_verbosity(logging.ERROR)
  try:
    tasks = _opened(given, limits)
  except Exception as error:
    speak({'refused': _sentence(error)})
    return
  limit_memory(limits.memory_bytes)
  speak({'ready': tasks.about})
  while True:
    request = requests.get()
    number = request.pop('number')
    report = Report(speak, number, cancelled)
    try:
      report.check()
      with open(os.devnull, 'w', encoding='utf-8') as nowhere:
        with contextlib.redirect_stderr(nowhere):  # progress, for terminals
          done = tasks.run(request, report)
      speak({'number': number, 'done': done})
    except Cancelled:
      speak({'number': number, 'cancelled': True})
    except Exception as error:
      speak({'number': number, 'error': _sentence(error)})


def _opened(given, limits) -> Tasks:
  """Opens the model."""
  from cdm.distributed import compilation_cache, platforms

  platforms.require()
  compilation_cache.enable_compilation_cache()
  if given['samples'] is not None:
    from cdm.cli.enlarging_worker import cascade_tasks

    return cascade_tasks.opened(given)
  from cdm.cli.enlarging_worker import photograph_tasks

  return photograph_tasks.opened(given, limits)


def limit_memory(count: int) -> None:
  """Lets this process take so many more bytes of addresses than it has.

  What it has is the model, its programs, and what a driver has reserved.
  """
  try:
    import resource
  except ImportError:  # Not a Unix.
    return
  with (
    contextlib.suppress(OSError),
    open('/proc/self/statm', encoding='ascii') as file,
  ):
    pages = int(file.read().split()[0])
    most = pages * os.sysconf('SC_PAGE_SIZE') + count
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
      most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _speaker():
  """Returns the `Speaker` of standard output, where nothing else is written."""
  own = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 1)
  return Speaker(own)


def _listen(requests, cancelled):
  """Takes messages until there is nobody to send one; then ends all."""
  for line in sys.stdin:
    message = json.loads(line)
    if 'cancel' in message:
      cancelled.add(message['cancel'])
    else:
      requests.put(message)
  os._exit(0)


def _sentence(error):
  """Returns what a user is told of an error."""
  from cdm.distributed import exit_codes

  code = exit_codes.classify(error)
  if code == exit_codes.OUT_OF_MEMORY:
    return (
      'There is not enough memory for this. Try a smaller picture or a smaller '
      'size.'
    )
  if code == exit_codes.FAULT:
    traceback.print_exception(error, file=sys.__stderr__)
    return f'This did not work ({type(error).__name__}).'
  return exit_codes.sentence(error)


if __name__ == '__main__':
  main()
