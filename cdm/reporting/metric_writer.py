"""Tells how a run goes: scalars, picture grids, progress.

In the work directory:

  scalars.jsonl     one JSON object per line, {"step": ..., name: number, ...}
  tensorboard/      the same scalars and grids as TensorBoard events
  grids/            NAME_00000500.png

JSONL is the record: it is complete after any kill, and a resumed run cuts off
what lies beyond its checkpoint, so its record equals an uninterrupted one's.
Events cannot be cut; TensorBoard is told from which step on to forget them.
"""

import contextlib
import json
import math
import pathlib
import sys

from cdm.reporting import atomic_files, progress
from cdm.reporting.tensorboard import TensorBoard

SCALARS = 'scalars.jsonl'
# What tells of time and machine, and differs between two runs of one config.
CIRCUMSTANCES = (
  'images_per_second',
  'step_seconds',
  'data_wait_fraction',
  'goodput',
  'mfu',
  'host_memory_bytes',
  'device_memory_bytes',
  'device_memory_fraction',
)


class Reporter:
  """Writes scalars and grids below one work directory.

  Use as a context manager, or call `close`.
  """

  def __init__(
    self, workdir, *, tensorboard=True, active=True, stream=None, quiet=False
  ):
    """Opens the record; nothing of TensorFlow is imported yet.

    Args:
      workdir: created if it does not exist.
      tensorboard: whether to write TensorBoard events too. Where TensorFlow is
        not installed, one line says so and the rest goes on.
      active: False makes a reporter that writes nothing (processes but 0).
      stream: where lines and progress go; stderr by default.
      quiet: no lines and no progress.

    Raises:
      OSError: if the work directory cannot be written.
    """
    self._workdir = pathlib.Path(workdir)
    self._active = active
    self._stream = sys.stderr if stream is None else stream
    self._quiet = quiet or not active
    self._progress = None
    self._file = None
    self._tensorboard = None
    if not active:
      return
    with _writing(self._workdir):
      self._workdir.mkdir(parents=True, exist_ok=True)
      self._file = _open_for_append(self._workdir / SCALARS)
    if tensorboard:
      self._tensorboard = TensorBoard(
        self._workdir / 'tensorboard', say=self.say, record=SCALARS
      )

  def resume(self, step):
    """Drops what was recorded beyond `step`, the step that a run starts at."""
    if not self._active:
      return
    path = self._workdir / SCALARS
    with _writing(self._workdir):
      self._file.close()
      kept = [row for row in read_scalars(path) if row['step'] <= step]
      text = ''.join(_line(row) for row in kept)
      atomic_files.write_text_atomically(path, text)
      self._file = _open_for_append(path)
    if self._tensorboard:
      self._tensorboard.resume(step)

  def prepare(self):
    """Begins, in the background, to import what takes seconds."""
    if self._tensorboard:
      self._tensorboard.prepare()

  def scalars(self, step, values):
    """Records {name: number} at a step. Not finite becomes null."""
    if not self._active:
      return
    values = {name: float(value) for name, value in values.items()}
    with _writing(self._workdir):
      self._file.write(_line({'step': int(step), **values}))
    if self._tensorboard:
      self._tensorboard.scalars(step, values)

  def grid(self, step, name, image):
    """Writes a picture, uint8 [H, W, 3], as PNG and to TensorBoard."""
    if not self._active:
      return None
    # A run that draws nothing needs no Pillow.
    from cdm.reporting import image_files

    path = self._workdir / 'grids' / f'{name}_{int(step):08d}.png'
    with _writing(self._workdir):
      path.parent.mkdir(exist_ok=True)
      image_files.write_png(path, image)
    if self._tensorboard:
      self._tensorboard.image(step, name, image)
    return path

  def say(self, text):
    """Prints a line without breaking the progress bar."""
    if self._quiet:
      return
    if self._progress is not None:
      self._progress.say(text)
    else:
      print(text, file=self._stream, flush=True)

  def start_progress(self, *, total, step, unit_size):
    """Begins progress at `step` of `total`; a step is `unit_size` images."""
    if self._quiet:
      return
    self._progress = progress.Progress(
      total=total,
      initial=step,
      unit='step',
      images=unit_size,
      stream=self._stream,
    )

  def progress(self, step, loss=None):
    """Moves progress to `step`; the last loss given stays on show."""
    if self._progress is not None:
      self._progress.move_to(step, loss)

  def end_progress(self):
    """Ends progress, leaving its last state on show."""
    if self._progress is not None:
      self._progress.close()
      self._progress = None

  def close(self):
    """Ends progress and completes every file."""
    self.end_progress()
    if self._file is not None:
      self._file.close()
    if self._tensorboard is not None:
      self._tensorboard.close()
      self._tensorboard = None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def read_scalars(path):
  """Reads a record.

  Args:
    path: of `scalars.jsonl`; it need not exist.

  Returns:
    list of dicts in the order written. A torn last line, which a kill in the
    middle of a write leaves, is left out.

  Raises:
    ValueError: if any other line is not JSON.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return []
  lines = path.read_text().split('\n')
  rows = []
  for number, line in enumerate(lines[:-1], start=1):
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError as error:
      raise ValueError(
        f'{path}, line {number} is not JSON: {line[:80]!r}. Remove the line '
        'to go on.'
      ) from error
  return rows  # what follows the last newline is torn, or empty


def _line(row):
  finite = {
    k: None if isinstance(v, float) and not math.isfinite(v) else v
    for k, v in row.items()
  }
  return json.dumps(finite) + '\n'


def _open_for_append(path):
  """Opens a record at its last complete line, line-buffered.

  Each line reaches the kernel as it is written, so a kill loses none.
  """
  if path.exists():
    with open(path, 'rb+') as f:
      content = f.read()
      f.truncate(content.rfind(b'\n') + 1)
  return open(path, 'a', buffering=1)


@contextlib.contextmanager
def _writing(workdir):
  """Turns a failed write into one error that says where and what to do."""
  try:
    yield
  except OSError as error:
    raise OSError(
      f'Cannot write the reports of the run in {workdir}: '
      f'{error.strerror or error}. Free space or choose another --workdir.'
    ) from error
