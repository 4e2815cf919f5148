"""Counts the calls to the file system of a process and of all its threads.

The kernel is asked, by strace, so that what C++ libraries read and write is
counted as well. Only calls about files below one folder count: the modules of
Python, libraries and sockets do not. Bytes of files that are mapped into memory
are not seen.
"""

import collections
import os
import pathlib
import re
import shutil
import subprocess

KINDS = {
  'files opened': ('open', 'openat', 'creat'),
  'stats': (
    *('stat', 'lstat', 'newfstatat', 'statx'),
    *('access', 'faccessat', 'faccessat2'),
  ),
  'listings': ('getdents64',),
  'bytes read': ('read', 'readv', 'pread64', 'preadv', 'preadv2'),
  'bytes written': (
    *('write', 'writev', 'pwrite64', 'pwritev', 'pwritev2'),
    *('sendfile', 'copy_file_range'),
  ),
  'renames': ('rename', 'renameat', 'renameat2'),
  'removals': ('unlink', 'unlinkat', 'rmdir'),
  'folders made': ('mkdir', 'mkdirat'),
  'syncs': ('fsync', 'fdatasync'),
}
_KIND = {call: kind for kind, calls in KINDS.items() for call in calls}
_LINE = re.compile(r'(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)')


def unavailable():
  """-> why calls cannot be counted here, or None if they can."""
  if not shutil.which('strace'):
    return 'strace is not installed; install it with `apt install strace`'
  tried = subprocess.run(
    command('/dev/null', merged=True) + ['true'],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    encoding='utf-8',
    check=False,
  )
  if tried.returncode:
    reason = tried.stderr.strip().splitlines()[-1:] or ['no reason given']
    return f'strace may not watch processes here ({reason[0]})'
  return None


def command(out, merged=False):
  """-> the words to put before a command, so that its calls are recorded.

  Args:
    out: path; every thread writes the file OUT.THREAD.
    merged: whether all write one file, OUT.
  """
  return [
    *('strace', '-f' if merged else '-ff', '--seccomp-bpf', '-qq', '-y'),
    *('-s', '0', '-e', f'trace={",".join(f"?{call}" for call in _KIND)}'),
    *('-e', 'signal=none', '-o', str(out)),
  ]


def count(out, folder):
  """-> {place: {kind: number}} of what `command` has recorded.

  Args:
    out: the same as in `command`.
    folder: path; only calls about files below it count. The place is the first
      part of the path below it, or the first two.
  """
  out = pathlib.Path(out)
  found = collections.defaultdict(collections.Counter)
  below = re.compile(re.escape(_as_written(folder)) + r'/([^>"]*)')
  for path in out.parent.glob(f'{out.name}.*'):
    with open(path, encoding='utf-8', errors='replace') as lines:
      for line in lines:
        _add(found, line, below)
  return {place: dict(kinds) for place, kinds in found.items()}


def _as_written(path):
  """-> a path as strace writes it, bytes that are not ASCII in octal."""
  return ''.join(
    chr(byte) if 32 <= byte < 127 else f'\\{byte:o}'
    for byte in os.fsencode(path)
  )


def _add(found, line, below):
  match = _LINE.match(line)
  where = below.search(line)
  if match is None or where is None:
    return
  call, arguments, result = match[1], match[2], int(match[3])
  kind = _KIND.get(call)
  if kind is None or (call == 'newfstatat' and 'AT_EMPTY_PATH' in arguments):
    return  # The second asks about a file that is open.
  place = '/'.join(where[1].split('/')[:2])
  if kind == 'listings':
    found[place][kind] += result == 0  # The last call of a listing.
  elif not kind.startswith('bytes'):
    found[place][kind] += 1
  elif result > 0:
    found[place][kind] += result
