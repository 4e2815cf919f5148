"""Enlarges videos, frame by frame, with their sound and all else in them.

Every frame is drawn with the same noise, which is keyed by pixel, and as
degraded by the same damage: where nothing moves, nothing flickers. Frames are
written in segments, each whole or not at all, and a later start goes on after
the last of them.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cdm.data.photographs import marks
from cdm.data.printable_name import printable
from cdm.data.videos import (
  frame_colours,
  joined_video,
  video_codecs,
  video_kinds,
  video_segments,
  video_source,
)
from cdm.data.videos.video_source import Frame
from cdm.distributed import collectives, folder_lock
from cdm.reporting import progress
from cdm.sampling import (
  enlarged_files,
  own_results,
  picture_rows,
  upscale_inputs,
  video_jobs,
)
from cdm.sampling.background_writer import BackgroundWriter
from cdm.sampling.enlarged_inputs import Inputs
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlargement import Drawn
from cdm.sampling.upscaler import Upscaler
from cdm.sampling.video_jobs import Job, Options, Plan


def write_enlarged_videos(
  upscaler: Upscaler, inputs: Inputs, settings: Settings, options: Options
) -> None:
  """Enlarges videos; each becomes a file that appears whole or not at all.

  A result that an earlier start wrote with the same settings is kept, and so
  are its finished segments. With several processes, all must call it with the
  same arguments; the first one writes.

  Args:
    upscaler: the stage, which draws canvases.
    inputs: the files; see `enlarged_inputs.check`.
    settings: how frames are enlarged.
    options: how they are encoded.

  Raises:
    ValueError: a file that lies there has the name of a result, or a video
      cannot be used; the others have been written then.
    OSError: the disk is full; what is finished is kept.
  """
  canvas, record = upscaler.canvas, upscaler.record
  assert canvas is not None
  canvas = dataclasses.replace(canvas, detail=settings.detail)
  jobs, errors = video_jobs.jobs_of(
    canvas, record, inputs.videos, settings, options
  )
  held, out = contextlib.nullcontext(), inputs.folder
  if out is not None:
    held = folder_lock.hold(out, 'cdm upscale', flag='--out')
  with held:
    there = video_jobs.are_written(jobs, overwrite=settings.overwrite)
    left = [job for job, done in zip(jobs, there, strict=True) if not done]
    plans = video_jobs.plans_of(canvas, left)
    video_jobs.announce(plans)
    for plan in plans:
      try:
        _write(plan, settings, record)
      except ValueError as error:
        errors.append(upscale_inputs.reworded(error))
    collectives.barrier('the enlarged videos')
    if collectives.is_first():
      for job in jobs:
        if marks.has(job.given.target, job.mark):
          print(printable(job.given.target))
  if errors:
    raise upscale_inputs.failure(
      errors, len(inputs.videos), out or 'their places'
    )


def _write(plan: Plan, settings: Settings, record: Any) -> None:
  """Draws a video segment by segment, and joins them."""
  job = plan.job
  target, folder = job.given.target, job.folder
  if collectives.is_first():
    target.parent.mkdir(parents=True, exist_ok=True)
  with folder_lock.hold(folder, 'cdm upscale'):
    # Segments of another encoder would not fit these.
    version = video_kinds.library(target).__version__
    digest = own_results.digest([job.mark, version])
    done = collectives.call_in_first(lambda: _finished(folder, digest))
    total = job.look.num_frames
    if done and collectives.is_first():
      print(f'{printable(target)}: {sum(done):,} frames are there already')
    damaged: list[str] = []
    is_whole = sum(done) >= total or (done and done[-1] < video_segments.FRAMES)
    if not is_whole:
      with progress.Progress(
        f'enlarging {printable(target.name)}',
        total=total,
        initial=sum(done),
        unit='frame',
      ) as bar:
        bar.compiling()
        _write_segments(plan, settings, digest, len(done), bar, damaged)
    if collectives.is_first():
      _join(job, digest, settings, record)
      video_segments.clear(folder)
      if damaged:
        print(
          f'  {printable(job.given.path)}: {len(damaged):,} damaged packets '
          'were left out'
        )
    collectives.barrier('an enlarged video')
  if collectives.is_first():
    with contextlib.suppress(OSError):
      folder.rmdir()


def _finished(folder, digest) -> list[int]:
  """Returns the frames of finished segments, and removes all others."""
  video_segments.clear(folder, keep=digest)
  return video_segments.finished(folder, digest)


def _write_segments(plan, settings, digest, first, bar, damaged):
  """Draws and writes the segments from a number on."""
  job, size = plan.job, video_segments.FRAMES
  frames = video_source.frames(
    job.given.path, job.look, skip=first * size, damaged=damaged
  )
  for number in itertools.count(first):
    segment = list(itertools.islice(frames, 1))
    if not segment:
      return
    segment = itertools.chain(segment, itertools.islice(frames, size - 1))
    drawn = _drawn(plan, settings, segment, bar.advance)
    if not collectives.is_first():
      for _ in drawn:  # The drawing is a collective.
        pass
      continue
    path = video_segments.path_of(job.folder, digest, number)

    def write(batches, path=path):
      video_segments.write(path, job.encoding, batches)

    with BackgroundWriter(write) as writer:
      for frame in drawn:
        writer.put(frame)
    _check_space(job, digest, number + 1)


def _check_space(job, digest, finished):
  """Ends the work before the disk is full, if it is going to be."""
  each = sum(
    video_segments.path_of(job.folder, digest, i).stat().st_size
    for i in range(finished)
  )
  frames = min(finished * video_segments.FRAMES, job.look.num_frames)
  whole = each * job.look.num_frames // frames
  needed = whole - each + whole
  free = shutil.disk_usage(job.folder).free
  if needed > free:
    raise OSError(
      f'{printable(job.given.target)} needs about {needed:,} more bytes, and '
      f'its disk has {free:,} left; free some space and start the same command '
      f'again: it goes on after the {frames:,} frames that are finished.'
    )


def _drawn(
  plan: Plan, settings: Settings, frames: Iterator[Frame], on_frames: Any
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (time stamp, packed planes) of frames, drawn some together."""
  while some := list(itertools.islice(frames, plan.together)):
    packed = [video_codecs.empty(plan.job.encoding) for _ in some]
    first = 0
    for band in bands(plan, settings, np.stack([one.rgb for one in some])):
      for own, rows in zip(packed, band, strict=True):
        _fill(plan.job, own, first, rows)
      first += band.shape[1]
    for one, own in zip(some, packed, strict=True):
      yield one.pts, own
    on_frames(len(some))


