"""Looks at a video, and reads its frames one after the other.

Frames are always read from the beginning, whatever is left out of them: the
same file then gives the same frames, where a jump to the middle may not.
"""

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from cdm.data.printable_name import printable
from cdm.data.transforms import BadImage, UnusableImage
from cdm.data.videos import frame_colours, frame_layout, video_kinds
from cdm.data.videos.frame_colours import Colours
from cdm.data.videos.frame_layout import Turn

# Frames that tell whether a video is interlaced, and how noisy it is.
LOOKED_AT = 24
_INTERLACED = (2, 3, 4, 5)  # FFmpeg's orders of fields
_LOSSLESS = (
  'ffv1', 'huffyuv', 'ffvhuff', 'utvideo', 'rawvideo', 'png', 'magicyuv',
  'v210', 'qtrle', 'wrapped_avframe',
)  # fmt: skip
_DEINTERLACE = 'mode=send_frame:deint=interlaced'


class Look(NamedTuple):
  """What a video file says of its pictures, and what its first frames show.

  Attributes:
    height, width: of a frame as it is displayed, in pixels.
    num_frames: of the pictures; damaged ones are counted too.
    time_base: seconds of one tick of the time stamps.
    rate: frames per second, in the mean.
    bits: of a sample.
    colours: what the numbers mean, as far as the file says it.
    pixel_aspect: width of a displayed pixel over its height.
    turn: how frames are turned for display.
    is_grey: whether there are no colours.
    is_centred: see `frame_colours.to_rgb`.
    is_interlaced: whether frames are made of two fields.
    is_lossless: whether its pictures are stored without loss.
    notes: what is changed or left out, as clauses.
  """

  height: int
  width: int
  num_frames: int
  time_base: Fraction
  rate: Fraction
  bits: int
  colours: Colours
  pixel_aspect: Fraction
  turn: Turn
  is_grey: bool
  is_centred: bool
  is_interlaced: bool
  is_lossless: bool
  notes: tuple[str, ...]


class Frame(NamedTuple):
  """A frame.

  Attributes:
    pts: its time stamp, in ticks of the time base.
    rgb: float32 [H, W, 3] in [-1, 1], as it is displayed.
  """

  pts: int
  rgb: np.ndarray


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Generator[tuple[Any, Any]]:
  """Context manager: yields (PyAV's container, the stream of its pictures).

  Raises:
    BadImage: the file is damaged, or has no pictures that move.
    UnusableImage: PyAV is not installed.
  """
  av = video_kinds.library(path)
  name = os.fspath(path)
  try:
    with av.open(video_kinds.address(path), metadata_errors='replace') as c:
      yield c, main_stream(c, name)
  except av.error.FFmpegError as error:
    raise BadImage(
      name,
      f'the video is damaged, or of a variant that is not supported '
      f'({error.strerror})',
    ) from error


def main_stream(container: Any, name: str) -> Any:
  """Returns the first stream of moving pictures of a container.

  Args:
    container: PyAV's.
    name: of the file, for the error.

  Raises:
    UnusableImage: there is none.
  """
  for stream in container.streams.video:
    if not stream.disposition.name or 'attached_pic' not in str(
      stream.disposition
    ):
      if stream.codec_context is not None:
        return stream
  raise UnusableImage(name, 'the file holds no moving pictures')


def look(path: str | os.PathLike[str]) -> Look:
  """Returns what a video is; every packet is read, and few are decoded.

  Raises:
    BadImage, UnusableImage: it cannot be enlarged; names the reason.
  """
  name = os.fspath(path)
  with opened(path) as (container, stream):
    frames = list(itertools.islice(_decoded(container, stream, []), LOOKED_AT))
    if not frames:
      raise BadImage(name, 'no frame of the video can be decoded')
    try:
      found = _look(stream, frames)
    except ValueError as error:
      raise UnusableImage(name, str(error)) from None
  with opened(path) as (container, stream):
    count = sum(
      bool(packet.size) and not packet.is_discard
      for packet in container.demux(stream)
    )
  return found._replace(num_frames=max(count, len(frames)))


