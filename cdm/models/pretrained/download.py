"""Fetches a published file once, with a checksum, continuing what broke off.

What is complete lies under its name; what is not, under NAME.part beside it.
That one is not written atomically, on purpose: a download that was killed goes
on from what it has, so what it has must stay.
"""

import contextlib
import hashlib
import os
import pathlib
import urllib.error
import urllib.request

from cdm.reporting import progress

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0


def folder():
  """-> pathlib.Path of the user's cache for weights."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(home) / 'cdm' / 'weights'


def fetch(url, sha256, *, where=None, flag='--weights'):
  """Downloads a file unless it is there.

  Args:
    url: of the file; its last part is the name.
    sha256: hexadecimal digits, all or the first ones, that it must have.
    where: folder; the user's cache by default.
    flag: option by which a user gives the path instead, for complaints.

  Returns:
    pathlib.Path of the whole file.

  Raises:
    OSError: it cannot be fetched; says what to put where.
    ValueError: what was fetched has another checksum; it is removed.
  """
  where = folder() if where is None else pathlib.Path(where)
  name = url.rpartition('/')[2]
  path, part = where / name, where / f'{name}.part'
  if path.exists():
    verify(path, sha256)
    return path
  where.mkdir(parents=True, exist_ok=True)
  with _alone(where / f'.{name}.lock'):
    if not path.exists():
      _fetch_whole(url, sha256, path, part, flag)
  verify(path, sha256)
  return path


@contextlib.contextmanager
def _alone(lock):
  """One process of a machine at a time: they would write one file."""
  with open(lock, 'w') as file:
    try:
      import fcntl

      fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):
      pass  # not everywhere; what goes wrong then the checksum finds
    yield
  lock.unlink(missing_ok=True)


def _fetch_whole(url, sha256, path, part, flag):
  name = path.name
  try:
    _fetch(url, part, name)
  except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
    reason = getattr(error, 'reason', None) or error
    raise OSError(
      f'{name} cannot be fetched ({reason}). Fetch {url} on a machine with a '
      f'network and put it at {path} (SHA-256 {sha256}...), or give its path '
      f'with {flag}. What has come so far is kept.'
    ) from error
  try:
    verify(part, sha256)
  except ValueError:
    part.unlink()  # continuing it would never mend it
    raise
  os.replace(part, path)


def verify(path, sha256):
  """Raises ValueError unless the file has a SHA-256 that begins so."""
  found = digest(path)
  if not found.startswith(sha256.lower()):
    raise ValueError(
      f'{path} has SHA-256 {found}, expected {sha256}: it is damaged or '
      'another file. Remove it and start again.'
    )


def digest(path):
  """-> SHA-256 of a file, hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _fetch(url, part, name):
  done = part.stat().st_size if part.exists() else 0
  request = urllib.request.Request(url)
  if done:
    request.add_header('Range', f'bytes={done}-')
  try:
    answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
  except urllib.error.HTTPError as error:
    if error.code == 416:  # nothing is missing
      return
    raise
  with answer:
    if done and answer.status != 206:
      done = 0  # the server begins anew
    left = answer.headers.get('Content-Length')
    total = done + int(left) if left else done + 1
    with (
      open(part, 'ab' if done else 'wb') as file,
      progress.Progress(
        f'fetching {name}', total=total, initial=done, unit='byte'
      ) as bar,
    ):
      got = done
      while chunk := answer.read(CHUNK_BYTES):
        file.write(chunk)
        got += len(chunk)
        bar.advance(len(chunk))
    if left and got < total:
      raise ConnectionError(f'it broke off after {got:,} of {total:,} bytes')
