"""Takes the planes and the orientation out of PyAV's frames."""

import re
from typing import Any, NamedTuple

import numpy as np

from cdm.data.videos import frame_colours
from cdm.data.videos.frame_colours import Colours

_PLANAR = re.compile(r'yuv[ja]?4(?:20|22|44|40)p(\d+le)?|gray(\d+le)?')
# The same samples, laid out as planes.
_SAME = {
  'nv12': 'yuv420p',
  'nv21': 'yuv420p',
  'nv16': 'yuv422p',
  'yuyv422': 'yuv422p',
  'uyvy422': 'yuv422p',
  'yvyu422': 'yuv422p',
  'p010le': 'yuv420p10le',
  'p210le': 'yuv422p10le',
  'y210le': 'yuv422p10le',
}
_ONE = 2**16  # in a display matrix


class Turn(NamedTuple):
  """How a frame is turned for display.

  Attributes:
    transposed: whether rows become columns, before the flips.
    flipped_rows, flipped_columns: whether they go the other way round.
  """

  transposed: bool = False
  flipped_rows: bool = False
  flipped_columns: bool = False

  def upright(self, x: np.ndarray) -> np.ndarray:
    """Returns an image [H, W, C] as it is displayed."""
    if self.transposed:
      x = x.swapaxes(0, 1)
    return np.ascontiguousarray(
      x[:: -1 if self.flipped_rows else 1, :: -1 if self.flipped_columns else 1]
    )


def turn_of(frame: Any) -> Turn:
  """Returns the turn that the display matrix of a frame asks for.

  Raises:
    ValueError: it is none by right angles; the message is a reason.
  """
  found = [d for d in frame.side_data.keys() if d.type.name == 'DISPLAYMATRIX']
  if not found:
    return Turn()
  # x' = a x + c y,  y' = b x + d y
  a, b, _, c, d = np.frombuffer(bytes(found[0]), np.int32)[:5].tolist()
  if {abs(a), abs(d)} == {_ONE} and b == c == 0:
    return Turn(False, d < 0, a < 0)
  if {abs(b), abs(c)} == {_ONE} and a == d == 0:
    return Turn(True, b < 0, c < 0)
  raise ValueError(
    'it is turned for display by an angle that is no right one; turn it '
    'first, or take the turn out of the file'
  )


def bits_of(frame: Any) -> int:
  """Returns the bits of a sample of a frame."""
  return max(component.bits for component in frame.format.components)


def is_grey(frame: Any) -> bool:
  """Returns whether a frame has no colours."""
  return frame.format.name.startswith('gray')


def has_alpha(frame: Any) -> bool:
  """Returns whether a frame may be transparent."""
  name = frame.format.name
  return name.startswith(('yuva', 'gbrap', 'rgba', 'bgra', 'argb', 'abgr'))


def rgb_of(frame: Any, colours: Colours, *, is_centred: bool) -> np.ndarray:
  """Returns the colours of a frame, float32 [H, W, 3] in [-1, 1].

  Args:
    frame: a frame as it was decoded.
    colours: what its planes mean.
    is_centred: see `frame_colours.to_rgb`.
  """
  name = frame.format.name
  if frame.format.is_rgb or frame.format.has_palette:
    deep = bits_of(frame) > 8
    rgb = frame.to_ndarray(format='rgb48le' if deep else 'rgb24')
    white = np.float32(65535 if deep else 255)
    return (2 * rgb.astype(np.float32) - white) * np.float32(1 / white)
  if not _PLANAR.fullmatch(name):
    usual = 'yuv444p' if bits_of(frame) <= 8 else 'yuv444p16le'
    # No range is converted: the numbers keep their meaning.
    same = {'src_color_range': 1, 'dst_color_range': 1}
    frame = frame.reformat(format=_SAME.get(name, usual), **same)
  if name.startswith('yuvj'):
    colours = colours._replace(range=frame_colours.FULL)
  bits = frame.format.components[0].bits
  count = 1 if is_grey(frame) else 3
  planes = [_plane(frame, i, bits) for i in range(count)]
  return frame_colours.to_rgb(planes, colours, bits=bits, is_centred=is_centred)


def _plane(frame, index, bits):
  """Returns a plane [h, w] of a frame, whose lines may be padded."""
  plane = frame.planes[index]
  dtype = np.dtype(np.uint8 if bits == 8 else '<u2')
  lines = np.frombuffer(plane, dtype)
  wide = plane.line_size // dtype.itemsize
  return lines.reshape(-1, wide)[: plane.height, : plane.width]
