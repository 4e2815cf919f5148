"""Writes TensorBoard events of scalars and images in a background thread."""

import collections
import concurrent.futures
import os
import socket
import time


class TensorBoard:
  """TensorBoard events through clu, written in one background thread.

  TensorFlow takes seconds to import; in a thread that happens while the
  training step compiles, and not at all if there is nothing to write.
  """

  def __init__(self, directory, *, say, record):
    """Prepares nothing yet; see `prepare`.

    Args:
      directory: where the event files go.
      say: function of one line of text, for the user.
      record: name of the file that holds the same numbers without TensorFlow.
    """
    self._directory = directory
    self._say = say
    self._record = record
    self._pool = concurrent.futures.ThreadPoolExecutor(1, 'tensorboard')
    self._pending = collections.deque()
    self._writer = self._new_writer = self._resumed_at = None
    self._prepared = False

  def prepare(self):
    if not self._prepared:
      self._prepared = True
      self._submit(self._open)

  def _open(self):
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # and its notice
    try:
      import tensorflow as tf
      from clu.metric_writers.summary_writer import SummaryWriter
    except ImportError as error:
      self._say(
        f'TensorBoard events are off: {error}. {self._record} holds the same '
        "numbers; install the extra 'tensorflow' for events."
      )
      return
    # TensorFlow would take the whole memory of every GPU it sees.
    tf.config.set_visible_devices([], 'GPU')
    self._new_writer = lambda: SummaryWriter(str(self._directory))

  def resume(self, step):
    self._submit(self._go_on_after, step)

  def _go_on_after(self, step):
    # Looked for here, after what was to be written before; a new run has
    # nothing to forget.
    if not any(self._directory.glob('events.out.tfevents.*')):
      return
    self._resumed_at = step  # told with the next event, if there is one
    if self._writer is not None:
      self._writer.close()
      self._writer = None

  def _forget_after(self, step):
    """Writes what makes TensorBoard drop the events after `step`.

    A file of its own, because TensorFlow's writers of today cannot write it.
    TensorBoard reads files by name: after those of earlier starts, and before
    the one that goes on.
    """
    import tensorflow as tf

    files = self._directory.glob('events.out.tfevents.*')
    newest = max(int(path.name.split('.')[3]) for path in files)
    while time.time() < newest + 1:  # names tell whole seconds
      time.sleep(0.05)
    now = time.time()
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    again = tf.compat.v1.Event(wall_time=now, step=step + 1, session_log=start)
    version = tf.compat.v1.Event(wall_time=now, file_version='brain.Event:2')
    # Twice: the first that TensorBoard ever sees is no restart to it.
    events = (version, again, again)
    # The host's name begins TensorFlow's own; '-' comes before all of those.
    name = (
      f'events.out.tfevents.{int(now):010d}.-{socket.gethostname()}.'
      f'{os.getpid()}.restart'
    )
    with tf.io.TFRecordWriter(str(self._directory / name)) as file:
      for event in events:
        file.write(event.SerializeToString())

  def _ready(self):
    """-> the writer, opened when it is first needed; None without one."""
    if self._writer is None and self._new_writer is not None:
      if self._resumed_at is not None:
        self._forget_after(self._resumed_at)
        self._resumed_at = None
      self._writer = self._new_writer()
    return self._writer

  def scalars(self, step, values):
    self.prepare()
    self._submit(self._write_scalars, step, values)

  def image(self, step, name, image):
    self.prepare()
    self._submit(self._write_image, step, name, image.copy())

  def _write_scalars(self, step, values):
    writer = self._ready()
    if writer is not None:
      writer.write_scalars(step, values)
      writer.flush()

  def _write_image(self, step, name, image):
    writer = self._ready()
    if writer is not None:
      writer.write_images(step, {name: image})
      writer.flush()

  def _submit(self, work, *args):
    while self._pending and self._pending[0].done():
      self._pending.popleft().result()  # raises what failed in the thread
    self._pending.append(self._pool.submit(work, *args))

  def close(self):
    self._submit(lambda: self._writer and self._writer.close())
    self._pool.shutdown()
    for done in self._pending:
      done.result()
