"""Chooses how the pictures of a video are encoded, and encodes them.

No frame refers to a later one (there are no B-frames). Time stamps are then
those of the frames, in the order in which they are stored, and pieces that were
encoded by themselves make a whole where they are put together.
"""

import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from cdm.data.videos import video_kinds
from cdm.data.videos.frame_colours import Colours
from cdm.data.videos.video_kinds import Kind

PIXEL_FORMATS = {8: 'yuv420p', 10: 'yuv420p10le'}


class Codec(NamedTuple):
  """A codec.

  Attributes:
    encoder: FFmpeg's name of what encodes it.
    crf: the usual quality, less is better.
    most_crf: the worst quality.
    options: of the encoder.
    held: memory that the encoder takes, in frames of 4:2:0. Measured at
      1920x1080 with two threads.
  """

  encoder: str
  crf: int
  most_crf: int
  options: Mapping[str, str]
  held: int


# x264's documentation calls 17 to 18 visually lossless. The others are set to
# about the same; they count otherwise.
CODECS = {
  'h264': Codec('libx264', 18, 51, {'preset': 'medium', 'bf': '0'}, 98),
  'hevc': Codec(
    'libx265',
    20,
    51,
    {'preset': 'medium', 'x265-params': 'bframes=0:log-level=error'},
    118,
  ),
  'vp9': Codec('libvpx-vp9', 24, 63, {'b': '0', 'cpu-used': '2'}, 109),
  'av1': Codec('libsvtav1', 24, 63, {'preset': '8'}, 135),
}


class Encoding(NamedTuple):
  """How pictures are encoded.

  Attributes:
    codec: a key of `CODECS`.
    crf: the quality.
    bits: of a sample, 8 or 10.
    height, width: of a frame, even numbers of pixels.
    time_base, pixel_aspect: see `video_source.Look`.
    rate: frames per second, which encoders plan with; 1 to 240.
    colours: what the samples mean.
  """

  codec: str
  crf: int
  bits: int
  height: int
  width: int
  time_base: Fraction
  rate: Fraction
  pixel_aspect: Fraction
  colours: Colours

  @property
  def pixel_format(self) -> str:
    """FFmpeg's name of the planes."""
    return PIXEL_FORMATS[self.bits]

  @property
  def memory(self) -> int:
    """About how many bytes of memory the encoder takes."""
    return CODECS[self.codec].held * empty(self).nbytes


def choose(
  kind: Kind, *, bits: int, codec: str | None, crf: int | None
) -> tuple[str, int, int]:
  """Returns (codec, crf, bits of a sample) of a result.

  More than 8 bits become 10.

  Args:
    kind: of the file.
    bits: of the original.
    codec, crf: what is asked for; None is the usual.

  Raises:
    ValueError: the kind or the encoders cannot do so; the message is a reason.
  """
  bits = 8 if bits <= 8 else 10
  if codec is None:
    codec = kind.codecs[0] if bits == 8 else kind.deep_codec
  if codec not in kind.codecs:
    raise ValueError(
      f'--codec={codec} does not go into {kind.name} files; use '
      f'{" or ".join(kind.codecs)}, or another suffix'
    )
  if codec == 'vp9':
    bits = 8  # its encoder has no more
  known = CODECS[codec]
  if crf is None:
    crf = known.crf
  if not 0 <= crf <= known.most_crf:
    raise ValueError(f'--crf={crf}: {codec} takes 0 to {known.most_crf}')
  return codec, crf, bits


def has_encoder(codec: str) -> bool:
  """Returns whether the installed PyAV encodes a codec."""
  av = video_kinds.library('')
  try:
    av.Codec(CODECS[codec].encoder, 'w')
  except ValueError:
    return False
  return True


def encode(
  container: Any,
  encoding: Encoding,
  frames: Iterable[tuple[int, np.ndarray]],
  *,
  key_every: int,
) -> int:
  """Encodes frames into a container; returns how many.

  Args:
    container: PyAV's, open for writing, with no stream yet.
    encoding: how.
    frames: (time stamp, planes as `packed` makes them).
    key_every: the most frames between two that refer to no other.
  """
  av = video_kinds.library(container.name)
  # Its encoder of AV1 tells every setting, unless it is to tell errors alone.
  os.environ.setdefault('SVT_LOG', '1')
  codec, count = CODECS[encoding.codec], 0
  options = {**codec.options, 'crf': str(encoding.crf)}
  stream = container.add_stream(
    codec.encoder, rate=encoding.rate, options=options
  )
  stream.width, stream.height = encoding.width, encoding.height
  stream.pix_fmt = encoding.pixel_format
  stream.time_base = stream.codec_context.time_base = encoding.time_base
  stream.gop_size = key_every
  describe(stream.codec_context, encoding)
  for pts, planes in frames:
    frame = av.VideoFrame.from_ndarray(planes, encoding.pixel_format)
    frame.pts, frame.time_base = pts, encoding.time_base
    _tag(frame, encoding.colours)
    _mux(container, stream.encode(frame))
    count += 1
  _mux(container, stream.encode())
  return count


def describe(target: Any, encoding: Encoding) -> None:
  """Writes colours and the shape of pixels into PyAV's codec context."""
  _tag(target, encoding.colours)
  target.sample_aspect_ratio = encoding.pixel_aspect


def _tag(target, colours):
  target.color_range = colours.range
  target.color_primaries = colours.primaries
  target.color_trc = colours.transfer
  target.colorspace = colours.matrix


def _mux(container, packets):
  for packet in packets:
    packet.dts = packet.pts
    container.mux(packet)


def empty(encoding: Encoding) -> np.ndarray:
  """Returns the packed planes of a frame, to be filled by `fill`.

  They lie one after the other: [H * 3 / 2, W], uint8 or uint16.
  """
  dtype = np.uint8 if encoding.bits == 8 else np.uint16
  return np.empty((encoding.height * 3 // 2, encoding.width), dtype)


def fill(packed: np.ndarray, first: int, planes: list[np.ndarray]) -> None:
  """Writes the planes of a band of rows into those of a frame.

  Args:
    packed: what `empty` returned.
    first: row of the frame at which the band begins, even.
    planes: Y [n, W], Cb and Cr [n/2, W/2].
  """
  height, width = len(packed) * 2 // 3, packed.shape[1]
  packed[first : first + len(planes[0])] = planes[0]
  chroma = packed[height:].reshape(2, height // 2, width // 2)
  for plane, own in zip(planes[1:], chroma, strict=True):
    own[first // 2 : first // 2 + len(plane)] = plane
