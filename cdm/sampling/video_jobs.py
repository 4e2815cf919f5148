"""Plans how videos are enlarged: their size, their codec, their damage."""

import dataclasses
import hashlib
import json
import math
import pathlib
import shutil
import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from cdm.data import low_res_inputs
from cdm.data.low_res_inputs import Degradation
from cdm.data.photographs import marks, visible_damage
from cdm.data.printable_name import printable
from cdm.data.transforms import BadImage
from cdm.data.videos import (
  joined_video,
  video_codecs,
  video_kinds,
  video_segments,
  video_source,
)
from cdm.data.videos.video_codecs import Encoding
from cdm.data.videos.video_source import Look
from cdm.distributed import collectives
from cdm.reporting import progress
from cdm.sampling import (
  array_jobs,
  canvas_plan,
  enlarged_jobs,
  enlarged_size,
  own_results,
  picture_damage,
  picture_rows,
  upscale_inputs,
)
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_inputs import VideoInput
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlargement import Enlargement

# Frames that are drawn together, at most, if they have few windows.
MOST_TOGETHER = 8
# Of a pixel of a frame at the usual quality, a guess: films take a tenth to a
# third of a bit.
_BITS_PER_PIXEL = 0.3


class Options(NamedTuple):
  """How videos are encoded.

  Attributes:
    codec: a key of `video_codecs.CODECS`; None chooses by the file's kind.
    crf: the quality; None takes the usual one of the codec.
  """

  codec: str | None = None
  crf: int | None = None


@dataclasses.dataclass(frozen=True)
class Job:
  """A video that is to be enlarged.

  Attributes:
    given: the file.
    look: what it is.
    size: what its frames become; they lose a last odd row and column.
    encoding: how they are written.
    streams: what is copied beside them.
    damage: what degraded all frames.
    back_projections: rounds, see `Drawn`.
    mark: see `marks`.
    number: what the noise of every frame depends on beside the seed.
    notes: what is to be said of it, as clauses.
  """

  given: VideoInput
  look: Look
  size: enlarged_size.Size
  encoding: Encoding
  streams: tuple[int, ...]
  damage: Degradation
  back_projections: int
  mark: str
  number: int
  notes: tuple[str, ...]

  @property
  def folder(self) -> pathlib.Path:
    """The folder of its segments."""
    return video_segments.folder_of(self.given.target)

  @property
  def bytes(self) -> int:
    """About how many bytes its pictures take."""
    pixels = self.encoding.height * self.encoding.width * self.look.num_frames
    return round(pixels * _BITS_PER_PIXEL / 8)


def jobs_of(
  upscaler: CanvasUpscaler,
  record: Any,
  videos: Sequence[VideoInput],
  settings: Settings,
  options: Options,
) -> tuple[list[Job], list[Exception]]:
  """Returns what is to be made, and errors of what cannot be; a collective.

  Args:
    upscaler: the stage.
    record: what its results depend on, or None.
    videos: the files.
    settings: how frames are enlarged.
    options: how they are encoded.
  """
  stage = None if record is None else record.manifest()
  common = json.dumps(
    [stage, enlarged_jobs.that_count(settings), options],
    sort_keys=True,
    default=str,
  )
  jobs, found = {}, {}
  # Every process reads all of them: each one needs the frames.
  for i, given in enumerate(videos):
    try:
      jobs[i] = _job(given, common, upscaler, settings, options)
    except (ValueError, BadImage) as error:
      found[i] = _named(error, given)
  # What one process cannot read, none draws.
  errors = upscale_inputs.exchange_errors(found)
  return [job for i, job in jobs.items() if i not in errors], [*errors.values()]


def _named(error, given):
  """Returns an error that names the file, and says what to do."""
  if getattr(error, 'is_data_error', False):
    return upscale_inputs.reworded(error)
  text, name = str(error), printable(given.path)
  return ValueError(text if name in text else f'{name}: {text.rstrip(".")}.')


