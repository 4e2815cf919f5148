"""Which kinds of picture files are written, and what each of them can hold."""

import os
import pathlib
from typing import NamedTuple

EXIF, XMP, IPTC, ICC = 'exif', 'xmp', 'iptc', 'icc'
_WORDS = {
  EXIF: 'its EXIF block',
  XMP: 'its XMP packet',
  IPTC: 'its IPTC records',
  ICC: 'its colour profile',
}


class Layout(NamedTuple):
  """What a picture consists of.

  Attributes:
    width, height: pixels.
    channels: 1 for grey, 2 with alpha, 3 for colours, 4 with alpha.
    bits: of a sample, 8 or 16.
  """

  width: int
  height: int
  channels: int
  bits: int

  @property
  def has_alpha(self) -> bool:
    """Whether the last channel is alpha."""
    return self.channels in (2, 4)

  @property
  def row_bytes(self) -> int:
    """Bytes of a row of samples."""
    return self.width * self.channels * self.bits // 8

  @property
  def raw_bytes(self) -> int:
    """Bytes of all samples."""
    return self.height * self.row_bytes


class OutputKind(NamedTuple):
  """A kind of picture file that is written.

  Attributes:
    name: its name.
    suffixes: of file names, in lower case; the first is the usual one.
    max_side: pixels of the longest side that it can hold.
    max_bytes: of the samples that it can hold, None without a limit.
    has_alpha: whether it can hold transparency.
    has_16_bits: whether it can hold 16 bits per sample.
    keeps: the blocks of metadata that it can hold.
    is_banded: whether rows are written as they come; else the whole picture is
      in memory at once.
    quality: the default of its quality option; None if it loses nothing.
  """

  name: str
  suffixes: tuple[str, ...]
  max_side: int
  max_bytes: int | None = None
  has_alpha: bool = True
  has_16_bits: bool = False
  keeps: frozenset[str] = frozenset((EXIF, XMP, ICC))
  is_banded: bool = False
  quality: int | None = None


_ALL = frozenset((EXIF, XMP, IPTC, ICC))
KINDS = (
  OutputKind(
    'JPEG',
    ('.jpg', '.jpeg', '.jpe', '.jfif'),
    65_500,  # libjpeg, with which nearly all programs read, takes no more
    has_alpha=False,
    keeps=_ALL,
    is_banded=True,
    quality=95,
  ),
  OutputKind(
    'PNG', ('.png',), 2**31 - 1, has_16_bits=True, keeps=_ALL, is_banded=True
  ),
  OutputKind(
    'TIFF',
    ('.tif', '.tiff'),
    2**31 - 1,
    has_16_bits=True,
    keeps=_ALL,
    is_banded=True,
  ),
  OutputKind('WebP', ('.webp',), 16_383, quality=90),
  OutputKind('AVIF', ('.avif',), 65_536, quality=85),
  OutputKind(
    'BMP',
    ('.bmp',),
    2**31 - 1,
    max_bytes=2**32 - 2**16,
    has_alpha=False,
    keeps=frozenset(),
    is_banded=True,
  ),
)
_SUFFIXES_IN_WORDS = '.jpg, .png, .tif, .webp, .avif or .bmp'


def by_name(name: str) -> OutputKind:
  """Returns the kind of a name of `KINDS`."""
  return next(kind for kind in KINDS if kind.name == name)


def by_suffix(path: str | os.PathLike[str]) -> OutputKind:
  """Returns the kind that the suffix of a file's name means.

  Raises:
    ValueError: it means none that can be written.
  """
  suffix = pathlib.Path(path).suffix.lower()
  for kind in KINDS:
    if suffix in kind.suffixes:
      return kind
  raise ValueError(
    f'The output is {os.fspath(path)!r}, whose suffix {suffix!r} is of no kind '
    f'of picture that can be written; use {_SUFFIXES_IN_WORDS}.'
  )


def default(kind: str, *, bits: int, has_alpha: bool) -> OutputKind:
  """Returns the kind to write a photograph as, if nothing else is asked for.

  It is the photograph's own kind where that can be written. HEIC becomes JPEG,
  which every program opens, and camera RAW becomes TIFF. Kinds that lose
  nothing become PNG, and so does what JPEG cannot hold.

  Args:
    kind: the photograph's, see `photograph.Photograph`.
    bits: of a sample.
    has_alpha: whether it has transparency.
  """
  for own in KINDS:
    if own.name == kind:
      return own
  if kind == 'camera RAW':
    return by_name('TIFF')
  is_plain = bits == 8 and not has_alpha
  return by_name('JPEG' if kind == 'HEIC' and is_plain else 'PNG')


def default_path(
  path: str | os.PathLike[str], kind: OutputKind, scale: float
) -> pathlib.Path:
  """Returns NAME_x4.SUFFIX beside a photograph.

  Args:
    path: the photograph's.
    kind: what is written. A suffix of this kind stays as it is spelt.
    scale: the factor of both sides.
  """
  path = pathlib.Path(path)
  own = path.suffix.lower() in kind.suffixes
  suffix = path.suffix if own else kind.suffixes[0]
  return path.with_name(f'{path.stem}_x{scale:g}{suffix}')


def losses(
  kind: OutputKind, layout: Layout, metadata: dict[str, bool]
) -> tuple[str, ...]:
  """Returns what a kind of file cannot hold of a picture, as clauses.

  Args:
    kind: what is written.
    layout: of the picture.
    metadata: whether there is a block, by `EXIF` and so on.
  """
  said = []
  if layout.has_alpha and not kind.has_alpha:
    said.append(f'{kind.name} has no transparency, so it was laid over white')
  if layout.bits > 8 and not kind.has_16_bits:
    said.append(f'{kind.name} was written with 8 bits per sample instead of 16')
  for block, word in _WORDS.items():
    if metadata.get(block) and block not in kind.keeps:
      said.append(
        f'{kind.name} is written without {word}, which it cannot hold'
      )
  return tuple(said)


def stored(kind: OutputKind, layout: Layout) -> Layout:
  """Returns the layout of the picture as a kind of file holds it."""
  channels, bits = layout.channels, layout.bits
  if layout.has_alpha and not kind.has_alpha:
    channels -= 1
  if not kind.has_16_bits:
    bits = 8
  return layout._replace(channels=channels, bits=bits)