def bands(
  plan: Plan, settings: Settings, frames: np.ndarray
) -> Iterator[np.ndarray]:
  """Yields enlarged frames by bands of rows, all with the same noise.

  Args:
    plan: how they are drawn.
    settings: how they are enlarged.
    frames: float32 [N, h, w, 3] in [-1, 1], as many as the plan has together.

  Returns:
    float32 [N, n, W, 3], in [-1, 1] but for an overshoot.
  """
  job, count = plan.job, len(frames)
  drawn = Drawn(
    seed=settings.seed,
    numbers=[job.number] * count,
    label=settings.label,
    back_projections=job.back_projections,
    damage=[job.damage] * count,
  )
  return plan.of(count).bands(picture_rows.WholePictures(frames), drawn)


def _fill(job, packed, first, rows):
  """Writes drawn rows [n, W, 3] into the planes of a frame."""
  made = job.encoding
  rows = rows[: made.height - first, : made.width]
  if len(rows):
    planes = frame_colours.to_planes(
      rows, made.colours, bits=made.bits, is_grey=job.look.is_grey
    )
    video_codecs.fill(packed, first, planes)


def _join(job: Job, digest, settings, record) -> None:
  """Makes the result of the segments."""
  paths: Sequence[pathlib.Path] = [
    video_segments.path_of(job.folder, digest, i)
    for i in range(len(video_segments.finished(job.folder, digest)))
  ]
  needed = sum(os.path.getsize(path) for path in paths)
  free = shutil.disk_usage(job.folder).free
  if needed > free:
    raise OSError(
      f'{printable(job.given.target)} takes {needed:,} bytes, and its disk has '
      f'{free:,} left; free some space and start the same command again: all '
      'frames are finished.'
    )
  joined_video.join(
    paths,
    job.given.path,
    job.given.target,
    job.encoding,
    streams=job.streams,
    software=enlarged_files.software(record, settings),
    mark=job.mark,
    strip=settings.strip,
  )
