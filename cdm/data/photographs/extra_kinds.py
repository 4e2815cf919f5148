"""Reads HEIC, JPEG XL and camera RAW files, by packages that are optional.

They are found by their content as all kinds are. The extra `formats` installs
the packages: pillow-heif, pillow-jxl-plugin and rawpy.
"""

import contextlib
import importlib
import io
import re
import struct
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from cdm.data import deep_samples, shell_commands, tiff_tags
from cdm.data.image_parts import Unreadable, Unusable
from cdm.data.photographs import jxl_size, tiff_directory

_SUB_DIRECTORIES, _SUBFILE, _MAKE, _DNG = 330, 254, 271, 50706
_REDUCED = 1
_DEVELOPED = (
  'its raw values were developed by LibRaw with the white balance of the '
  'camera, to sRGB'
)


class Decoded(NamedTuple):
  """What a package made of a file, as a viewer shows it.

  Attributes:
    samples: uint8 or uint16 [H, W] or [H, W, C].
    has_alpha: whether the last channel is alpha.
    info: metadata by Pillow's names.
    notes: {kind of note: text}, see `image_notes`.
    is_srgb: whether the colours are sRGB, whatever the metadata say.
  """

  samples: np.ndarray
  has_alpha: bool
  info: dict[str, Any]
  notes: dict[str, str]
  is_srgb: bool = False


class Opened(NamedTuple):
  """A file that was opened but not decoded.

  Attributes:
    size: (width, height).
    decode: decodes the pixels.
  """

  size: tuple[int, int]
  decode: Callable[[], Decoded]


class Extra(NamedTuple):
  """A kind of file that an optional package reads.

  Attributes:
    name: its name.
    module: the module to be imported.
    open_file: opens the bytes of a file with that module.
    working_bytes: memory per pixel that decoding takes.
  """

  name: str
  module: str
  open_file: Callable[[Any, bytes], Opened]
  working_bytes: int


def kind_of(data: bytes) -> Extra | None:
  """Returns the kind of a file, None if it is none of these."""
  if re.match(rb'\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n', data):
    return _JXL
  if data[4:8] == b'ftyp' and _is_heic(data):
    return _HEIC
  return _RAW if _is_raw(data) else None


@contextlib.contextmanager
def opened(kind: Extra, data: bytes) -> Generator[Opened]:
  """Context manager that opens a file; every error in it becomes a reason.

  Raises:
    Unusable: the package is not installed; the reason names the command.
    Unreadable: the file is damaged, or of a variant that is not supported.
  """
  module = _module(kind)
  try:
    yield kind.open_file(module, data)
  except (Unreadable, MemoryError):
    raise
  except Exception as error:  # Each package has errors of its own.
    raise Unreadable(
      f'the {kind.name} file is damaged, or of a variant that is not supported'
    ) from error


def _module(kind):
  try:
    return importlib.import_module(kind.module)
  except ImportError as error:
    raise Unusable(
      f'{kind.name} files need a package that is not installed; run: '
      f'{shell_commands.install("cdm[formats]")}'
    ) from error


def _is_heic(data):
  """Whether the brands of an ISO base media file are those of HEIC."""
  length = struct.unpack_from('>I', data)[0]
  brands = data[8 : min(length, 256)]
  return brands[:3] != b'avi' and re.search(rb'hei[cxms]|hev[cxms]', brands)


def _is_raw(data):
  """Whether a file holds the raw values of a camera.

  Most such files are TIFF files whose first page is a small preview.
  """
  if re.match(
    rb'FUJIFILMCCD-RAW|II(?:RO|RS|U\0)|MMOR|....ftypcrx |II\*\0....CR\x02',
    data,
    re.DOTALL,
  ):
    return True
  if not re.match(rb'II\*\0|MM\0\*', data):
    return False
  try:
    layout, start = tiff_tags.layout_of(data)
    first = tiff_directory.read(data, layout, start)
  except struct.error:
    return False
  subfile = tiff_directory.number(first, _SUBFILE, layout.order)
  preview = subfile == _REDUCED and {_SUB_DIRECTORIES, _MAKE} <= first.keys()
  return _DNG in first or preview


def _open_heic(pillow_heif, data):
  file = pillow_heif.open_heif(
    io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False
  )

  def decode():
    samples = np.asarray(file)
    if samples.dtype != np.uint8:
      white = 2 ** file.info['bit_depth'] - 1
      samples = deep_samples.scale(samples, declared=white, full=65535).pixels
    # Pictures are handed over upright, whatever their EXIF block says.
    return Decoded(samples, file.has_alpha, dict(file.info), {})

  return Opened(file.size, decode)


def _open_jxl(plugin, data):
  def decode():
    image = plugin.JXLImageFile(io.BytesIO(data))
    if image.mode not in ('L', 'LA', 'RGB', 'RGBA', 'I;16'):
      raise Unusable(
        f'the JPEG XL file has samples of the kind {image.mode}, which is not '
        'supported; save it as a 16-bit PNG or TIFF'
      )
    return Decoded(
      np.asarray(image), image.mode[-1] == 'A', dict(image.info), {}
    )

  return Opened(jxl_size.of(data), decode)


def _open_raw(rawpy, data):
  file = rawpy.imread(io.BytesIO(data))
  sizes = file.sizes

  def decode():
    try:
      samples = file.postprocess(use_camera_wb=True, output_bps=16)
    finally:
      file.close()
    return Decoded(samples, False, {}, {'developed': _DEVELOPED}, True)

  return Opened((sizes.width, sizes.height), decode)


_HEIC = Extra('HEIC', 'pillow_heif', _open_heic, 16)
_JXL = Extra('JPEG XL', 'pillow_jxl.JpegXLImagePlugin', _open_jxl, 16)
_RAW = Extra('camera RAW', 'rawpy', _open_raw, 24)
EXTRAS = (_HEIC, _JXL, _RAW)
