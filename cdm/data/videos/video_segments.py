"""Stores finished pieces of a video, which a later start goes on from.

They lie in a folder beside the result, as NUT files, which hold every codec
and any time base. Each appears whole or not at all.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import numpy as np

from cdm.data.files import atomic_files
from cdm.data.videos import video_codecs, video_kinds
from cdm.data.videos.video_codecs import Encoding

FRAMES = 32  # of a segment: what a killed run loses at most
_FORMAT = 'nut'
_NAME = re.compile(r'[0-9a-f]{16}-\d{6}\.nut')


def folder_of(target: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the segments of a result."""
  # A name has 255 bytes at most.
  name = os.fsencode(target.name)[:200].decode(errors='ignore')
  return target.with_name(f'.{name}.segments')


def path_of(folder: pathlib.Path, digest: str, number: int) -> pathlib.Path:
  """Returns the path of a segment.

  Args:
    folder: what `folder_of` returned.
    digest: of all that the frames depend on, in hexadecimal digits.
    number: of the segment.
  """
  return folder / f'{digest[:16]}-{number:06d}.nut'


def finished(folder: pathlib.Path, digest: str) -> list[int]:
  """Returns the number of frames of each segment that is there, up to a gap.

  Only the last one may have fewer than `FRAMES`.
  """
  counts: list[int] = []
  while not counts or counts[-1] == FRAMES:
    count = _count(path_of(folder, digest, len(counts)))
    if not count:
      break
    counts.append(count)
  return counts


def _count(path):
  """Returns the number of frames in a segment, 0 if it cannot be used."""
  if not path.is_file():
    return 0
  av = video_kinds.library(path)
  try:
    with av.open(video_kinds.address(path), format=_FORMAT) as container:
      return sum(bool(packet.size) for packet in container.demux(video=0))
  except av.error.FFmpegError:
    return 0


def clear(folder: pathlib.Path, keep: str = '') -> None:
  """Removes the segments and unfinished files of a folder.

  Args:
    folder: what `folder_of` returned; need not exist.
    keep: digest of segments that stay.
  """
  if not folder.is_dir():
    return
  atomic_files.remove_abandoned(folder)
  for path in folder.iterdir():
    is_kept = keep and path.name.startswith(f'{keep[:16]}-')
    if _NAME.fullmatch(path.name) and not is_kept:
      path.unlink()


def write(
  path: pathlib.Path,
  encoding: Encoding,
  frames: Iterable[tuple[int, np.ndarray]],
) -> None:
  """Writes a segment.

  Args:
    path: what `path_of` returned.
    encoding: how frames are encoded.
    frames: see `video_codecs.encode`.

  Raises:
    OSError: it cannot be written.
  """
  with atomic_files.write_atomically(path) as partial, disk_errors(path):
    av = video_kinds.library(path)
    with av.open(
      video_kinds.address(partial), 'w', format=_FORMAT
    ) as container:
      video_codecs.encode(container, encoding, frames, key_every=FRAMES)


@contextlib.contextmanager
def disk_errors(path: pathlib.Path) -> Generator[None]:
  """Context manager that raises FFmpeg's errors of a disk as OSError."""
  av = video_kinds.library(path)
  try:
    yield
  except av.error.FFmpegError as error:
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def packets(paths: Iterable[pathlib.Path]) -> Iterator[Any]:
  """Yields PyAV's packets of segments, one after the other.

  Raises:
    ValueError: two segments were not encoded alike.
  """
  extra = None
  for path in paths:
    av = video_kinds.library(path)
    with av.open(video_kinds.address(path), format=_FORMAT) as container:
      own = container.streams.video[0].codec_context.extradata
      if extra is None:
        extra = own
      if own != extra:
        raise ValueError(
          f'{path} was encoded by another program than the segments before '
          f'it; remove {path.parent} and start again.'
        )
      for packet in container.demux(video=0):
        if packet.size:
          yield packet