def _job(given, common, upscaler, settings, options) -> Job:
  if not upscaler.stage.is_rgb:
    raise ValueError(
      'videos are drawn by stages of RGB images, and this one draws '
      f'{upscaler.stage.channels} channels'
    )
  look = video_source.look(given.path)
  size = enlarged_size.choose(
    (look.height, look.width),
    upscaler.factor,
    settings.asked,
    any_factor=upscaler.takes_any_factor,
  )
  encoding = _encoding(given, look, size, options)
  copied = joined_video.copied(given.path, video_kinds.by_suffix(given.target))
  damage = _damage(given, look, upscaler, settings)
  notes = [*look.notes, *copied.notes]
  if upscaler.takes_any_factor and (text := low_res_inputs.described(damage)):
    notes.append(f'all frames are restored as with {text}; see --damage')
  if (encoding.height, encoding.width) != (size.height, size.width):
    notes.append(
      f'its sides become even: {encoding.width}x{encoding.height} pixels'
    )
  if look.bits > encoding.bits:
    notes.append(f'its {look.bits} bits become {encoding.bits}')
  with open(given.path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  mark = own_results.digest([common, digest, given.target.suffix.lower()])
  job = Job(
    given=given,
    look=look,
    size=size,
    encoding=encoding,
    streams=copied.streams,
    damage=damage,
    back_projections=_rounds(look, size, damage, settings),
    mark=mark,
    number=enlarged_jobs.number_of(digest),
    notes=tuple(notes),
  )
  folder = array_jobs.existing(given.target.parent)
  needed, free = 2 * job.bytes + copied.bytes, shutil.disk_usage(folder).free
  if needed > free and not job.folder.exists():
    raise ValueError(
      f'the result and its segments may take {needed:,} bytes, and the disk '
      f'of {printable(folder)} has {free:,} left; free some space, or write to '
      'another disk'
    )
  return job


def _encoding(given, look, size, options):
  kind = video_kinds.by_suffix(given.target)
  codec, crf, bits = video_codecs.choose(
    kind, bits=look.bits, codec=options.codec, crf=options.crf
  )
  if not video_codecs.has_encoder(codec):
    raise ValueError(
      f'the installed PyAV has no encoder of {codec}; give another --codec'
    )
  even = size.height // 2 * 2, size.width // 2 * 2
  if 0 in even:
    raise ValueError(
      f'its frames would have {size.width}x{size.height} pixels, and a video '
      'needs 2 on each side; give a larger size'
    )
  own = look.turn.transposed
  return Encoding(
    codec=codec,
    crf=crf,
    bits=bits,
    height=even[0],
    width=even[1],
    time_base=look.time_base,
    rate=min(max(look.rate, Fraction(1)), Fraction(240)),
    pixel_aspect=look.pixel_aspect,
    # Of the original's size: a player would take another matrix for the
    # result's, and show other colours.
    colours=look.colours.assumed(look.width if own else look.height),
  )


def _damage(given, look, upscaler, settings) -> Degradation:
  """Returns what degraded a video: that of its first frames, in the median."""
  if settings.damage is not None:
    return settings.damage
  if not upscaler.takes_any_factor:
    return low_res_inputs.CLEAN
  frames = video_source.frames(given.path, look)
  found = [
    visible_damage.estimate(picture_rows.levels(frame.rgb, np.uint8)).noise
    for frame, _ in zip(frames, range(MOST_TOGETHER), strict=False)
  ]
  return Degradation(noise=float(statistics.median(found or [0.0])))


def _rounds(look, size, damage, settings) -> int:
  """Returns the rounds of back-projection."""
  if settings.back_projections is not None:
    return settings.back_projections
  is_larger = (size.height, size.width) != (look.height, look.width)
  # It would bring the traces of compression back, which change from frame to
  # frame.
  is_clean = look.is_lossless and picture_damage.is_clean(damage)
  return int(is_larger and is_clean)


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
      [marks.has(job.given.target, job.mark), job.given.target.exists()]
      for job in jobs
    ]
  )
  targets = [job.given.target for job in jobs]
  return own_results.which_stay(targets, found, overwrite=overwrite)


class Plan(NamedTuple):
  """How the frames of a video are drawn.

  Attributes:
    job: the video.
    together: frames that are drawn at once, at most.
    enlargement: of so many.
  """

  job: Job
  together: int
  enlargement: Enlargement

  def of(self, count: int) -> Enlargement:
    """Returns how a number of frames is drawn, by the same program."""
    made = self.enlargement
    if count == self.together:
      return made
    return Enlargement.of(
      made.upscaler, made.size, count=count, at_once=made.plans[0].at_once
    )


def plans_of(upscaler: CanvasUpscaler, jobs: Sequence[Job]) -> list[Plan]:
  """Returns how videos are drawn, all by one program.

  Args:
    upscaler: the stage.
    jobs: what is to be made.
  """
  if not jobs:
    return []
  upscaler = upscaler.fitted([made for job in jobs for made in job.size.passes])
  together, counts = [], []
  for job in jobs:
    each = upscaler.plan(job.size.passes[0], at_once=1).block_windows
    together.append(min(MOST_TOGETHER, max(1, upscaler.most_at_once // each)))
    counts += [
      upscaler.plan(made, count=together[-1], at_once=1).block_windows
      for made in job.size.passes
    ]
  at_once = canvas_plan.windows_at_once(
    counts, upscaler.most_at_once, upscaler.stage.mesh
  )
  return [
    Plan(job, n, Enlargement.of(upscaler, job.size, count=n, at_once=at_once))
    for job, n in zip(jobs, together, strict=True)
  ]


def announce(plans: Sequence[Plan]) -> None:
  """Says what videos become, and what they cost; a collective.

  Args:
    plans: what is drawn.
  """
  for job, together, enlargement in plans:
    memory = enlargement.bytes + job.encoding.memory
    if not collectives.is_first():
      continue
    look, made = job.look, job.encoding
    times = math.sqrt(
      job.size.height * job.size.width / (look.height * look.width)
    )
    seconds = look.num_frames / (look.rate or Fraction(1))
    windows = -(-enlargement.num_windows // together)
    print(
      f'{printable(job.given.path)}: {look.num_frames:,} frames, '
      f'{progress.duration(float(seconds))}, {look.width}x{look.height} -> '
      f'{made.width}x{made.height} pixels ({times:.3g} times), {windows:,} '
      f'window{"s" * (windows > 1)} each, {memory / 2**30:.2g} GiB of memory, '
      f'{made.codec} ({made.bits} bits, crf {made.crf}) of about '
      f'{job.bytes / 1e6:,.3g} MB'
    )
    for note in (*job.notes, *filter(None, [job.size.warning])):
      print(f'  {note}')