def _look(stream, frames):
  """Returns a `Look`, without the number of frames."""
  first, context = frames[0], stream.codec_context
  colours = Colours(
    context.color_range,
    context.color_primaries,
    context.color_trc,
    context.colorspace,
  )
  if first.format.is_rgb or first.format.has_palette:
    # Its planes will be luma and chroma, which players expect limited.
    colours = colours._replace(range=frame_colours.LIMITED)
  turn = frame_layout.turn_of(first)
  is_grey = frame_layout.is_grey(first)
  if colours.transfer in (frame_colours.PQ, frame_colours.HLG):
    kind = 'PQ' if colours.transfer == frame_colours.PQ else 'HLG'
    raise ValueError(
      f'its colours are of high dynamic range ({kind}), which is not '
      'supported; convert it to standard dynamic range first'
    )
  if colours.matrix not in frame_colours.MATRICES:
    raise ValueError(
      f'its colours are made by matrix {colours.matrix} of ITU-T H.273, which '
      'is not supported; convert it to BT.709 first'
    )
  height, width = first.height, first.width
  aspect = Fraction(stream.sample_aspect_ratio or 1)
  notes = []
  if turn != Turn():
    notes.append('its frames are turned as they are displayed')
  if turn.transposed:
    height, width, aspect = width, height, 1 / aspect
  is_interlaced = context.field_order in _INTERLACED or any(
    frame.interlaced_frame for frame in frames
  )
  if is_interlaced:
    notes.append(
      'it is interlaced: fields become whole frames (bwdif), one for each two'
    )
  if frame_layout.has_alpha(first):
    notes.append('its transparency is left out')
  return Look(
    height=height,
    width=width,
    num_frames=0,
    time_base=stream.time_base,
    rate=stream.average_rate or stream.guessed_rate or Fraction(25),
    bits=frame_layout.bits_of(first),
    colours=colours,
    pixel_aspect=aspect,
    turn=turn,
    is_grey=is_grey,
    is_centred=first.format.name.startswith('yuvj') or context.name == 'mjpeg',
    is_interlaced=is_interlaced,
    is_lossless=context.name in _LOSSLESS,
    notes=tuple(notes),
  )


def frames(
  path: str | os.PathLike[str],
  look: Look,
  *,
  skip: int = 0,
  damaged: list[str] | None = None,
) -> Iterator[Frame]:
  """Yields the frames of a video in the order in which they are displayed.

  Time stamps are those of the file; where two do not increase, the second one
  is the next tick. A packet that cannot be decoded is left out.

  Args:
    path: the file.
    look: what `look` returned.
    skip: number of frames at the beginning that are left out.
    damaged: gets a reason for each packet that cannot be decoded.

  Raises:
    BadImage: the file cannot be read on.
    ValueError: a frame has another size than the first.
  """
  damaged = [] if damaged is None else damaged
  last = None
  with opened(path) as (container, stream):
    decoded = _decoded(container, stream, damaged)
    if look.is_interlaced:
      decoded = _deinterlaced(stream, decoded)
    for number, frame in enumerate(decoded):
      pts = _pts(frame, look)
      if last is not None and (pts is None or pts <= last):
        pts = last + 1
      last = pts = 0 if pts is None else pts
      if number >= skip:
        yield Frame(pts, _upright(path, frame, look))


def _upright(path, frame, look):
  """Returns the colours of a frame as it is displayed."""
  size = (frame.height, frame.width)
  shown = size[::-1] if look.turn.transposed else size
  if shown != (look.height, look.width):
    raise ValueError(
      f'{printable(path)}: a frame has {shown[1]}x{shown[0]} pixels, and the '
      f'first has {look.width}x{look.height}; cut the video where its size '
      'changes.'
    )
  colours = look.colours.assumed(frame.height)
  rgb = frame_layout.rgb_of(frame, colours, is_centred=look.is_centred)
  return look.turn.upright(rgb)


def _pts(frame, look):
  """Returns the time stamp of a frame in ticks of the stream, or None."""
  pts = frame.dts if frame.pts is None else frame.pts
  if pts is None or frame.time_base in (None, look.time_base):
    return pts
  return round(pts * frame.time_base / look.time_base)


def _decoded(container, stream, damaged):
  """Yields the frames that can be decoded."""
  av = video_kinds.library(container.name)
  for packet in container.demux(stream):
    try:
      yield from packet.decode()
    except av.error.InvalidDataError as error:
      damaged.append(str(error))


def _deinterlaced(stream, decoded):
  """Yields frames whose fields were made whole frames, one for each two."""
  av = video_kinds.library(stream.container.name)
  graph = av.filter.Graph()
  nodes = [
    graph.add_buffer(template=stream),
    graph.add('bwdif', _DEINTERLACE),
    graph.add('buffersink'),
  ]
  graph.link_nodes(*nodes).configure()
  for frame in itertools.chain(decoded, [None]):
    graph.push(frame)
    while True:
      try:
        yield graph.pull()
      except (av.error.BlockingIOError, av.error.EOFError):
        break
