"""Downloads a published weight file once, verifies it, and resumes a download.

A complete file has its own name; an incomplete one is NAME.part beside it. The
.part file is deliberately not written atomically: a killed download continues
from the bytes it already has, so they must stay on disk.
"""

import contextlib
import hashlib
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Generator

from cdm.distributed import user_cache
from cdm.models.pretrained import connections
from cdm.reporting import progress

CHUNK_BYTES = 1 << 20
_NO_LINK = getattr(os, 'O_NOFOLLOW', 0)  # Windows has no such flag.
TIMEOUT_SECONDS = 60.0
# Free space, bytes, that a download needs: the largest file, VGG, is 553 MB.
FREE_BYTES = 600 << 20


def fetch(
  url: str,
  sha256: str | None,
  *,
  where: str | os.PathLike | None = None,
  cache: str = 'weights',
  flag: str = '--weights',
  free: int = FREE_BYTES,
) -> pathlib.Path:
  """Downloads a file unless it is already there, and verifies its checksum.

  Args:
    url: address of the file; its last part becomes the file name.
    sha256: the expected SHA-256 in hexadecimal, all 64 digits; None if nobody
      has published it, and the file is then taken as it comes.
    where: folder to download into; None means the user's cache.
    cache: name of the folder in the user's cache.
    flag: option by which a user gives the path instead, for error messages.
    free: space, bytes, that a folder for the download must have.

  Returns:
    The path of the complete file.

  Raises:
    OSError: the file cannot be downloaded; the message says which file to put
      where.
    ValueError: the file has another checksum. If it was just downloaded, it is
      removed.
  """
  name = url.rpartition('/')[2]
  if where is None:
    # A cache that is read-only or full is still read.
    found = user_cache.find(cache, name)
    where = (
      user_cache.folder(cache, free=free) if found is None else found.parent
    )
  where = pathlib.Path(where)
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
def _alone(lock: pathlib.Path) -> Generator[None, None, None]:
  """Lets one process of a machine in at a time, as all write the same file."""
  file = _locked(lock)
  try:
    yield
    # Removed while it is held: who waits for it sees that, and makes another.
    lock.unlink(missing_ok=True)
  finally:
    os.close(file)


def _locked(lock: pathlib.Path) -> int:
  """Returns a descriptor of the lock file, which this process alone holds."""
  while True:
    # A link in place of the lock would have another file opened.
    file = os.open(lock, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
    try:
      import fcntl

      fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):
      return file  # Locks do not work everywhere; the checksum finds damage.
    # Whoever held it before may have removed it: then a third process could
    # make, and hold, another file of this name.
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(file), os.stat(lock)):
        return file
    os.close(file)


def _fetch_whole(
  url: str,
  sha256: str | None,
  path: pathlib.Path,
  part: pathlib.Path,
  flag: str,
) -> None:
  name = path.name
  try:
    _fetch(url, part, name)
  except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
    why = connections.reason(error)
    known = '' if sha256 is None else f' (SHA-256 {sha256})'
    raise OSError(
      f'{name} cannot be fetched ({why}). Fetch {url} on a machine with a '
      f'network and put it at {path}{known}, or give its path '
      f'with {flag}. What was downloaded so far is kept.'
    ) from error
  try:
    verify(part, sha256)
  except ValueError:
    part.unlink()  # resuming the download could not repair it
    raise
  os.replace(part, path)


def verify(path: str | os.PathLike, sha256: str | None) -> None:
  """Raises ValueError unless the file has this SHA-256, of 64 digits.

  Args:
    path: path of the file.
    sha256: its checksum; None accepts every file.
  """
  if sha256 is None:
    return
  actual = digest(path)
  if actual != sha256.lower():
    raise ValueError(
      f'{path} has SHA-256 {actual} instead of {sha256}: it is damaged or '
      'another file. Remove it and start again.'
    )


def digest(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a file in hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _fetch(url: str, part: pathlib.Path, name: str) -> None:
  """Downloads into `part`, after the bytes that it already holds."""
  done = part.stat().st_size if part.exists() else 0
  request = urllib.request.Request(url)
  if done:
    request.add_header('Range', f'bytes={done}-')
  try:
    answer = connections.open_url(request, timeout=TIMEOUT_SECONDS)
  except urllib.error.HTTPError as error:
    if error.code == 416:  # range not satisfiable: no bytes are missing
      return
    raise
  with answer:
    if done and answer.status != 206:
      done = 0  # the server ignored the range and sends the whole file
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
