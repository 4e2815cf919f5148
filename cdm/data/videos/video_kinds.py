"""Tells videos from other files, and names the files that they become.

What a file is stands in its first bytes. The package that reads it, PyAV, is
optional; the extra `video` installs it.
"""

import importlib
import os
import pathlib
import re
import struct
from typing import Any, NamedTuple

from cdm.data import shell_commands
from cdm.data.printable_name import printable
from cdm.data.transforms import UnusableImage

# The names that are looked for in folders. TypeScript has .ts too.
SUFFIXES = (
  '.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.3gp', '.mpg', '.mpeg',
  '.mts', '.m2ts', '.vob', '.wmv', '.flv', '.ogv', '.y4m',
)  # fmt: skip
_HEAD_BYTES = 4096
_TS_PACKET = 188
# First boxes of an ISO file, and major brands of such files that are no videos.
_BOXES = (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip', b'pnot')
_NO_VIDEO = re.compile(
  rb'avi[fs]|mif1|miaf|msf1|hei[cxms]|hev[cxms]|crx |jp[2xm] |jxl |M4[AB] '
)
_ASF = bytes.fromhex('3026b2758e66cf11')


class Kind(NamedTuple):
  """A kind of video file that is written.

  Attributes:
    name: its name.
    format: FFmpeg's name of it.
    suffixes: how such files may be called.
    codecs: keys of `video_codecs.CODECS` that it holds, the usual one first.
    deep_codec: the usual one for more than 8 bits.
  """

  name: str
  format: str
  suffixes: tuple[str, ...]
  codecs: tuple[str, ...]
  deep_codec: str


MP4 = Kind(
  'MP4', 'mp4', ('.mp4', '.m4v'), ('h264', 'hevc', 'vp9', 'av1'), 'hevc'
)
QUICKTIME = Kind('QuickTime', 'mov', ('.mov',), ('h264', 'hevc'), 'hevc')
MATROSKA = Kind(
  'Matroska', 'matroska', ('.mkv',), ('h264', 'hevc', 'vp9', 'av1'), 'hevc'
)
WEBM = Kind('WebM', 'webm', ('.webm',), ('vp9', 'av1'), 'av1')
KINDS = (MP4, QUICKTIME, MATROSKA, WEBM)


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
  """Returns the kind that a video is written as; None if a file is none.

  Kinds that are read but not written become Matroska, which holds what they do.

  Args:
    path: the file.
  """
  if not os.path.isfile(path):  # A pipe would be waited for.
    return None
  try:
    with open(path, 'rb') as file:
      data = file.read(_HEAD_BYTES)
  except OSError:
    return None  # It is named when it is read.
  if data[4:8] in _BOXES:
    return _of_boxes(data)
  if data.startswith(b'\x1aE\xdf\xa3'):
    return WEBM if b'\x42\x82\x84webm' in data[:64] else MATROSKA
  others = (
    data[:4] == b'RIFF' and data[8:12] == b'AVI ',
    data.startswith(b'\0\0\1\xba'),  # MPEG program stream
    _is_transport_stream(data),
    data.startswith(b'FLV\1'),
    data.startswith(_ASF),
    data.startswith(b'OggS') and b'\x80theora' in data,
    data.startswith(b'YUV4MPEG2 '),
  )
  return MATROSKA if any(others) else None


def _of_boxes(data):
  """Returns the kind of a file of boxes, as MP4 and QuickTime have."""
  size = struct.unpack_from('>I', data)[0]
  if data[4:8] != b'ftyp':
    # QuickTime before 2001 had no brands. A first box of 0 or 1 bytes is one
    # that goes to the end, or whose size stands behind its name.
    return QUICKTIME if size in (0, 1) or size >= 8 else None
  brand = data[8:12]
  if _NO_VIDEO.match(brand):
    return None
  return QUICKTIME if brand == b'qt  ' else MP4


def _is_transport_stream(data):
  """Whether packets of 188 bytes follow each other, after 4 bytes in M2TS."""
  for first, length in ((0, _TS_PACKET), (4, _TS_PACKET + 4)):
    marks = data[first::length][:8]
    if len(marks) == 8 and set(marks) == {0x47}:
      return True
  return False


def is_name(path: str | os.PathLike[str]) -> bool:
  """Returns whether a name ends as that of a video that can be written."""
  suffix = pathlib.Path(path).suffix.lower()
  return any(suffix in kind.suffixes for kind in KINDS)


def suffix_of(path: pathlib.Path, kind: Kind) -> str:
  """Returns the suffix of the result of a video, its own if it can be."""
  own = path.suffix
  return own if own.lower() in kind.suffixes else kind.suffixes[0]


def by_suffix(path: pathlib.Path) -> Kind:
  """Returns the kind that a result is written as.

  Raises:
    ValueError: no video is written with this suffix.
  """
  for kind in KINDS:
    if path.suffix.lower() in kind.suffixes:
      return kind
  known = ', '.join(suffix for kind in KINDS for suffix in kind.suffixes)
  raise ValueError(
    f'{printable(path)}: a video stays a video; give a name that ends in one '
    f'of {known}.'
  )


def library(path: str | os.PathLike[str]) -> Any:
  """Returns PyAV, the package that reads and writes videos.

  Args:
    path: the video that needs it.

  Raises:
    UnusableImage: it is not installed; the message names the command.
  """
  try:
    return importlib.import_module('av')
  except ImportError as error:
    raise UnusableImage(
      os.fspath(path),
      'videos need PyAV, which is not installed; leave them out, or run: '
      f'{shell_commands.install("cdm[video]")}',
    ) from error


def address(path: str | os.PathLike[str]) -> str:
  """Returns what PyAV opens a file by, whatever its name looks like.

  A name such as `a:b.mp4` would be taken for the address of a protocol.
  """
  return f'file:{os.path.abspath(path)}'
