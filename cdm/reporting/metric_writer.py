"""Records a run's scalars and image grids, and shows its progress.

It writes into the work directory:

  scalars.jsonl     one JSON object per line, {"step": ..., name: number, ...};
                    the newest part of them, see `record_parts`
  tensorboard/      the same scalars and grids as TensorBoard events
  grids/            NAME_00000500.png

`scalars.jsonl` is the authoritative record. It is complete after any kill, and
a resumed run removes the lines beyond its checkpoint, so that its record equals
that of an uninterrupted run. Event files cannot be shortened; instead a marker
makes TensorBoard drop the events after the step at which the run resumed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import sys
from collections.abc import Generator, Mapping
from typing import (
  TYPE_CHECKING,
  Any,
  NotRequired,
  Protocol,
  Self,
  TextIO,
  TypedDict,
)

from cdm.data.files import storage_retry, transient_errors
from cdm.reporting import progress, record_parts
from cdm.reporting.tensorboard import TensorBoard

if TYPE_CHECKING:
  import numpy as np

SCALARS = 'scalars.jsonl'
GRIDS = 'grids'


def host_names(scalar: str) -> tuple[str, str, str]:
  """Returns the names of the least and the largest over the processes of a run.

  The third is that of the text that says which process has the largest.
  """
  start = f'hosts/{scalar}'
  return f'{start}_min', f'{start}_max', f'{start}_max_at'


# These scalars depend on time and machine, so they differ between two runs of
# one config.
CIRCUMSTANCES = (
  'images_per_second',
  'step_seconds',
  'data_wait_fraction',
  'goodput',
  'evaluation_fraction',
  'start_seconds',
  'mfu',
  'host_memory_bytes',
  'device_memory_bytes',
  'device_memory_fraction',
  *host_names('step_seconds'),
  *host_names('data_wait_fraction'),
  *host_names('host_memory_bytes'),
)


class Record(TypedDict):
  """One line of scalars.jsonl; it has further scalars, by their names.

  Attributes:
    step: number of the step.
    loss: the training loss, None if it is not finite; absent in the lines of
      an evaluation.
    images_per_second: the rate of training.
  """

  step: int
  loss: NotRequired[float | None]
  images_per_second: NotRequired[float | None]


class Writer(Protocol):
  """A copy of the record elsewhere, such as `tensorboard.TensorBoard`."""

  def resume(self, step: int) -> None: ...

  def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

  def image(
    self, step: int, name: str, png: bytes, size: tuple[int, int]
  ) -> None: ...

  def close(self) -> None: ...


class Reporter:
  """Writes scalars and image grids below one work directory.

  Use as a context manager, or call `close`.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    tensorboard: bool = True,
    active: bool = True,
    stream: TextIO | None = None,
    quiet: bool = False,
  ):
    """Opens the record.

    Args:
      workdir: work directory; created if it does not exist.
      tensorboard: whether to write TensorBoard events too.
      active: False makes a reporter that writes nothing, for the processes
        other than process 0.
      stream: where lines and progress are printed; stderr by default.
      quiet: True prints neither lines nor progress.

    Raises:
      OSError: if the work directory cannot be written.
    """
    self._workdir = pathlib.Path(workdir)
    self._active = active
    self._stream = sys.stderr if stream is None else stream
    self._quiet = quiet or not active
    self._progress: progress.Progress | None = None
    self._record: record_parts.RecordParts | None = None
    self._writers: list[Writer] = []
    if not active:
      return
    with _writing(self._workdir):
      self._workdir.mkdir(parents=True, exist_ok=True)
      self._record = record_parts.RecordParts(self._workdir / SCALARS)
    if tensorboard:
      self.add_writer(TensorBoard(self._workdir / 'tensorboard'))

  def add_writer(self, writer: Writer) -> None:
    """Sends everything to one more writer, if the reporter is active."""
    if self._active:
      self._writers.append(writer)

  def resume(self, step: int) -> None:
    """Removes the records after `step`, the step at which the run resumes."""
    if self._record is None:
      return
    with _writing(self._workdir):
      self._record.cut(step, Record, _line)
      for writer in self._writers:
        writer.resume(step)

  def rows(self, since: int = 0) -> list[dict[str, Any]]:
    """Returns the lines on record; [] if the reporter is not active.

    Args:
      since: the first step whose lines are wanted; parts of the record that end
        before it are not read.
    """
    if not self._active:
      return []
    return record_parts.read_since(self._workdir / SCALARS, Record, since)

  def has_grid(self, step: int, name: str) -> bool:
    """Returns whether the image grid of a step is on record."""
    return self._active and self._grid_path(step, name).exists()

  def _grid_path(self, step: int, name: str) -> pathlib.Path:
    return self._workdir / GRIDS / f'{name}_{int(step):08d}.png'

  def scalars(self, step: int, values: Mapping[str, Any]) -> None:
    """Records the scalars of a step.

    Args:
      step: number of the step.
      values: {name: number}. A number that is not finite is recorded as null. A
        text, as the name of a machine is, is for the record alone.
    """
    if self._record is None:
      return
    texts = {k: text for k, text in values.items() if isinstance(text, str)}
    numbers = {k: float(v) for k, v in values.items() if k not in texts}
    with _writing(self._workdir):
      record, text = (
        self._record,
        _line({'step': int(step), **numbers, **texts}),
      )
      storage_retry.retried(
        lambda: record.write(text),
        f'Writing {self._workdir / SCALARS}',
        until_space=True,
      )
      for writer in self._writers:
        writer.scalars(int(step), numbers)

  def grid(
    self, step: int, name: str, image: np.ndarray
  ) -> pathlib.Path | None:
    """Writes an image grid as PNG, and to the other writers.

    Args:
      step: number of the step.
      name: name of the grid, which begins the name of its file.
      image: uint8 [H, W, 3].

    Returns:
      Path of the PNG file, or None if the reporter is not active.
    """
    if not self._active:
      return None
    path = self._grid_path(step, name)
    with _writing(self._workdir):
      storage_retry.retried(
        lambda: self._write_grid(path, image),
        f'Writing {path}',
        until_space=True,
      )
      if self._writers:
        png, (height, width) = path.read_bytes(), image.shape[:2]
        for writer in self._writers:
          writer.image(int(step), name, png, (height, width))
    return path

  def _write_grid(self, path: pathlib.Path, image: np.ndarray) -> None:
    # Imported here, because a run without image grids needs no Pillow.
    from cdm.reporting import image_files

    path.parent.mkdir(exist_ok=True)
    image_files.write_png(path, image)

  def say(self, text: str) -> None:
    """Prints a line without breaking the progress bar."""
    if self._quiet:
      return
    if self._progress is not None:
      self._progress.say(text)
    else:
      print(text, file=self._stream, flush=True)

  def start_progress(self, *, total: int, step: int, unit_size: int) -> None:
    """Starts to show progress.

    Args:
      total: number of steps of the whole run.
      step: number of steps that are done already.
      unit_size: number of images per step.
    """
    if self._quiet:
      return
    self._progress = progress.Progress(
      total=total,
      initial=step,
      unit='step',
      images=unit_size,
      stream=self._stream,
    )

  def progress(self, step: int, loss: float | None = None) -> None:
    """Moves progress to `step`; if no loss is given, the last one is shown."""
    if self._progress is not None:
      self._progress.move_to(step, loss)

  def end_progress(self) -> None:
    """Ends progress; its last state stays visible."""
    if self._progress is not None:
      self._progress.close()
      self._progress = None

  def close(self) -> None:
    """Ends progress, and flushes and closes every file."""
    self.end_progress()
    if self._record is not None:
      self._record.close()
    writers, self._writers = self._writers, []
    with _writing(self._workdir):
      for writer in writers:
        writer.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self, _: object, error: BaseException | None, __: object
  ) -> None:
    try:
      self.close()
    except OSError:
      # On a full disk, this would hide what has ended the run.
      if error is None:
        raise


def read_scalars(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads the record of a run, all of its parts.

  Args:
    path: path of `scalars.jsonl`; if there is no such file, nor an older part
      of it, the list is empty.

  Returns:
    The lines as dicts, see `Record`, in the order written. An incomplete last
    line, which a kill in the middle of a write leaves, is left out, and so is
    a damaged line, which a warning names.
  """
  return record_parts.read(path, Record)


def _line(row: Mapping[str, Any]) -> str:
  finite = {
    k: None if isinstance(v, float) and not math.isfinite(v) else v
    for k, v in row.items()
  }
  return json.dumps(finite) + '\n'


@contextlib.contextmanager
def _writing(workdir: pathlib.Path) -> Generator[None]:
  """Turns a failed write inside into one error with the place and a remedy."""
  try:
    yield
  except transient_errors.NotAnswering:
    raise
  except OSError as error:
    raise OSError(
      f'Cannot write the reports of the run in {workdir}: '
      f'{error.strerror or error}. Free space or choose another --workdir.'
    ) from error
