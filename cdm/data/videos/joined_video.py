"""Joins finished pictures with everything else that the original file holds.

Sound and subtitles are copied packet by packet, and so are chapters and
metadata. The pictures are not encoded again.
"""

import contextlib
import heapq
import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cdm.data.files import atomic_files
from cdm.data.photographs import marks
from cdm.data.transforms import BadImage
from cdm.data.videos import (
  video_codecs,
  video_kinds,
  video_segments,
  video_source,
)
from cdm.data.videos.video_codecs import Encoding
from cdm.data.videos.video_kinds import Kind

# What describes the file, not what is in it.
_OF_FILES = {
  'major_brand', 'minor_version', 'compatible_brands', 'encoder', 'duration',
  'vendor_id', 'creation_software', '_statistics_writing_app',
}  # fmt: skip
_COPIED = ('audio', 'subtitle')


class Copied(NamedTuple):
  """What of a file is copied beside its pictures.

  Attributes:
    streams: indices of the streams.
    notes: what is left out, as clauses.
    bytes: of the file, as a bound of what they take.
  """

  streams: tuple[int, ...]
  notes: tuple[str, ...]
  bytes: int


def copied(path: str | os.PathLike[str], kind: Kind) -> Copied:
  """Returns what of a video goes into a result of a kind.

  Raises:
    BadImage, UnusableImage: the video cannot be read.
    ValueError: its sound does not go into such a file; the message is a reason.
  """
  streams, left = [], []
  with video_source.opened(path) as (container, main):
    for stream in container.streams:
      if stream.index == main.index:
        continue
      name = getattr(stream.codec_context, 'name', 'unknown')
      what = f'stream {stream.index} ({stream.type}, {name})'
      if stream.type in _COPIED and _fits(stream, kind):
        streams.append(stream.index)
      elif stream.type == 'audio':
        raise ValueError(
          f'its sound ({name}) does not go into {kind.name} files; write .mkv'
        )
      elif not _is_chapters(stream, container):
        left.append(f'{what} is left out')
  return Copied(tuple(streams), tuple(left), os.path.getsize(path))


def _is_chapters(stream, container):
  """Whether a stream holds the titles of chapters, which are copied as such."""
  return stream.type == 'data' and bool(container.chapters())


def _fits(stream, kind):
  """Returns whether a stream can be copied into files of a kind."""
  av = video_kinds.library('')
  try:
    with av.open(io.BytesIO(), 'w', format=kind.format) as container:
      container.add_stream_from_template(stream)
      container.start_encoding()
  except (ValueError, av.error.FFmpegError):
    return False
  return True


def join(
  segments: Sequence[pathlib.Path],
  source: pathlib.Path,
  target: pathlib.Path,
  encoding: Encoding,
  *,
  streams: Sequence[int],
  software: str,
  mark: str,
  strip: bool = False,
) -> None:
  """Writes a video; it appears whole or not at all.

  Args:
    segments: its pictures.
    source: the original.
    target: the file.
    encoding: how the pictures are encoded.
    streams: what is copied, see `Copied`.
    software: what made it, which becomes the comment of a file that has none.
    mark: see `marks`.
    strip: whether metadata are left out.

  Raises:
    OSError: it cannot be written.
  """
  av = video_kinds.library(source)
  kind = video_kinds.by_suffix(target)
  with atomic_files.write_atomically(target) as partial:
    with contextlib.ExitStack() as stack:
      given, main = stack.enter_context(video_source.opened(source))
      # What is raised from here on is an error of writing.
      stack.enter_context(video_segments.disk_errors(target))
      first = stack.enter_context(av.open(video_kinds.address(segments[0])))
      metadata = {} if strip else _metadata(given.metadata)
      # Without the library's name and random numbers.
      options = {'fflags': '+bitexact'}
      if any(key.startswith('com.') for key in metadata):
        options['movflags'] = '+use_metadata_tags'
      made = stack.enter_context(
        av.open(
          video_kinds.address(partial),
          'w',
          format=kind.format,
          container_options=options,
        )
      )
      made.metadata.update({'comment': software} | metadata)
      outputs = _outputs(
        made, kind, given, first, main, encoding, streams, strip
      )
      if chapters := given.chapters():
        made.set_chapters(chapters)
      made.start_encoding()
      _mux(made, given, outputs, segments, main, source)
    marks.append(partial, kind.name, mark)


def _metadata(given):
  return {k: v for k, v in given.items() if k.lower() not in _OF_FILES}


def _outputs(made, kind, given, first, main, encoding, streams, strip):
  """Returns {index of a stream: the stream that it becomes}."""
  outputs = {}
  for stream in given.streams:
    if stream.index == main.index:
      template = first.streams.video[0]
      new = made.add_stream_from_template(template, opaque=True)
      new.time_base = encoding.time_base
      # VP9 stores nothing of this with its pictures.
      video_codecs.describe(new.codec_context, encoding)
      if encoding.codec == 'hevc' and kind in (
        video_kinds.MP4,
        video_kinds.QUICKTIME,
      ):
        new.codec_context.codec_tag = 'hvc1'  # Apple's players know no other.
    elif stream.index in streams:
      new = made.add_stream_from_template(stream)
    else:
      continue
    if not strip:
      new.metadata.update(_metadata(stream.metadata))
    new.disposition = stream.disposition
    outputs[stream.index] = new
  return outputs


def _mux(made, given, outputs, segments, main, source):
  """Writes all packets in the order of their times."""
  others = [given.streams[i] for i in outputs if i != main.index]
  parts = [((p, main.index) for p in video_segments.packets(segments))]
  if others:
    parts.append(_copied(given, others, source))
  timed = (_timed(part, order) for order, part in enumerate(parts))
  for *_, packet, index in heapq.merge(*timed, key=lambda item: item[0]):
    packet.stream = outputs[index]
    made.mux(packet)


def _copied(given, streams, source):
  """Yields (packet, index of its stream) of what is copied."""
  av = video_kinds.library(source)
  try:
    for packet in given.demux(streams):
      if packet.size:
        yield packet, packet.stream.index
  except av.error.FFmpegError as error:
    raise BadImage(
      os.fspath(source), f'the video cannot be read on ({error.strerror})'
    ) from error


def _timed(part: Iterator[tuple[Any, int]], order: int) -> Iterator[tuple]:
  """Yields ((time, order), packet, stream) of packets."""
  time = 0.0
  for packet, index in part:
    stamp = packet.pts if packet.dts is None else packet.dts
    if stamp is not None:
      time = float(stamp * packet.time_base)
    yield (time, order), packet, index
