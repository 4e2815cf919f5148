"""Writes TensorBoard events of scalars and images, without TensorFlow."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from cdm.data.files import atomic_files, storage_retry
from cdm.reporting import record_parts

if TYPE_CHECKING:
  from tensorboard.summary.writer.record_writer import RecordWriter


# A mounted bucket writes a whole file again when an event is added to it.
MOST_BYTES = 2**22


class TensorBoard:
  """Writes event files, and creates one when something is to be written.

  A file is closed every few seconds, because object storage that is mounted as
  a folder shows a file once it is closed. After `MOST_BYTES` another begins.

  It uses the protocol buffers and the record writer of the package tensorboard,
  which import no TensorFlow. They are imported at the first event.
  """

  def __init__(self, directory: pathlib.Path):
    """Prepares the writer; nothing is created yet.

    Args:
      directory: folder of the event files.
    """
    self._directory = directory
    self._path: pathlib.Path | None = None  # of the file that is written
    self._file: IO[bytes] | None = None  # None while it is closed
    self._records: RecordWriter | None = None
    self._opened = 0.0  # by the clock of time.monotonic
    self._resumed_at: int | None = None

  def resume(self, step: int) -> None:
    """Makes TensorBoard drop the events after `step`, where the run resumes.

    The marker that does so begins the next file. A new run has nothing to drop.
    """
    self.close()
    if any(self._directory.glob('events.out.tfevents.*')):
      self._resumed_at = step

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes {name: number} of a step."""
    self._write(step, [dict(tag=k, simple_value=v) for k, v in values.items()])

  def image(
    self, step: int, name: str, png: bytes, size: tuple[int, int]
  ) -> None:
    """Writes an image.

    Args:
      step: number of the step.
      name: name of the image.
      png: the image as a PNG file.
      size: its (height, width).
    """
    height, width = size
    image = dict(
      height=height, width=width, colorspace=3, encoded_image_string=png
    )
    self._write(step, [dict(tag=name, image=image)])

  def close(self) -> None:
    """Closes the file; a later event opens another."""
    self._close()
    self._path = None

  def _close(self) -> None:
    if self._file is not None:
      file, self._file, self._records = self._file, None, None
      file.close()

  def _write(self, step: int, values: list[dict[str, Any]]) -> None:
    storage_retry.retried(
      lambda: self._try_to_write(step, values),
      'Writing TensorBoard events',
      until_space=True,
    )

  def _try_to_write(self, step: int, values: list[dict[str, Any]]) -> None:
    """Writes an event; after an error, the next attempt opens another file."""
    try:
      self._event(step=step, summary=dict(value=values))
      assert self._file is not None
      self._file.flush()
      if os.fstat(self._file.fileno()).st_size >= MOST_BYTES:
        self.close()
      elif time.monotonic() - self._opened >= record_parts.CLOSE_S:
        self._close()
    except OSError:
      with contextlib.suppress(OSError):
        self.close()
      self._path = None
      raise

  def _event(self, **fields: Any) -> None:
    if self._path is None:
      self._begin()
    elif self._file is None:
      self._open(self._path, 'ab')
    assert self._records is not None
    event = _protocol().Event(wall_time=time.time(), **fields)
    self._records.write(event.SerializeToString())

  def _open(self, path: pathlib.Path, mode: str) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    self._path, self._file = path, open(path, mode)
    self._records = RecordWriter(self._file)
    self._opened = time.monotonic()

  def _begin(self) -> None:
    """Creates the next file, and begins it with the marker of a restart."""
    self._directory.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files in the order of their names, which hold whole
    # seconds; this one must come after those of earlier starts.
    files = self._directory.glob('events.out.tfevents.*')
    seconds = [int(p.name.split('.')[3]) for p in files if _is_numbered(p)]
    now = max([int(time.time()), *(second + 1 for second in seconds)])
    # In containers, two processes may have the same host name and id.
    own = f'{socket.gethostname()}.{os.getpid()}.{atomic_files.unique_part()}'
    name = f'events.out.tfevents.{now:010d}.{own}'
    self._open(self._directory / name, 'xb')
    self._event(file_version='brain.Event:2')
    if self._resumed_at is None:
      return
    session_log = _protocol().SessionLog
    start = session_log(status=session_log.START)
    # The event is written twice, because TensorBoard ignores the first session
    # start that it reads.
    for _ in range(2):
      self._event(step=self._resumed_at + 1, session_log=start)
    self._resumed_at = None


def _protocol() -> Any:
  """Returns the protocol buffers, whose types type checkers do not know."""
  from tensorboard.compat.proto import event_pb2

  return event_pb2


def _is_numbered(path: pathlib.Path) -> bool:
  parts = path.name.split('.')
  return len(parts) > 3 and parts[3].isdecimal()
