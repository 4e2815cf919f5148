"""Plans which pictures are enlarged, to which size, and which together."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from cdm.data.low_res_inputs import Degradation
from cdm.data.photographs import (
  marks,
  output_kinds,
  output_limits,
  picture_writer,
)
from cdm.data.photographs.output_kinds import Layout
from cdm.data.printable_name import printable
from cdm.distributed import collectives
from cdm.sampling import (
  canvas_plan,
  compared_pictures,
  enlarged_size,
  own_results,
)
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_inputs import Inputs, Picture
from cdm.sampling.enlargement import Enlargement
from cdm.sampling.wrapped_picture import Wrapped

# Between the mean and a draw, for stages that draw details over a mean.
DETAIL = 0.6


class Settings(NamedTuple):
  """How pictures are enlarged and written.

  Attributes:
    asked: the size that is asked for.
    seed: of the noise, which also depends on the bytes of each picture.
    label: class of all pictures, or None.
    back_projections: rounds, see `Drawn`; None is 1 for pictures without
      visible damage that become larger, and 0 for others.
    detail: of a stage that draws details over a mean; see
      `canvas_drawing.Canvas`.
    damage: what degraded the pictures; None estimates it of each, if the stage
      is told.
    options: how files are compressed.
    strip: whether metadata are left out.
    overwrite: whether other files that have the names of results are replaced.
    compare: whether each result gets a comparison, see `compared_pictures`.
    wrap: whether pictures repeat on all sides, see `wrapped_picture`.
  """

  asked: enlarged_size.Asked = enlarged_size.Asked()
  seed: int = 0
  label: int | None = None
  back_projections: int | None = None
  damage: Degradation | None = None
  detail: float = DETAIL
  options: picture_writer.Options = picture_writer.DEFAULTS
  strip: bool = False
  overwrite: bool = False
  compare: bool = False
  wrap: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
  """A picture that is to be enlarged.

  Attributes:
    picture: the picture.
    mark: see `marks`.
    number: what its noise depends on beside the seed.
    size: what it becomes.
    wrapped: how it is drawn if it wraps, or None.
  """

  picture: Picture
  mark: str
  number: int
  size: enlarged_size.Size
  wrapped: Wrapped | None = None

  @property
  def drawn(self) -> enlarged_size.Size:
    """What is drawn, with margins that are cut off."""
    return self.size if self.wrapped is None else self.wrapped.size

  @property
  def source(self) -> tuple[int, int]:
    """(height, width) of the picture."""
    return self.picture.header.height, self.picture.header.width


def jobs_of(
  upscaler: CanvasUpscaler, record: Any, inputs: Inputs, settings: Settings
) -> tuple[list[Job], list[Exception]]:
  """Returns what is to be made, and errors of what cannot be; a collective.

  Args:
    upscaler: the stage.
    record: what its results depend on, or None.
    inputs: the picture files.
    settings: how they are enlarged.
  """
  stage = None if record is None else record.manifest()
  common = json.dumps(
    [stage, that_count(settings), inputs.max_value],
    sort_keys=True,
    default=str,
  )
  digests = [
    hashlib.sha256(inputs.pictures[i].path.read_bytes()).hexdigest()
    for i in collectives.local_indices(len(inputs.pictures))
  ]
  digests = collectives.in_turn(collectives.gather_objects(digests))
  # Disks fill up meanwhile, so that one process decides for all.
  reasons = collectives.call_in_first(
    lambda: [_refusal(p, upscaler, settings) for p in inputs.pictures]
  )
  jobs, errors = [], []
  for picture, digest, reason in zip(
    inputs.pictures, digests, reasons, strict=True
  ):
    if reason:
      errors.append(ValueError(f'{printable(picture.path)}: {reason}'))
      continue
    size = _size(picture, upscaler, settings)
    wrapped = _wrapped(picture, size, upscaler) if settings.wrap else None
    mark = own_results.digest([common, digest, picture.target.suffix.lower()])
    jobs.append(Job(picture, mark, number_of(digest), size, wrapped))
  return jobs, errors


def that_count(settings: Settings) -> dict[str, Any]:
  """Returns the settings that a result depends on, by name.

  Args:
    settings: how something is enlarged.
  """
  found = settings._asdict()
  for name in ('overwrite', 'compare'):
    del found[name]
  return found


def number_of(digest: str) -> int:
  """Returns the number of a picture, which its noise depends on.

  Args:
    digest: SHA-256 of the bytes of its file, in hexadecimal digits.
  """
  return int(digest[:8], 16)


def _size(picture, upscaler, settings):
  """Returns the size that a picture gets."""
  given = picture.header
  return enlarged_size.choose(
    (given.height, given.width),
    upscaler.factor,
    settings.asked,
    any_factor=upscaler.takes_any_factor,
  )


def _wrapped(picture, size, upscaler):
  """Returns how a picture that wraps is drawn."""
  cut = upscaler.cut
  reach = cut.reach or cut.overlap
  given = picture.header.height, picture.header.width
  return Wrapped.of(given, size, reach, upscaler.evaluations)


def _refusal(picture, upscaler, settings) -> str:
  """Returns why a picture cannot be enlarged, or ''."""
  try:
    size = _size(picture, upscaler, settings)
    if settings.wrap:
      _wrapped(picture, size, upscaler)
    output_limits.check(
      output_kinds.by_suffix(picture.target),
      _layout(picture, size),
      _existing(picture.target.parent),
    )
  except ValueError as error:
    return str(error)
  return ''


def are_written(jobs: Sequence[Job], settings: Settings) -> list[bool]:
  """Returns which results are there already; a collective.

  Args:
    jobs: what is to be made.
    settings: how pictures are enlarged.

  Raises:
    ValueError: another file, or another result, has the name of a result.
  """
  if not jobs:
    return []
  targets = [job.picture.target for job in jobs]
  if settings.compare:
    compared_pictures.refuse_same_names(targets)
  looked = [
    _looked_at(jobs[i], settings.compare)
    for i in collectives.local_indices(len(jobs))
  ]
  found = collectives.in_turn(collectives.gather_objects(looked))
  own_results.refuse(
    pathlib.Path(path)
    for _, others in found
    for path in others
    if not settings.overwrite
  )
  return [is_done for is_done, _ in found]


def _looked_at(job, compare):
  """Returns (whether all is there, paths that other files have)."""
  paths = [job.picture.target]
  own = [marks.has(job.picture.target, job.mark)]
  if compare:
    paths.append(compared_pictures.path_of(job.picture.target))
    own.append(own_results.is_own(paths[-1], job.mark))
  others = [
    os.fspath(path)
    for path, is_own in zip(paths, own, strict=True)
    if not is_own and os.path.lexists(path)
  ]
  return all(own), others


class Group(NamedTuple):
  """Pictures of one size that are drawn together.

  Attributes:
    jobs: the pictures.
    enlargement: how they are drawn.
  """

  jobs: Sequence[Job]
  enlargement: Enlargement


def groups_of(upscaler: CanvasUpscaler, jobs: Sequence[Job]) -> list[Group]:
  """Returns the pictures in the order in which they are drawn.

  Args:
    upscaler: the stage.
    jobs: what is to be made.
  """
  found = drawn_together(upscaler, [job.drawn for job in jobs])
  return [
    Group([jobs[i] for i in chosen], enlargement)
    for chosen, enlargement in found
  ]


def drawn_together(
  upscaler: CanvasUpscaler, sizes: Sequence[enlarged_size.Size]
) -> list[tuple[list[int], Enlargement]]:
  """Returns which pictures are drawn together, and how.

  Pictures of few windows are drawn together, as many as fill a batch. All are
  drawn by one program.

  Args:
    upscaler: the stage.
    sizes: what each picture becomes.

  Returns:
    [(indices of the pictures, how they are drawn), ...].
  """
  upscaler = upscaler.fitted([made for size in sizes for made in size.passes])
  by_size: dict[enlarged_size.Size, list[int]] = {}
  for i, size in enumerate(sizes):
    by_size.setdefault(size, []).append(i)
  parts = []
  for size, some in by_size.items():
    windows = upscaler.plan(size.passes[0], at_once=1).block_windows
    together = max(1, upscaler.most_at_once // windows)
    for first in range(0, len(some), together):
      parts.append((size, some[first : first + together]))
  counts = [
    upscaler.plan(made, count=len(some), at_once=1).block_windows
    for size, some in parts
    for made in size.passes
  ]
  if not counts:
    return []
  at_once = canvas_plan.windows_at_once(
    counts, upscaler.most_at_once, upscaler.stage.mesh
  )
  return [
    (
      some,
      Enlargement.of(upscaler, size, count=len(some), at_once=at_once),
    )
    for size, some in parts
  ]


def announce(groups: Sequence[Group]) -> None:
  """Says how large results become, and what they cost; a collective.

  Args:
    groups: what is drawn.
  """
  for group in groups:
    one, many = group.jobs[0], len(group.jobs)
    height, width = one.source
    size = one.size
    times = math.sqrt(size.height * size.width / (height * width))
    what = printable(one.picture.path) if many == 1 else f'{many} pictures'
    kind = output_kinds.by_suffix(one.picture.target)
    needed = many * output_limits.needed_bytes(kind, _layout(one.picture, size))
    memory = group.enlargement.bytes
    memory += output_limits.memory_needed(kind, _layout(one.picture, size))
    windows = group.enlargement.num_windows
    if not collectives.is_first():
      continue
    print(
      f'{what}: {width}x{height} -> {size.width}x{size.height} pixels '
      f'({times:.3g} times), {windows:,} window{"s" * (windows > 1)}, '
      f'{memory / 2**30:.2g} GiB of memory, {kind.name} of at most '
      f'{needed / 1e6:,.3g} MB'
    )
    if size.warning:
      print(f'  {size.warning}')


def _layout(picture, size):
  """Returns the largest layout of a picture whose pixels were not read yet."""
  return Layout(size.width, size.height, 4, picture.header.bits)


def _existing(folder: pathlib.Path) -> pathlib.Path:
  """Returns a folder, or the nearest one above it that exists."""
  folder = folder.absolute()
  while not folder.exists():
    folder = folder.parent
  return folder
