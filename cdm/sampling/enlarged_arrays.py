"""Enlarges arrays of measured values, which keep their numbers' meaning.

Every page, and every channel that the stage does not draw with others, is a
picture. It is drawn band by band, so that memory does not grow with its height.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cdm.data.arrays import array_file, array_marks, array_writer
from cdm.data.printable_name import printable
from cdm.distributed import collectives, folder_lock
from cdm.reporting import progress
from cdm.sampling import (
  array_jobs,
  array_rows,
  drawing_pace,
  enlarged_files,
  picture_damage,
  picture_rows,
  upscale_inputs,
)
from cdm.sampling.array_jobs import Job, Part, Values
from cdm.sampling.enlarged_inputs import Inputs
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlargement import Drawn, Enlargement
from cdm.sampling.upscaler import Upscaler


def write_enlarged_arrays(
  upscaler: Upscaler, inputs: Inputs, settings: Settings, values: Values
) -> None:
  """Enlarges arrays; each becomes a file that appears whole or not at all.

  A result that an earlier start wrote with the same settings is kept. With
  several processes, all must call it with the same arguments; the first one
  writes.

  Args:
    upscaler: the stage, which draws canvases.
    inputs: the files; see `enlarged_inputs.check`.
    settings: how they are enlarged.
    values: how their values are understood.

  Raises:
    ValueError: a file that lies there has the name of a result, or an array
      was refused; the others have been written then.
  """
  canvas, record = upscaler.canvas, upscaler.record
  assert canvas is not None
  canvas = dataclasses.replace(canvas, detail=settings.detail)
  jobs, errors = array_jobs.jobs_of(
    canvas, record, inputs.arrays, settings, values
  )
  held, out = contextlib.nullcontext(), inputs.folder
  if out is not None:
    held = folder_lock.hold(out, 'cdm upscale', flag='--out')
  with held:
    there = array_jobs.are_written(jobs, overwrite=settings.overwrite)
    left = [job for job, done in zip(jobs, there, strict=True) if not done]
    parts = array_jobs.parts_of(canvas, left)
    array_jobs.announce(parts)
    drawing_pace.announce(
      record, [part.enlargement for _, some in parts for part in some]
    )
    watch = drawing_pace.Watch(record, canvas)
    total = sum(
      part.enlargement.num_windows for _, some in parts for part in some
    )
    with progress.Progress('enlarging', total=total, unit='window') as bar:
      if parts:
        bar.compiling()
      for job, some in parts:
        _write(
          job,
          some,
          settings,
          record,
          lambda of: watch.callback(of, bar.advance),
        )
    watch.remember()
    collectives.barrier('the enlarged arrays')
    if collectives.is_first():
      for job in jobs:
        if array_marks.has(job.given.target, job.given.kind, job.mark):
          print(printable(job.given.target))
  if errors:
    raise upscale_inputs.failure(
      errors, len(inputs.arrays), out or 'their places'
    )


def _write(
  job: Job,
  parts: Sequence[Part],
  settings: Settings,
  record: Any,
  watched: Callable[[Enlargement], Callable[[int], object]],
) -> None:
  """Draws an array and writes it."""
  target = job.given.target
  layout = job.layout.enlarged(job.size.height, job.size.width)
  opened: Any = contextlib.nullcontext()
  if collectives.is_first():
    target.parent.mkdir(parents=True, exist_ok=True)
    opened = array_writer.open_writer(
      target,
      layout,
      source=job.given.path,
      mark=job.mark,
      software=enlarged_files.software(record, settings),
    )
  with opened as writer:
    for part in parts:
      on_windows = watched(part.enlargement)
      for unit, first, band in _drawn(job, part, settings, on_windows):
        if writer is not None:
          writer.write(unit.page, slice(*unit.channels), first, band)


def _drawn(job, part, settings, on_windows) -> Iterator[tuple]:
  """Yields (unit, first row, stored numbers [n, W, C]) of a part."""
  stage, damage = part.enlargement.upscaler.stage, None
  if settings.damage is not None:
    damage = [settings.damage] * len(part.units)
  drawn = Drawn(
    seed=settings.seed,
    numbers=[job.number(unit) for unit in part.units],
    label=settings.label,
    back_projections=0,
    damage=damage,
    on_windows=on_windows,
  )
  rounds = settings.back_projections
  if rounds is None:
    # An array of the same size would become itself again.
    given = job.layout.height, job.layout.width
    is_larger = (job.size.height, job.size.width) != given
    is_clean = settings.damage is None or picture_damage.is_clean(
      settings.damage
    )
    rounds = int(is_larger and is_clean)
  with array_file.closing(job.opened()) as file:

    def rows(is_clipped):
      return array_rows.ArrayRows(
        file,
        part.units,
        job.range,
        channels=stage.channels,
        is_clipped=is_clipped,
      )

    size = job.size
    x: Any = picture_rows.StreamedRows(
      part.enlargement.bands(rows(True), drawn), size.height, size.width
    )
    # The network sees values of the range; what is beyond comes back here.
    for _ in range(rounds):
      x = picture_rows.BackProjectedRows(
        x, rows(False), down=stage.lowres.downsample, up='bicubic'
      )
    first = 0
    for band in picture_rows.bands(x):
      for unit, one in zip(part.units, band, strict=True):
        yield unit, first, _finished(job, file, unit, first, one)
      first += band.shape[1]


def _finished(job, file, unit, first, band: np.ndarray) -> np.ndarray:
  return array_rows.finished(
    band,
    unit,
    first=first,
    height=job.size.height,
    file=file,
    range=job.range.of_channels(slice(*unit.channels)),
    has_missing=bool(job.seen.missing),
  )
