"""One or several processes on this machine.

One process drives all accelerators of a machine, so the default is one;
several are for trying a multi-process run out. What was preempted (exit code
75) or killed is started again, and a few times what ended with a fault (1).
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from targets import environment
from targets.plan import (
  FAULT,
  LOST,
  PREEMPTED,
  ROOT,
  CannotStart,
  Plan,
  positive,
  start,
)

# Seconds. A run that was told to stop saves first; one that lost a process
# cannot, because saving takes all of them.
SAVING, NOT_SAVING = 300.0, 15.0
PAUSE = 1.0
WHAT = {
  PREEMPTED: 'was preempted',
  LOST: 'lost a process',
  FAULT: 'ended with a fault',
}
# Of a GPU it may pass, of a bug it does not: this often in a row.
MOST_FAULTS = 3


def arguments(parser):
  """Adds this target's options."""
  parser.add_argument(
    '--processes', type=positive, default=1, metavar='P', help='default: 1'
  )
  parser.add_argument(
    '--restarts', type=int, default=50, metavar='N', help='at most; default: 50'
  )
  parser.add_argument(
    '--python', default=default_python(), metavar='PATH', help='that has cdm'
  )


def default_python():
  """-> the environment that launch/setup.sh makes, or who runs this."""
  own = ROOT / (os.environ.get('CDM_VENV') or '.venv') / 'bin' / 'python'
  return str(own) if own.exists() else sys.executable


def plan(args):
  """-> one command for each process."""
  command = [args.python, '-m', 'cdm', *args.cdm]
  plain, secret = environment.variables(args, {})
  given = {**plain, **secret}
  if args.processes == 1:
    return Plan([command], environment=given)
  joined = [
    [
      *command,
      f'--coordinator_address=127.0.0.1:{args.port}',
      f'--num_processes={args.processes}',
      f'--process_id={index}',
    ]
    for index in range(args.processes)
  ]
  note = (
    f'{args.processes} processes at the same time; started again, all of them '
    f'and at\nmost {args.restarts} times, when one was preempted (75) or killed'
  )
  return Plan(joined, note=note, environment=given)


def free_port():
  """-> a port that nobody listens on."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def run(args):
  """Runs the processes until they are complete; starts them again if need be.

  Returns:
    0, or the exit code of the process that first ended otherwise (128 + n if
    signal n killed it).
  """
  group = Group()
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, group.tell)
  faults = 0
  for restart in range(args.restarts + 1):
    if restart:
      args.port = free_port()  # The old one may still be held for a while.
    planned = plan(args)
    code = group.run(planned.commands, planned.environment)
    faults = faults + 1 if code == FAULT else 0
    again = (code in WHAT or code < 0) and faults <= MOST_FAULTS
    if group.told or restart == args.restarts or not again:
      break
    what = WHAT.get(code, f'died of signal {-code}')
    print(
      f'launch.py: the run {what}; restart {restart + 1} of {args.restarts}.',
      file=sys.stderr,
      flush=True,
    )
    time.sleep(PAUSE)
    if group.told:
      break
  return code if code >= 0 else 128 - code


class Group:
  """Processes that live and die together."""

  def __init__(self):
    self.processes = []
    self.told = []  # signals to the launcher: told to stop, it starts no more

  def tell(self, number, _=None):
    """Hands a signal of the launcher on to all that still run."""
    self.told.append(number)
    self.signal(number)

  def signal(self, number):
    for process in self.processes:
      process.send_signal(number)

  def run(self, commands, variables):
    """Runs one process per command, and ends all when one ended badly.

    Args:
      commands: [[word, ...], ...].
      variables: {name: value}, beside those of the launcher.

    Returns:
      The first exit code that was not 0, -n for signal n; or 0.
    """
    # In sessions of their own: a Ctrl-C then comes once, from here, and not a
    # second time from the terminal. The second one means: at once.
    self.processes = []
    try:
      for command in commands:
        process = start(
          command,
          env={**os.environ, **variables},
          stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          start_new_session=True,
        )
        self.processes.append(process)
    except CannotStart:
      self.signal(signal.SIGKILL)
      raise
    printers = [
      threading.Thread(target=print_marked, args=(index, process.stdout))
      for index, process in enumerate(self.processes)
    ]
    for printer in printers:
      printer.start()
    code = self.first_failure()
    if not self.ended_within(SAVING if code == PREEMPTED else NOT_SAVING):
      self.signal(signal.SIGTERM)
      if not self.ended_within(NOT_SAVING):
        self.signal(signal.SIGKILL)
    for process, printer in zip(self.processes, printers, strict=True):
      process.wait()
      printer.join()
    return code

  def first_failure(self):
    """Waits for a process to end badly, or all well. -> its code, or 0."""
    while not any(codes := self.codes()) and None in codes:
      time.sleep(0.05)
    # Who outlives a lost process ends too, at once and as a fault: the cause
    # is the one that was killed or preempted.
    time.sleep(0.2 if any(codes) else 0)
    failures = [code for code in self.codes() if code]
    return min(failures, key=cause_first, default=0)

  def codes(self):
    return [process.poll() for process in self.processes]

  def ended_within(self, seconds):
    """-> True once all have ended, False if they have not in that time."""
    end = time.monotonic() + seconds
    while None in self.codes():
      if time.monotonic() > end:
        return False
      time.sleep(0.05)
    return True


def cause_first(code):
  """Sorts exit codes: killed, then preempted, then the others."""
  order = [PREEMPTED, LOST]
  return 0 if code < 0 else 1 + order.index(code) if code in order else 3


def print_marked(index, stream):
  """Prints the lines of one process behind [index]."""
  for line in stream:
    text = line.decode(errors='replace').rstrip('\r\n')
    # In one piece, or two processes would share a line.
    sys.stdout.write(f'[{index}] {text}\n')
    sys.stdout.flush()
