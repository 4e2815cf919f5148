"""Reads and writes the small objects of a bucket of Google Cloud Storage.

Every object has a generation, a number that changes when it is written. A write
may be bound to one: it fails if another process has written meanwhile, and with
generation 0 if the object exists. That is what locks are made of.

Google's own client asks again, with growing pauses, when the service is busy or
away for a moment.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Generator
from typing import Any, NamedTuple

from cdm.data.files import transient_errors
from cdm.distributed import bucket_folders

CREDENTIALS = (
  'Log in with `gcloud auth application-default login`, or run on a machine '
  'whose service account may use the bucket'
)
_TIMEOUT_S = 60.0  # of one request


class Changed(Exception):
  """The object has another generation than the write was bound to."""


class Entry(NamedTuple):
  """An object in a listing.

  Attributes:
    name: path of the object, relative to the folder that was listed.
    size: bytes.
    generation: see the module.
    updated: when it was written, in seconds since 1970 by the service's clock.
  """

  name: str
  size: int
  generation: int
  updated: float


class Content(NamedTuple):
  """An object that was read; see `Entry`."""

  data: bytes
  generation: int
  updated: float


def check(url: str) -> None:
  """Checks that the bucket of a URL exists and may be read.

  Raises:
    ValueError: it does not exist, or this process may not use it.
    transient_errors.NotAnswering: the service cannot be reached.
  """
  Folder(url).entries(most=1)


class Folder:
  """A folder of a bucket: the objects whose names begin with its path."""

  def __init__(self, url: str):
    """Names the folder; no request is made yet.

    Args:
      url: gs://BUCKET/PATH.
    """
    self.url = url
    self._name, path = bucket_folders.parse(url)
    self._prefix = f'{path}/' if path else ''

  @functools.cached_property
  def _bucket(self) -> Any:
    with _explaining(self.url):
      return _client().bucket(self._name)

  def entries(self, below: str = '', *, most: int | None = None) -> list[Entry]:
    """Returns the objects of a folder, and of all folders in it.

    Args:
      below: path of a folder in this one, with a `/` at its end.
      most: returns no more than this.
    """
    return self._list(below, None, most)[0]

  def level(self, below: str = '') -> tuple[list[Entry], list[str]]:
    """Returns the objects and the folders that are directly in a folder.

    Args:
      below: path of a folder in this one, with a `/` at its end.

    Returns:
      (objects, paths of the folders, which end with `/`).
    """
    return self._list(below, '/', None)

  def _list(self, below, delimiter, most):
    with _explaining(self.url):
      listing = self._bucket.list_blobs(
        prefix=self._prefix + below,
        delimiter=delimiter,
        max_results=most,
        timeout=_TIMEOUT_S,
      )
      blobs = list(listing)
      prefixes = sorted(listing.prefixes)
    start = len(self._prefix)
    found = [
      Entry(
        blob.name[start:],
        blob.size,
        blob.generation,
        blob.updated.timestamp(),
      )
      for blob in blobs
      # Some tools mark an empty folder with an object of its name.
      if not blob.name.endswith('/')
    ]
    return found, [name[start:] for name in prefixes]

  def find(self, name: str) -> Entry | None:
    """Returns an object without its content, or None if there is none."""
    found = self._list(name, '/', 1)[0]
    return next((entry for entry in found if entry.name == name), None)

  def download(self, entry: Entry, path: str | os.PathLike) -> None:
    """Writes an object to a local file and compares its checksum.

    Args:
      entry: the object.
      path: path of the file.

    Raises:
      OSError: the object has changed, or cannot be read.
    """
    from google.api_core import exceptions

    with _explaining(self.url):
      blob = self._bucket.blob(self._prefix + entry.name)
      try:
        blob.download_to_filename(
          os.fspath(path),
          if_generation_match=entry.generation,
          timeout=_TIMEOUT_S,
        )
      except exceptions.PreconditionFailed as error:
        raise OSError(
          f'{self.url}/{entry.name} was written while it was read. Start the '
          'same command again.'
        ) from error

  def read(self, name: str) -> Content | None:
    """Returns an object, or None if there is none of this name."""
    from google.api_core import exceptions

    with _explaining(self.url):
      blob = self._bucket.blob(self._prefix + name)
      try:
        blob.reload(timeout=_TIMEOUT_S)
        data = blob.download_as_bytes(
          timeout=_TIMEOUT_S, if_generation_match=blob.generation
        )
      except exceptions.NotFound as error:
        if 'specified bucket' in str(error):
          raise
        return None
      except exceptions.PreconditionFailed:
        return self.read(name)  # It was written in between.
    return Content(data, blob.generation, blob.updated.timestamp())

  def write(
    self, name: str, data: bytes, *, generation: int | None = None
  ) -> Entry:
    """Writes an object: all of it, or nothing.

    Args:
      name: path of the object.
      data: its content.
      generation: which one is replaced; 0 if the object must not exist; None
        replaces any.

    Returns:
      The new object.

    Raises:
      Changed: the object has another generation.
    """
    from google.api_core import exceptions
    from google.cloud.storage import retry

    with _explaining(self.url):
      blob = self._bucket.blob(self._prefix + name)
      try:
        blob.upload_from_string(
          data,
          content_type='application/octet-stream',
          if_generation_match=generation,
          timeout=_TIMEOUT_S,
          retry=retry.DEFAULT_RETRY,
        )
      except exceptions.PreconditionFailed as error:
        raise Changed(name) from error
    return Entry(name, len(data), blob.generation, blob.updated.timestamp())

  def delete(
    self, name: str, *, generation: int | None = None, patient: bool = True
  ) -> None:
    """Deletes an object, if it exists and has the generation.

    Args:
      name: path of the object.
      generation: which one is deleted; None deletes any.
      patient: whether it is tried again if the service is busy.
    """
    from google.api_core import exceptions
    from google.cloud.storage import retry

    with _explaining(self.url):
      try:
        self._bucket.blob(self._prefix + name).delete(
          if_generation_match=generation,
          timeout=_TIMEOUT_S if patient else 5.0,
          retry=retry.DEFAULT_RETRY if patient else None,
        )
      except (exceptions.NotFound, exceptions.PreconditionFailed):
        pass


@functools.cache
def _client() -> Any:
  from google.cloud import storage

  return storage.Client()


@contextlib.contextmanager
def _explaining(url: str) -> Generator[None]:
  """Context manager that turns errors of the service into one sentence."""
  bucket_folders.prepare()
  try:
    yield
  except Exception as error:
    explained = _explain(url, error)
    if explained is None:
      raise
    raise explained from error


def _explain(url: str, error: Exception) -> Exception | None:
  """Returns the error to raise in place of one of Google's, or None."""
  import requests
  from google.api_core import exceptions
  from google.auth import exceptions as auth

  if isinstance(error, exceptions.NotFound):
    bucket = bucket_folders.parse(url)[0]
    return ValueError(
      f'{url}: there is no bucket {bucket!r}. Create it, or correct the name.'
    )
  unreachable = (
    auth.TransportError,
    requests.RequestException,
    exceptions.ServerError,
    exceptions.TooManyRequests,
    exceptions.RetryError,
  )
  reason = f'{type(error).__name__}: {error}'.splitlines()[0][:160]
  if isinstance(error, unreachable):
    return transient_errors.NotAnswering(
      f'{url} cannot be reached ({reason}). Look at the network, and start the '
      'same command again.'
    )
  no_project = isinstance(error, OSError) and 'Project' in str(error)
  if no_project or isinstance(
    error, auth.GoogleAuthError | exceptions.Unauthorized
  ):
    return ValueError(
      f'{url} cannot be opened, because no usable Google credentials were '
      f'found ({reason}). {CREDENTIALS}.'
    )
  if isinstance(error, exceptions.Forbidden):
    return ValueError(
      f'{url} may not be used by this account ({reason}). It needs the roles '
      f'Storage Object User and Storage Legacy Bucket Reader. {CREDENTIALS}.'
    )
  return None
