"""Reads who holds a folder, and decides whether that run still lives.

A process id alone says little: it may have been given to another process since,
and in every container the first process has id 1.

  the same host name, boot (/proc/sys/kernel/random/boot_id) and pid namespace:
    the process is looked up, and its start time compared. It is dead if it is
    gone, is a zombie, or has another start time. A run that was killed can
    thus be started again at once. Without /proc, as on macOS, the program `ps`
    tells state and start.
  otherwise (another machine, or another container, whatever its name is):
    the owner sets the modification time of the file every BEAT_SECONDS. It is
    dead if the file was silent for SILENT_SECONDS. This age is the difference
    of two modification times of the file system, because the clocks of two
    machines may differ. Since some file systems take both times from the
    machines after all, the file must also not change while it is watched for
    WATCH_SECONDS. gcsfuse may show a time that is 60 s old, so SILENT_SECONDS
    is more than that.
"""

import calendar
import errno
import json
import os
import pathlib
import re
import socket
import subprocess
import time
from typing import NamedTuple

BEAT_SECONDS = 5.0
# A thread may be kept from running for half a minute, by the loading of a large
# library on a busy machine.
SILENT_SECONDS = 120.0
WATCH_SECONDS = 3 * BEAT_SECONDS
LOCK = '.cdm-lock'
# Windows has neither flag.
_NO_LINK = getattr(os, 'O_NOFOLLOW', 0)
_NO_WAIT = getattr(os, 'O_NONBLOCK', 0)
ENDING_LINE = b'ending\n'
# A lock is a few hundred bytes; more is not one of ours.
_MOST_BYTES = 4096
_PROC = '/proc'


class Owner(NamedTuple):
  """The process that holds a folder, the content of the file.

  Attributes:
    what: the command, 'cdm train'.
    host: name of the machine.
    boot: id of the boot of its kernel, or ''.
    namespace: pid namespace of the process, or ''.
    pid: process id.
    ticks: start time of the process, in the kernel's units, or -1.
    started: when the folder was taken, in seconds since 1970.
    token: random; another one for every lock.
  """

  what: str
  host: str
  boot: str
  namespace: str
  pid: int
  ticks: int
  started: float
  token: str


class Claim(NamedTuple):
  """A lock file as it was read."""

  owner: Owner | None  # None if the file is damaged, as after a power cut
  token: str
  beat: int  # modification time, ns; in a bucket the generation
  is_ending: bool


def read(path: pathlib.Path) -> Claim | None:
  """Reads a lock file; None if there is none."""
  try:
    # A link is not followed, and a pipe not waited for.
    file = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT)
  except FileNotFoundError:
    return None
  try:
    status, content = os.fstat(file), os.read(file, _MOST_BYTES)
  finally:
    os.close(file)
  beat = status.st_mtime_ns
  return parse(content, beat=beat, damaged=f'damaged-{status.st_ino}-{beat}')


def parse(content: bytes, *, beat: int, damaged: str) -> Claim:
  """Returns the lock that a content of `content` is.

  Args:
    content: what was read.
    beat: a number that changes with every sign of life.
    damaged: the token if the content is damaged. It is the name under which
      only one start may replace the lock.
  """
  line, _, rest = content[:_MOST_BYTES].partition(b'\n')
  owner = _parse(line)
  token = owner.token if owner else damaged
  return Claim(owner, token, beat, rest.startswith(ENDING_LINE))


def _parse(line: bytes) -> Owner | None:
  try:
    fields = json.loads(line)
    owner = Owner(**fields)
  except (ValueError, TypeError, RecursionError):
    return None
  for name, wanted in Owner.__annotations__.items():
    if type(fields[name]) is not wanted:
      return None
  # The token becomes a part of a file name.
  is_sound = owner.pid > 0 and re.fullmatch('[0-9a-f]{16}', owner.token)
  return owner if is_sound else None


def content(what: str, token: str) -> bytes:
  """Returns the content of a lock file that names this process."""
  owner = Owner(
    what=what,
    host=socket.gethostname(),
    boot=_boot(),
    namespace=_namespace(),
    pid=os.getpid(),
    ticks=_state_and_ticks(os.getpid())[1],
    started=round(time.time(), 3),
    token=token,
  )
  return json.dumps(owner._asdict()).encode() + b'\n'


def write_new(path: pathlib.Path, text: bytes) -> None:
  """Writes a file that must not exist yet, not even as a link."""
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
  file = os.open(path, flags, 0o666)
  try:
    try:
      os.write(file, text)
      os.fsync(file)
    finally:
      os.close(file)  # gcsfuse creates the file here, or fails.
  except OSError as error:
    # With this one, gcsfuse says that another machine was faster: the file that
    # is there now belongs to that one.
    if error.errno != errno.ESTALE:
      path.unlink(missing_ok=True)
    raise


def describe(claim: Claim) -> str:
  """Returns the command, host, process id and start of a folder's owner."""
  owner = claim.owner
  if owner is None:
    return f'a run that cannot be named ({LOCK} is damaged)'
  stamp = time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(owner.started))
  text = f'`{owner.what}` on {owner.host} (process {owner.pid}, since {stamp}'
  # What a file says must not steer a terminal.
  return ''.join(c if c.isprintable() else '?' for c in text) + ' UTC)'


def is_here(owner: Owner) -> bool:
  """Whether this process can look up the owner's process id."""
  here = (socket.gethostname(), _boot(), _namespace())
  return (owner.host, owner.boot, owner.namespace) == here


def lives(owner: Owner) -> bool:
  """Whether a process of this machine still runs."""
  try:
    os.kill(owner.pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:
    pass  # It belongs to another user.
  state, ticks = _state_and_ticks(owner.pid)
  if state in ('Z', 'X'):  # It has ended, and its parent has not noticed.
    return False
  return -1 in (ticks, owner.ticks) or ticks == owner.ticks


def _state_and_ticks(pid: int) -> tuple[str, int]:
  """Returns (state, start time) of a process; ('', -1) if nothing tells."""
  try:
    stat = pathlib.Path(_PROC, str(pid), 'stat').read_text(
      errors='replace', encoding='utf-8'
    )
    # The second field, in parentheses, is the name, which may hold anything.
    fields = stat.rpartition(')')[2].split()
    return fields[0], int(fields[19])
  except (OSError, IndexError, ValueError):
    # Without /proc, as on macOS, the program `ps` tells.
    return ('', -1) if os.path.exists(_PROC) else _state_and_start(pid)


def _state_and_start(pid: int) -> tuple[str, int]:
  """Returns (state, start in seconds since 1970) of a process, as ps tells."""
  try:
    done = subprocess.run(
      ['ps', '-o', 'stat=,lstart=', '-p', str(pid)],
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
      env={
        'PATH': os.environ.get('PATH', os.defpath),
        'LC_ALL': 'C',
        'TZ': 'UTC',
      },
      encoding='utf-8',
    )
    state, start = done.stdout.split(maxsplit=1)
    parsed = time.strptime(' '.join(start.split()), '%a %b %d %H:%M:%S %Y')
    return state[0], calendar.timegm(parsed)
  except (OSError, ValueError, IndexError, subprocess.SubprocessError):
    return '', -1


def _boot() -> str:
  try:
    path = pathlib.Path(_PROC, 'sys/kernel/random/boot_id')
    return path.read_text(encoding='utf-8').strip()
  except OSError:
    return ''


def _namespace() -> str:
  try:
    return os.readlink(f'{_PROC}/self/ns/pid')
  except OSError:
    return ''
