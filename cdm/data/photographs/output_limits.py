"""Refuses, before any work, pictures that a format or a disk cannot hold."""

import os
import shutil

from cdm.data.photographs import output_kinds
from cdm.data.photographs.output_kinds import Layout, OutputKind

# A share of the samples' bytes that a lossy file takes at most: noise at JPEG
# 95 took 0.65 of them, photographs a tenth to a third.
_LOSSY_SHARE = 0.7
_OVERHEAD = 2**16  # headers and metadata without a profile
# What is in memory while rows are written: some bands of each thread.
_BANDS_BYTES = 2**28
# Of a pixel that Pillow holds, and that an encoder holds beside it, measured.
_WHOLE_BYTES = {'WebP': 16, 'AVIF': 40}


def needed_bytes(kind: OutputKind, layout: Layout) -> int:
  """Returns how many bytes a file may take at most."""
  stored = output_kinds.stored(kind, layout)
  # Deflate adds 5 bytes to 16 kB that it cannot compress; PNG one to a row.
  raw = stored.raw_bytes + stored.raw_bytes // 1000 + stored.height
  share = 1 if kind.quality is None else _LOSSY_SHARE
  return int(raw * share) + _OVERHEAD


def memory_needed(kind: OutputKind, layout: Layout) -> int:
  """Returns about how many bytes of memory writing takes."""
  if kind.is_banded:
    return _BANDS_BYTES
  return _WHOLE_BYTES[kind.name] * layout.width * layout.height


def check(
  kind: OutputKind, layout: Layout, folder: str | os.PathLike[str]
) -> None:
  """Checks that a picture can be written.

  Args:
    kind: what is to be written.
    layout: of the picture.
    folder: where, an existing folder.

  Raises:
    ValueError: the format or the disk cannot hold it.
  """
  size = f'{layout.width:,}x{layout.height:,} pixels'
  if max(layout.width, layout.height) > kind.max_side:
    raise ValueError(
      f'The picture would have {size}, and {kind.name} holds at most '
      f'{kind.max_side:,} on a side; write .png or .tif, or a smaller picture.'
    )
  stored = output_kinds.stored(kind, layout)
  if kind.max_bytes is not None and stored.raw_bytes > kind.max_bytes:
    raise ValueError(
      f'The picture would have {size}, {stored.raw_bytes:,} bytes, and '
      f'{kind.name} holds at most {kind.max_bytes:,}; write .png or .tif.'
    )
  needed, free = needed_bytes(kind, layout), shutil.disk_usage(folder).free
  if needed > free:
    raise ValueError(
      f'The picture would have {size} and may take {needed:,} bytes as '
      f'{kind.name}, and the disk of {os.fspath(folder)!r} has {free:,} left; '
      'free some space, or write to another disk.'
    )
