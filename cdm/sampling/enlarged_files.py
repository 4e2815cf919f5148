"""Enlarges picture files into an output folder, with all that is in them.

Pictures of one size that are small are drawn together; others one by one, band
by band, so that memory does not grow with their size.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cdm.data import image_notes, low_res_inputs
from cdm.data.photographs import (
  marks,
  metadata_output,
  photograph,
  picture_writer,
  transparency,
)
from cdm.data.photographs.output_kinds import Layout
from cdm.data.printable_name import printable
from cdm.distributed import collectives, folder_lock
from cdm.reporting import progress
from cdm.sampling import (
  compared_pictures,
  drawing_pace,
  enlarged_jobs,
  own_results,
  picture_damage,
  picture_rows,
  upscale_files,
  upscale_inputs,
)
from cdm.sampling.canvas_upscaler import NotFinite
from cdm.sampling.enlarged_inputs import Inputs
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlarged_size import Size
from cdm.sampling.enlargement import Drawn, Enlargement
from cdm.sampling.upscaler import Upscaler


def write_enlarged_files(
  upscaler: Upscaler,
  inputs: Inputs,
  settings: Settings,
  on_windows: Callable[[int, int], object] = lambda count, total: None,
) -> None:
  """Enlarges pictures; each becomes a file that appears whole or not at all.

  A result that an earlier start wrote with the same settings is kept. With
  several processes, all must call it with the same arguments; the first one
  writes.

  Args:
    upscaler: the stage, which draws canvases.
    inputs: the picture files; see `enlarged_inputs.check`.
    settings: how they are enlarged.
    on_windows: callback that gets, for each evaluated batch, its number of
      windows and that of all windows.

  Raises:
    ValueError: a file that lies there has the name of a result, a size is
      impossible, or an input was refused; the other pictures have been written
      then.
  """
  canvas, record = upscaler.canvas, upscaler.record
  assert canvas is not None
  canvas = dataclasses.replace(canvas, detail=settings.detail)
  jobs, errors = enlarged_jobs.jobs_of(canvas, record, inputs, settings)
  held, out = contextlib.nullcontext(), inputs.folder
  if out is not None:
    held = folder_lock.hold(out, 'cdm upscale', flag='--out')
  with held:
    there = enlarged_jobs.are_written(jobs, settings)
    left = [job for job, done in zip(jobs, there, strict=True) if not done]
    groups = enlarged_jobs.groups_of(canvas, left)
    enlarged_jobs.announce(groups)
    drawing_pace.announce(record, [group.enlargement for group in groups])
    watch = drawing_pace.Watch(record, canvas)
    total = sum(group.enlargement.num_windows for group in groups)
    with progress.Progress('enlarging', total=total, unit='window') as bar:
      if groups:
        bar.compiling()

      def advance(count):
        bar.advance(count)
        on_windows(count, total)

      for group in groups:
        watched = watch.callback(group.enlargement, advance)
        errors += _draw(group, inputs, settings, record, watched)
    watch.remember()
    collectives.barrier('the enlarged pictures')
    if collectives.is_first():
      written = [j for j in jobs if marks.has(j.picture.target, j.mark)]
      for job in written:
        print(printable(job.picture.target))
        if settings.compare:
          print(printable(compared_pictures.path_of(job.picture.target)))
      if out is not None:
        _write_overview(out, upscaler, written, inputs, settings)
  refused = [*inputs.refused, *errors]
  total = len(inputs.pictures) + len(inputs.refused)
  if total > 1 and collectives.is_first():
    made = total - sum(there) - len(refused)
    print(
      f'Pictures: {made:,} enlarged, {sum(there):,} there already, '
      f'{len(refused):,} refused.'
    )
  if refused:
    raise upscale_inputs.failure(refused, total, out or 'their places')


def _write_overview(out, upscaler, jobs, inputs, settings):
  """Writes the overview of the pictures that have the size of an image."""
  canvas = upscaler.canvas
  if canvas is not None and not canvas.stage.is_rgb:
    return
  side = upscaler.lowres_size
  large = (upscaler.image_size, upscaler.image_size)
  shown = [
    (job.picture.path, job.picture.target)
    for job in jobs
    if job.source == (side, side) and (job.size.height, job.size.width) == large
  ]
  upscale_files.write_overview_of_files(
    out,
    upscaler,
    shown,
    taken=[job.picture.target for job in jobs],
    max_value=inputs.max_value,
    mark=own_results.digest([*(job.mark for job in jobs), 'overview']),
    overwrite=settings.overwrite,
  )


def _draw(group, inputs, settings, record, on_windows) -> list[Exception]:
  """Draws the pictures of a group and writes them; returns errors."""
  read, errors = {}, {}
  for i, job in enumerate(group.jobs):
    try:
      read[i] = photograph.read(job.picture.path, max_value=inputs.max_value)
      _check_unchanged(read[i], job)
      _check_channels(read[i], job, group.enlargement.upscaler.stage.channels)
      image_notes.say(read[i].notes)
    except ValueError as error:
      errors[i] = upscale_inputs.reworded(error)
  # What one process cannot read, none draws.
  errors = upscale_inputs.exchange_errors(errors)
  good = [i for i in range(len(group.jobs)) if i not in errors]
  upscaler = group.enlargement.upscaler
  damage = {
    i: picture_damage.of_picture(read[i], upscaler, settings.damage)
    for i in good
  }
  alike: dict[Any, list[int]] = {}
  for i in good:
    if upscaler.takes_any_factor:
      _say_damage(group.jobs[i], damage[i])
    rounds = picture_damage.rounds_of(
      read[i], group.jobs[i].size, damage[i], settings.back_projections
    )
    wrapped = group.jobs[i].wrapped
    torus = None if wrapped is None else wrapped.torus
    alike.setdefault((rounds, torus), []).append(i)
  for (rounds, torus), chosen in alike.items():
    enlargement = group.enlargement
    if len(chosen) < len(group.jobs):
      enlargement = Enlargement.of(
        enlargement.upscaler,
        enlargement.size,
        count=len(chosen),
        at_once=enlargement.plans[0].at_once,
      )
    jobs = [group.jobs[i] for i in chosen]
    drawn = Drawn(
      seed=settings.seed,
      numbers=[job.number for job in jobs],
      label=settings.label,
      back_projections=rounds,
      damage=[damage[i] for i in chosen],
      on_windows=on_windows,
      torus=torus,
    )
    photographs = [read[i] for i in chosen]
    try:
      _write_drawn(jobs, photographs, enlargement, drawn, settings, record)
    except NotFinite as error:
      for i in chosen:
        name = printable(group.jobs[i].picture.path)
        errors[i] = ValueError(f'{name}: {error}')
  return list(errors.values())


def _check_unchanged(read, job):
  if read.samples.shape[:2] != job.source:
    raise ValueError(
      f'{printable(job.picture.path)} has another size than when `cdm '
      'upscale` began; start again.'
    )


def _say_damage(job, damage):
  """Says for which damage a network makes up."""
  found = low_res_inputs.described(damage)
  if found:
    name = printable(job.picture.path)
    text = f'restored as a picture with {found}; see --damage'
    image_notes.say([image_notes.Note('damage', name, text)])


def _check_channels(read, job, channels):
  own = read.samples.shape[-1]
  if channels not in (own, 3) or (channels == 3 and own not in (1, 3)):
    raise ValueError(
      f'{printable(job.picture.path)} has {own} channels besides its '
      f'transparency, and the stage draws {channels}; give '
      f'{"grey pictures" if channels == 1 else "arrays of as many"}.'
    )


def _write_drawn(jobs, photographs, enlargement, drawn, settings, record):
  """Draws pictures and writes them, a single one band by band."""
  channels = enlargement.upscaler.stage.channels
  given = [_with_margins(*pair) for pair in zip(jobs, photographs, strict=True)]
  colours = np.stack([colour(one, channels) for one in given])
  bands = enlargement.bands(picture_rows.WholePictures(colours), drawn)
  if len(jobs) > 1:
    whole = np.concatenate(list(bands), axis=1)
    for i, (job, one) in enumerate(zip(jobs, photographs, strict=True)):
      _write_one(job, one, iter([whole[i]]), settings, record)
  else:
    rows = (band[0] for band in bands)
    _write_one(jobs[0], photographs[0], rows, settings, record)


def _with_margins(job, one):
  """Returns a picture as it is drawn."""
  return one if job.wrapped is None else job.wrapped.padded(one)


def colour(one: photograph.Photograph, channels: int = 3) -> np.ndarray:
  """Returns the colours that are enlarged, float32 [h, w, C] in [-1, 1].

  Grey becomes C equal channels, and transparent pixels get the colour of
  those beside them.

  Args:
    one: the photograph.
    channels: C of the stage, 3 or 1; with 1 the photograph is grey.
  """
  samples = one.samples
  if one.alpha is not None:
    samples = transparency.fill_transparent(samples, one.alpha)
  if samples.shape[-1] == 1:
    samples = np.repeat(samples, channels, axis=-1)
  whole = picture_rows.WholePictures(samples[None])
  return whole.rows(0, len(samples))[0]


def _write_one(job, one, rows, settings, record):
  """Writes one picture from its drawn rows, float32 [n, W, 3]."""
  size, target = job.size, job.picture.target
  levels = finished(rows, _with_margins(job, one), job.drawn)
  if job.wrapped is not None:
    levels = job.wrapped.cut(levels)
  if not collectives.is_first():
    for _ in levels:  # The drawing is a collective.
      pass
    return
  kept = metadata_output.for_output(
    one.carried,
    width=size.width,
    height=size.height,
    software=software(record, settings),
    strip=settings.strip,
  )
  channels = one.samples.shape[-1] + (one.alpha is not None)
  layout = Layout(size.width, size.height, channels, one.bits)
  target.parent.mkdir(parents=True, exist_ok=True)
  comparison = None
  if settings.compare:
    comparison = compared_pictures.Comparison(one, size)
    levels = comparison.watched(levels)
  with picture_writer.open_writer(
    target, layout, carried=kept, options=settings.options, mark=job.mark
  ) as file:
    for band in levels:
      file.write(band)
  if comparison is not None:
    comparison.write(compared_pictures.path_of(target), job.mark)
  name = printable(target)
  image_notes.say(
    image_notes.Note('metadata', name, text) for text in file.notes
  )


def finished(
  rows: Iterator[np.ndarray], one: photograph.Photograph, size: Size
) -> Iterator[np.ndarray]:
  """Yields the rows as they are written, [n, W, C] of the picture's dtype.

  Args:
    rows: the drawn rows, float32 [n, W, 3] in [-1, 1] but for an overshoot.
    one: the picture that was enlarged.
    size: what it has become.
  """
  dtype = one.samples.dtype.type
  alpha = None
  if one.alpha is not None:
    alpha = picture_rows.ResizedRows(
      picture_rows.WholePictures(one.alpha[None, ..., None]),
      size.height,
      size.width,
      'bicubic',
    )
  top = 0
  for band in rows:
    if one.samples.shape[-1] == 1:
      band = band.mean(axis=-1, keepdims=True)
    levels = picture_rows.levels(band, dtype)
    if alpha is not None:
      own = alpha.rows(top, top + len(band))[0]
      levels = np.concatenate([levels, picture_rows.levels(own, dtype)], -1)
    top += len(band)
    yield levels


def software(record: Any, settings: Settings) -> str:
  """Returns what made a picture, as its metadata say it.

  Args:
    record: what the results of the stage depend on, or None.
    settings: how pictures are enlarged.
  """
  version = importlib.metadata.version('cdm')
  stage = None if record is None else record.manifest()
  text = json.dumps(stage, sort_keys=True, default=str)
  model = hashlib.sha256(text.encode()).hexdigest()[:12]
  return f'cdm {version}, model {model}, seed {settings.seed}'
