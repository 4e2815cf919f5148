"""Chooses whether samples are kept as PNG files or shards, and checks the disk.

A million small files, or one archive of 252 GB, is more than file systems and
readers are made for. Above `MOST_PNGS` images, samples are therefore kept as
ArrayRecord shards, in the format of `cdm prepare`.
"""

import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import NamedTuple

from cdm.data import record_format
from cdm.distributed import collectives
from cdm.sampling import cascade

FORMATS = ('png', 'array_records')
KEPT = ('all', 'last')
MOST_PNGS = 100_000  # images; FID takes 50,000, CAS 1.28 million

# A shard is lost entirely when a run is killed in its middle, and processes
# share out whole shards. So shards are small: 4,096 images of 64 pixels, 341 of
# 256 pixels.
SHARD_BYTES = 2**26
FEWEST, MOST = 64, 4096  # records of a shard

# Photographs keep 0.6 to 0.9 of their raw bytes as PNG or in a shard; simple
# drawings keep less.
LEAST_SHARE = 0.5


class Storage(NamedTuple):
  """How samples are kept on disk.

  Attributes:
    format: one of `FORMATS`.
    kept: 'all' keeps the images of every stage, 'last' those of the last.
    reason: why this format was chosen, for the user.
  """

  format: str = 'png'
  kept: str = 'all'
  reason: str = ''

  def stages(self, stages: Sequence[cascade.Stage]) -> list[cascade.Stage]:
    """Returns those stages whose images are kept."""
    return list(stages if self.kept == 'all' else stages[-1:])

  def manifest(
    self, stages: Sequence[cascade.Stage], num: int
  ) -> record_format.Storage | None:
    """Returns the entry `storage` of the manifest; None for PNG files.

    A folder of PNG files can be continued with more images or more stages, one
    of shards cannot, because the names of the shards depend on their number.

    Args:
      stages: the stages of the cascade.
      num: number of images.
    """
    if self.format == 'png':
      return None
    kept = self.stages(stages)
    largest = max(stage.image_size for stage in kept)
    fitting = SHARD_BYTES // (3 * largest * largest)
    return {
      'format': self.format,
      'images': num,
      'records_per_shard': min(MOST, max(FEWEST, fitting)),
      'folders': [stage.name for stage in kept],
    }


PNG_FILES = Storage()


def choose(
  out: str | os.PathLike,
  stages: Sequence[cascade.Stage],
  *,
  num: int,
  format: str | None = None,
  kept: str | None = None,
  overwrite: bool = False,
) -> Storage:
  """Chooses how samples are kept. An earlier start decides, if there was one.

  A collective: every process must call it.

  Args:
    out: output folder, which need not exist.
    stages: the stages of the cascade.
    num: number of images.
    format: the format that the user asks for, or None.
    kept: the stages that the user asks for, or None.
    overwrite: whether what `out` holds may be replaced.

  Raises:
    ValueError: `out` holds samples in another format than the user asks for.
  """
  there = _format_there(out, stages)
  reason = '--format'
  if there is not None and format is None:
    format, reason = there[0], f'as the samples that are in {out} already'
  elif format is None:
    format = 'png' if num <= MOST_PNGS else 'array_records'
    compared = 'at most' if format == 'png' else 'more than'
    reason = f'{num:,} images are {compared} {MOST_PNGS:,}; see --format'
  elif there is not None and there[0] != format and not overwrite:
    raise ValueError(
      f'{out} holds samples as {_shown(there[0])}, and --format={format} asks '
      f'for {_shown(format)}; leave --format out, give another --out, or '
      '--overwrite to replace them.'
    )
  if kept is None and there is not None and there[0] == format:
    kept = there[1]
  if kept is None:
    kept = 'all' if format == 'png' or len(stages) == 1 else 'last'
  return Storage(format, kept, reason)


def announce(storage: Storage) -> None:
  """Prints the chosen format and its reason, in process 0."""
  if collectives.is_first():
    which = 'every stage' if storage.kept == 'all' else 'the last stage'
    print(
      f'Samples of {which} are kept as {_shown(storage.format)} '
      f'({storage.reason}).',
      flush=True,
    )


def _format_there(out, stages):
  """Returns (format, kept) of the samples in a folder, or None without any."""
  answers = (
    None,
    ('png', 'all'),
    ('array_records', 'all'),
    ('array_records', 'last'),
  )
  found = 0
  manifest = pathlib.Path(out) / record_format.SAMPLING
  if collectives.is_first() and manifest.exists():
    stored = record_format.read_storage(out)
    found = 1
    if stored is not None:
      found = 2 if len(stored['folders']) == len(stages) else 3
  return answers[int(collectives.broadcast_from_first(found))]


def _shown(format):
  return 'PNG files' if format == 'png' else 'ArrayRecord shards'


def check_space(
  out: str | os.PathLike,
  storage: Storage,
  stages: Sequence[cascade.Stage],
  *,
  missing: int,
  num: int,
) -> None:
  """Compares the images that are to be written with the free space.

  Args:
    out: output folder, which exists.
    storage: how samples are kept.
    stages: the stages of the cascade.
    missing: number of images that are still to be drawn.
    num: number of images in all; PNG files are copied into an archive.

  Raises:
    ValueError: the images cannot fit, even if they are easy to compress.
  """
  sizes = [3 * stage.image_size**2 for stage in storage.stages(stages)]
  raw = missing * sum(sizes)
  archive = num * sizes[-1] if storage.format == 'png' and missing else 0
  free = shutil.disk_usage(out).free
  if LEAST_SHARE * raw + archive > free:
    raise ValueError(
      f'{out} has {free / 1e9:.3g} GB free, and {missing:,} images of '
      f'{(raw + archive) / 1e9:.3g} GB before compression are to be written '
      'there. Free space, give another --out, or keep fewer stages with '
      '--stages=last.'
    )
  if raw + archive > free and collectives.is_first():
    print(
      f'warning: {out} has {free / 1e9:.3g} GB free, and the images that are '
      f'to be written have {(raw + archive) / 1e9:.3g} GB before compression.'
    )
