"""Recognises the kind of an image file by its first bytes, and opens it.

Only the kinds of `KINDS` are opened, each by its own class of Pillow. Pillow's
`Image.open` would try all that it knows, and some of those start another
program with the file, as EPS does.
"""

import contextlib
import functools
import importlib
import io
import os
import re
import warnings
from collections.abc import Callable, Generator
from typing import NamedTuple

from PIL import Image

from cdm.data import (
  jpeg_segments,
  png_chunks,
  shell_commands,
  tiff_tags,
  webp_chunks,
)
from cdm.data.image_parts import (
  ImageParts,
  Unreadable,
  Unusable,
  orientation_of,
  profile_name,
)

# What Pillow has to say of metadata does not help the user of cdm, and the
# number of pixels is checked by cdm.
warnings.filterwarnings('ignore', module=r'PIL\.')


class Kind(NamedTuple):
  """A kind of image file that Pillow decodes.

  Attributes:
    name: its name.
    head: regular expression of the first bytes.
    plugin: module and class of Pillow.
    split: takes the metadata out, see `ImageParts`.
  """

  name: str
  head: bytes
  plugin: tuple[str, str]
  split: Callable[[bytes], ImageParts] = ImageParts


KINDS = (
  Kind(
    'JPEG',
    rb'\xff\xd8\xff',
    ('JpegImagePlugin', 'JpegImageFile'),
    jpeg_segments.split,
  ),
  Kind(
    'PNG',
    re.escape(png_chunks.SIGNATURE),
    ('PngImagePlugin', 'PngImageFile'),
    png_chunks.split,
  ),
  Kind(
    'WebP',
    rb'RIFF....WEBP',
    ('WebPImagePlugin', 'WebPImageFile'),
    webp_chunks.split,
  ),
  Kind(
    'TIFF',
    rb'II[*+]\0|MM\0[*+]',
    ('TiffImagePlugin', 'TiffImageFile'),
    tiff_tags.split,
  ),
  Kind('GIF', rb'GIF8[79]a', ('GifImagePlugin', 'GifImageFile')),
  Kind('BMP', rb'BM', ('BmpImagePlugin', 'BmpImageFile')),
  Kind(
    'AVIF',
    rb'....ftyp(?:avi[fs]|m[is]f1)',
    ('AvifImagePlugin', 'AvifImageFile'),
  ),
  Kind('PBM, PGM or PPM', rb'P[1-6]\s', ('PpmImagePlugin', 'PpmImageFile')),
)

# What files that are called like images often are, for the error message.
_OTHERS = (
  (rb'\s*(?:<\?xml[^>]*>\s*)?<svg', 'an SVG drawing'),
  (rb'\s*<(?:!doctype )?html', 'a web page'),
  (rb'\s*[<{[]', 'a text, such as a page or an error of a server'),
  (rb'%!PS|\xc5\xd0\xd3\xc6', 'a PostScript (EPS) document'),
  (rb'%PDF', 'a PDF document'),
  (rb'\xd7\xcd\xc6\x9a|\x01\0\t\0', 'a Windows metafile'),
  (rb'....ftyp(?:hei|hev|mif1)', 'a HEIC photograph'),
  (rb'\0\0\0\x0cjP  |\xff\x4f\xff\x51', 'a JPEG 2000 image'),
  (rb'8BPS', 'a Photoshop document'),
  (rb'\0\0\x01\0', 'a Windows icon'),
  (rb'PK\x03\x04', 'a zip archive'),
  (rb'\x1f\x8b', 'gzip data'),
  (rb'\0', 'zeros, as a full disk or a broken copy leaves them'),
  (rb'version https://git-lfs', 'a pointer of Git LFS instead of the file'),
)
KINDS_IN_WORDS = 'JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, PBM, PGM or PPM'


def kind_of(data: bytes) -> Kind:
  """Returns the kind of an image file.

  Raises:
    Unreadable: the file is none of `KINDS`; the reason says what it may be.
  """
  if not data:
    raise Unreadable('the file is empty')
  for kind in KINDS:
    if re.match(kind.head, data, re.DOTALL):
      return kind
  what = foreign_kind(data)
  if what is not None:
    raise Unreadable(f'it is {what}, not a {KINDS_IN_WORDS} image')
  raise Unreadable(f'it is not a {KINDS_IN_WORDS} image')


def foreign_kind(data: bytes) -> str | None:
  """Returns what a file is that is no image, e.g. 'a web page', if known."""
  for head, what in _OTHERS:
    if re.match(head, data[:200], re.DOTALL | re.IGNORECASE):
      return what
  return None


@contextlib.contextmanager
def open_image(kind: Kind, data: bytes) -> Generator[Image.Image]:
  """Context manager that opens a file; every error in it becomes a reason.

  Raises:
    Unreadable: the file is damaged, or of a variant that is not supported.
  """
  try:
    with _open(kind, data) as image:
      yield image
  except (Unreadable, MemoryError):
    raise
  except Exception as error:  # Pillow raises nearly anything on damaged bytes.
    raise Unreadable(_reason(kind, str(error))) from error


def size_of_file(path: str | os.PathLike[str], name: str) -> tuple[int, int]:
  """Returns (width, height) of a file, of which no pixel is decoded.

  Args:
    path: of the file.
    name: of its kind.

  Raises:
    OSError, SyntaxError: it is damaged, or is of another kind.
  """
  kind = next(kind for kind in KINDS if kind.name == name)
  with _opener(*kind.plugin)(os.fspath(path)) as image:
    return image.size


def _open(kind, data):
  open_file = _opener(*kind.plugin)
  try:
    return open_file(io.BytesIO(data))
  except Exception:
    if kind.name != 'AVIF':
      raise
    # Pillow interprets the EXIF block as it opens the file. It does not find
    # the block if the name of its kind is another.
    return open_file(io.BytesIO(re.sub(rb'(infe.{8})Exif', rb'\1skip', data)))


@functools.cache
def _opener(module, name):
  try:
    plugin = importlib.import_module(f'PIL.{module}')
  except ImportError:
    plugin = None
  if plugin is None or not getattr(plugin, 'SUPPORTED', True):
    raise Unusable(
      f'the installed Pillow cannot decode {name.removesuffix("ImageFile")}; '
      f'run: {shell_commands.install("--upgrade", "pillow")}'
    )
  return getattr(plugin, name)


def _reason(kind, text):
  """Returns what an error of Pillow means."""
  text = text.lower()
  if 'truncated' in text or 'too short' in text or 'end of' in text:
    return f'the {kind.name} file is cut off'
  if 'unknown pixel mode' in text or 'unsupported' in text:
    return (
      f'the {kind.name} file stores its pixels in a way that is not supported; '
      'save it as an 8-bit or 16-bit PNG'
    )
  return f'the {kind.name} file is damaged or cut off'


def parts_of_avif(image: Image.Image, parts: ImageParts) -> ImageParts:
  """Returns the parts of an opened AVIF file, which only Pillow finds."""
  exif, icc = (image.info.get(key) for key in ('exif', 'icc_profile'))
  return parts._replace(
    orientation=orientation_of(exif),
    profile=profile_name(icc) if icc else None,
    working_bytes=12,  # planes of luma and chroma, and the bytes handed over
  )


def has_more_frames(image: Image.Image) -> bool:
  """Whether an opened image has further frames, as far as Pillow can tell."""
  try:
    return bool(getattr(image, 'is_animated', False))
  except Exception:  # A damaged second frame does not matter.
    return False
