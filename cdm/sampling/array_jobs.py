"""Plans how arrays are enlarged: their values, their pictures, their size."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.data.arrays import (
  array_file,
  array_kinds,
  array_marks,
  array_writer,
  stored_values,
  value_range,
)
from cdm.data.arrays.array_file import ArrayFile
from cdm.data.arrays.array_layout import Layout
from cdm.data.arrays.value_range import ValueRange
from cdm.data.printable_name import printable
from cdm.distributed import collectives
from cdm.sampling import canvas_plan, enlarged_jobs, enlarged_size, own_results
from cdm.sampling.array_rows import Unit
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_inputs import ArrayInput
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlargement import Enlargement

_BAND = 256  # rows that are looked at at once
# Values that fill less of the range of their dtype are pointed out.
_SMALL_PART = 0.25


class Values(NamedTuple):
  """How the values of arrays are understood.

  Attributes:
    range: (low, high) that become -1 and 1; None takes those of the training
      of the stage, or of the dtype, or finds them.
    axes: a letter for each axis; None takes each file's own.
  """

  range: tuple[float, float] | None = None
  axes: str | None = None


class Seen(NamedTuple):
  """What all values of an array are.

  Attributes:
    low, high: of each channel; [] if a channel has no value.
    missing: number of pixels without a value.
    digest: of the bytes of the file.
  """

  low: list[float]
  high: list[float]
  missing: int
  digest: str


@dataclasses.dataclass(frozen=True)
class Job:
  """An array that is to be enlarged.

  Attributes:
    given: the file.
    layout: what it holds.
    range: what becomes -1 and 1.
    seen: what its values are.
    units: what of it is drawn as a picture.
    size: what each becomes.
    mark: see `array_marks`.
    notes: what is to be said of it, as clauses.
  """

  given: ArrayInput
  layout: Layout
  range: ValueRange
  seen: Seen
  units: list[Unit]
  size: enlarged_size.Size
  mark: str
  notes: tuple[str, ...]

  def number(self, unit: Unit) -> int:
    """Returns what the noise of a unit depends on beside the seed."""
    text = own_results.digest([self.seen.digest, json.dumps(list(unit))])
    return int(text[:8], 16)

  def opened(self) -> ArrayFile:
    """Opens the array again.

    Raises:
      ValueError: it has another shape or dtype than before.
    """
    file = array_kinds.open_array(
      self.given.path, self.given.kind, self.layout.axes
    )
    if file.layout != self.layout:
      file.close()
      raise ValueError(
        f'{printable(self.given.path)} is another array than when `cdm '
        'upscale` began; start again.'
      )
    return file


def jobs_of(
  upscaler: CanvasUpscaler,
  record: Any,
  arrays: Sequence[ArrayInput],
  settings: Settings,
  values: Values,
) -> tuple[list[Job], list[Exception]]:
  """Returns what is to be made, and errors of what cannot be; a collective.

  Each array is read once, by one of the processes.

  Args:
    upscaler: the stage.
    record: what its results depend on, or None.
    arrays: the files.
    settings: how they are enlarged.
    values: how their values are understood.
  """
  stage = None if record is None else record.manifest()
  common = json.dumps(
    [stage, enlarged_jobs.that_count(settings), values],
    sort_keys=True,
    default=str,
  )
  looked = [
    _looked_at(arrays[i], values, upscaler, settings)
    for i in collectives.local_indices(len(arrays))
  ]
  looked = collectives.in_turn(collectives.gather_objects(looked))
  jobs, errors = [], []
  for given, (seen, error) in zip(arrays, looked, strict=True):
    if error:
      errors.append(ValueError(error))
      continue
    seen = Seen(*seen)
    layout, units, said = _opened(given, values, upscaler)
    chosen, hint = _range(seen, layout, values, upscaler.stage.values)
    if seen.missing:
      said = (
        *said,
        f'{seen.missing:,} values are missing: the network sees the nearest '
        'ones there, and the result has none',
      )
    mark = own_results.digest(
      [common, seen.digest, given.target.suffix.lower()]
    )
    size = _size(layout, upscaler, settings)
    jobs.append(
      Job(given, layout, chosen, seen, units, size, mark, (*said, *hint))
    )
  return jobs, errors


def _opened(given, values, upscaler):
  """Returns (layout, units, what is to be said) of a file."""
  file = array_kinds.open_array(given.path, given.kind, values.axes)
  with array_file.closing(file):
    layout, units, said = _units(file.layout, upscaler.stage.channels)
    return layout, units, (*file.notes, *said)


def _looked_at(given, values, upscaler, settings) -> list[Any]:
  """Returns [what the values of a file are, or None; why it is refused]."""
  try:
    file = array_kinds.open_array(given.path, given.kind, values.axes)
    with array_file.closing(file):
      layout, units, _ = _units(file.layout, upscaler.stage.channels)
      size = _size(layout, upscaler, settings)
      result = layout.enlarged(size.height, size.width)
      array_writer.check_space(result, existing(given.target.parent))
      seen = _seen(given.path, file._replace(layout=layout))
    if not seen.low:
      raise ValueError('a channel of the array holds no value at all')
    return [list(seen), '']
  except ValueError as error:
    text, name = str(error), printable(given.path)
    return [None, text if name in text else f'{name}: {text.rstrip(".")}.']


def existing(folder: pathlib.Path) -> pathlib.Path:
  """Returns a folder, or the nearest one above it that exists."""
  folder = folder.absolute()
  while not folder.exists():
    folder = folder.parent
  return folder


def _seen(path, file) -> Seen:
  layout = file.layout
  missing = 0

  def bands():
    nonlocal missing
    for page in range(layout.pages):
      for first in range(0, layout.height, _BAND):
        last = min(first + _BAND, layout.height)
        band = stored_values.values(file.rows(page, first, last), layout)
        missing += int(np.isnan(band).sum())
        yield band

  found = value_range.found(bands(), layout.channels)
  with open(path, 'rb') as opened:
    digest = hashlib.file_digest(opened, 'sha256').hexdigest()
  if found is None:
    return Seen([], [], missing, digest)
  return Seen(found.low.tolist(), found.high.tolist(), missing, digest)


def _units(layout, channels):
  """Returns (layout, units, what is to be said): what is drawn as a picture."""
  pages, own = layout.pages, layout.channels
  together = own == channels
  said = ()
  if not together and channels not in (1, 3):
    if own == 1 and pages == channels and layout.axes.count('P') == 1:
      layout = layout._replace(axes=layout.axes.replace('P', 'C'))
      pages, own, together = 1, channels, True
      said = (f'its {channels} pages are drawn as channels of one picture',)
    else:
      raise ValueError(
        f'the stage draws {channels} channels together, and the array '
        f'{list(layout.shape)} has {own} on {pages} page(s), with the axes '
        f'{layout.axes}; give --axes if it is to be read otherwise'
      )
  if together:
    return layout, [Unit(page, (0, own)) for page in range(pages)], said
  units = [Unit(page, (c, c + 1)) for page in range(pages) for c in range(own)]
  if channels == 3:
    what = 'channel' if own > 1 else 'page'
    one = 'it is' if len(units) == 1 else f'each {what} is'
    said = (f'{one} drawn as a grey picture by itself',)
  elif own > 1:
    said = ('each channel is drawn by itself',)
  return layout, units, said


def _range(seen, layout, values, trained):
  """Returns (`ValueRange`, hints as clauses)."""
  if values.range is not None:
    return value_range.given(*values.range, 'given'), ()
  if trained is not None:
    return value_range.given(*trained, 'of the training data'), ()
  of_dtype = value_range.of_dtype(layout)
  if of_dtype is None:
    found = ValueRange(np.array(seen.low), np.array(seen.high), 'found')
    return found, ()
  low, high = min(seen.low), max(seen.high)
  hint = ()
  if high - low < _SMALL_PART * float(of_dtype.high[0]):
    hint = (
      f'its values fill only {low:g} to {high:g} of that; '
      f'--range={low:g}:{high:g} would show the network all of their contrast',
    )
  return of_dtype, hint


def _size(layout, upscaler, settings):
  """Returns the size that the pictures of an array get."""
  return enlarged_size.choose(
    (layout.height, layout.width),
    upscaler.factor,
    settings.asked,
    any_factor=upscaler.takes_any_factor,
  )


def are_written(jobs: Sequence[Job], *, overwrite: bool) -> list[bool]:
  """Returns which results are there already; a collective.

  Args:
    jobs: what is to be made.
    overwrite: whether other files of these names will be replaced.

  Raises:
    ValueError: another file has the name of a result.
  """
  found = collectives.call_in_first(
    lambda: [
      [
        array_marks.has(job.given.target, job.given.kind, job.mark),
        job.given.target.exists(),
      ]
      for job in jobs
    ]
  )
  targets = [job.given.target for job in jobs]
  return own_results.which_stay(targets, found, overwrite=overwrite)


class Part(NamedTuple):
  """Pictures of one array that are drawn together.

  Attributes:
    units: the pictures.
    enlargement: how they are drawn.
  """

  units: list[Unit]
  enlargement: Enlargement


def parts_of(
  upscaler: CanvasUpscaler, jobs: Sequence[Job]
) -> list[tuple[Job, list[Part]]]:
  """Returns what is drawn together: as many pictures as fill a batch.

  All are drawn by one program.

  Args:
    upscaler: the stage.
    jobs: what is to be made.
  """
  upscaler = upscaler.fitted([made for job in jobs for made in job.size.passes])
  cut = []
  for job in jobs:
    each = upscaler.plan(job.size.passes[0], at_once=1).block_windows
    together = max(1, upscaler.most_at_once // each)
    cut.append(
      [
        job.units[first : first + together]
        for first in range(0, len(job.units), together)
      ]
    )
  counts = [
    upscaler.plan(made, count=len(units), at_once=1).block_windows
    for job, groups in zip(jobs, cut, strict=True)
    for units in groups
    for made in job.size.passes
  ]
  if not counts:
    return []
  at_once = canvas_plan.windows_at_once(
    counts, upscaler.most_at_once, upscaler.stage.mesh
  )

  def part(job, units):
    made = Enlargement.of(upscaler, job.size, count=len(units), at_once=at_once)
    return Part(units, made)

  return [
    (job, [part(job, units) for units in groups])
    for job, groups in zip(jobs, cut, strict=True)
  ]


def announce(parts: Sequence[tuple[Job, list[Part]]]) -> None:
  """Says what arrays become, and how their values are understood.

  A collective.

  Args:
    parts: what is drawn.
  """
  for job, of_job in parts:
    memory = max(part.enlargement.bytes for part in of_job)
    if not collectives.is_first():
      continue
    layout, size = job.layout, job.size
    count = sum(part.enlargement.num_windows for part in of_job)
    needed = layout.enlarged(size.height, size.width).nbytes
    what = [
      f'{n:,} {word}{"s" if n > 1 else ""}'
      for n, word in ((layout.pages, 'page'), (layout.channels, 'channel'))
      if n > 1
    ]
    print(
      f'{printable(job.given.path)}: '
      f'{"".join(f"{one} of " for one in what)}{layout.width}x{layout.height} '
      f'-> {size.width}x{size.height} pixels, {layout.dtype.name}, '
      f'{job.range}, {count:,} windows, {memory / 2**30:.2g} GiB of memory, '
      f'{job.given.kind} of {needed / 1e6:,.3g} MB'
    )
    for note in (*job.notes, *filter(None, [size.warning])):
      print(f'  {note}')
