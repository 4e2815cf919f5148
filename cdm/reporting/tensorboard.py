"""Writes TensorBoard events of scalars and images in a background thread."""

import collections
import concurrent.futures
import errno
import os
import pathlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import numpy as np


class TensorBoard:
  """Writes TensorBoard events with clu, in one background thread.

  TensorFlow takes seconds to import. The thread imports it while the training
  step compiles, and only if something is to be written.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    say: Callable[[str], object],
    record: str,
  ):
    """Creates the writer; `prepare` imports TensorFlow.

    Args:
      directory: folder of the event files.
      say: function that shows one line of text to the user.
      record: name of the file that holds the same numbers without TensorFlow.
        The message that TensorFlow is missing mentions it.
    """
    self._directory = directory
    self._say = say
    self._record = record
    self._pool = concurrent.futures.ThreadPoolExecutor(1, 'tensorboard')
    self._pending = collections.deque()
    self._writer: Any = None
    self._new_writer: Callable[[], Any] | None = None
    self._resumed_at: int | None = None
    self._prepared = False

  def prepare(self) -> None:
    """Starts to import TensorFlow in the background thread."""
    if not self._prepared:
      self._prepared = True
      self._submit(self._open)

  def _open(self) -> None:
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # Silences oneDNN.
    try:
      import tensorflow as tf
      from clu.metric_writers.summary_writer import SummaryWriter
    except ImportError as error:
      self._say(
        f'TensorBoard events are off: {error}. {self._record} holds the same '
        "numbers; install the extra 'tensorflow' for events."
      )
      return
    # Otherwise TensorFlow takes the whole memory of every GPU it sees.
    tf.config.set_visible_devices([], 'GPU')
    self._new_writer = lambda: SummaryWriter(str(self._directory))

  def resume(self, step: int) -> None:
    """Makes TensorBoard drop the events after `step`, where the run resumes."""
    self._submit(self._resume_after, step)

  def _resume_after(self, step: int) -> None:
    # The background thread looks for earlier files here, after it has written
    # all pending events. A new run has no such files, and nothing to drop.
    if not any(self._directory.glob('events.out.tfevents.*')):
      return
    self._resumed_at = step  # `_ready` writes it before the next event.
    if self._writer is not None:
      self._writer.close()
      self._writer = None

  def _write_restart(self, step: int) -> None:
    """Writes the event that makes TensorBoard drop the events after `step`.

    The event goes into a file of its own, because TensorFlow's current writers
    cannot write it. TensorBoard reads the files in the order of their names;
    the name of this file sorts after those of earlier starts, and before that
    of the file which the resumed run writes.
    """
    import tensorflow as tf

    files = self._directory.glob('events.out.tfevents.*')
    newest = max(int(path.name.split('.')[3]) for path in files)
    while time.time() < newest + 1:  # Names hold whole seconds.
      time.sleep(0.05)
    now = time.time()
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    again = tf.compat.v1.Event(wall_time=now, step=step + 1, session_log=start)
    version = tf.compat.v1.Event(wall_time=now, file_version='brain.Event:2')
    # The event is written twice, because TensorBoard ignores the first session
    # start that it reads.
    events = (version, again, again)
    # TensorFlow puts the host's name here; '-' sorts before every host's name.
    name = (
      f'events.out.tfevents.{int(now):010d}.-{socket.gethostname()}.'
      f'{os.getpid()}.restart'
    )
    with tf.io.TFRecordWriter(str(self._directory / name)) as file:
      for event in events:
        # The type of TensorFlow's writer is unknown to type checkers.
        file.write(event.SerializeToString())  # ty: ignore[missing-attribute]

  def _ready(self) -> Any:
    """Returns the writer, opened at first use; None without TensorFlow."""
    if self._writer is None and self._new_writer is not None:
      if self._resumed_at is not None:
        self._write_restart(self._resumed_at)
        self._resumed_at = None
      self._writer = self._new_writer()
    return self._writer

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes {name: number} of a step, in the background."""
    self.prepare()
    self._submit(self._write_scalars, step, values)

  def image(self, step: int, name: str, image: 'np.ndarray') -> None:
    """Writes an image, uint8 [H, W, 3], in the background."""
    self.prepare()
    self._submit(self._write_image, step, name, image.copy())

  def _write_scalars(self, step: int, values: Mapping[str, float]) -> None:
    writer = self._ready()
    if writer is not None:
      writer.write_scalars(step, values)
      writer.flush()

  def _write_image(self, step: int, name: str, image: 'np.ndarray') -> None:
    writer = self._ready()
    if writer is not None:
      writer.write_images(step, {name: image})
      writer.flush()

  def _submit(self, work: Callable[..., object], *args: object) -> None:
    while self._pending and self._pending[0].done():
      self._result(self._pending.popleft())
    self._pending.append(self._pool.submit(work, *args))

  def close(self) -> None:
    """Writes the pending events and closes the file."""
    self._submit(lambda: self._writer and self._writer.close())
    self._pool.shutdown()
    for done in self._pending:
      self._result(done)

  def _result(self, done: concurrent.futures.Future[Any]) -> None:
    """Raises the error of the thread, if there was one.

    Raises:
      OSError: the events could not be written; TensorFlow has types of its own.
    """
    try:
      done.result()
    except Exception as error:
      is_of_tensorflow = type(error).__module__.startswith('tensorflow.')
      if not isinstance(error, OSError) and not is_of_tensorflow:
        raise
      full = 'No space left' in str(error)
      reason = os.strerror(errno.ENOSPC) if full else str(error).split('\n')[0]
      raise OSError(
        f'Cannot write the TensorBoard events of the run in {self._directory}: '
        f'{reason}. Free space or choose another --workdir.'
      ) from error
