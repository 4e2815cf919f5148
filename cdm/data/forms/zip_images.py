"""Reads the images in a zip as a source.

The tools of StyleGAN and EDM write such zips, and keep the labels in
dataset.json at the root, see `dataset_json`. In a zip without it, the folders
are classes, by the same rules as in a folder.
"""

import collections
import hashlib
import os
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cdm.data import (
  class_labels,
  dataset_json,
  folder_classes,
  image_decoder,
  mixed_folders,
  picture_files,
)
from cdm.data.files import transient_errors
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import (
  byte_ranges,
  encoded_images,
  foreign_content,
  member_names,
)
from cdm.data.forms.packed_names import PackedNames
from cdm.data.printable_name import printable
from cdm.data.transforms import BadImage, UnusableImage

# The part of a member's own header that is read: its magic number, and the
# lengths of its name and its extra field.
_LOCAL = struct.Struct('<4s22xHH')
SUFFIX = '.zip'
_LOCAL_MAGIC = b'PK\3\4'
_ENCRYPTED = 1 | 1 << 6  # flags of a member
# To which a compressed member may be unpacked. Image files hardly shrink in a
# zip, so it is about their own size.
MOST_UNPACKED_BYTES = 1 << 28


class ZipImages(encoded_images.EncodedImages):
  """A source of the images in a zip, ordered by path; see `EncodedImages`."""

  KIND = 'zip'

  def __init__(
    self,
    path: str | os.PathLike[str],
    class_names: Iterable[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    max_pixels: int = image_decoder.MAX_PIXELS,
    max_value: float | None = None,
    exif_rotation: bool = False,
  ):
    """Reads the directory of the zip.

    Args:
      path: the zip, whose members are stored or deflated; or a folder in it,
        such as '/data/set.zip/train'.
      class_names: the names of the labels 0, 1, 2, ...; see `EncodedImages`. If
        all images lie in one folder, this folder is a class only if it is among
        these names.
      labels: a file with the label of each image, see `label_file`, in place of
        those of the zip.
      max_pixels: see `EncodedImages`.
      max_value: see `EncodedImages`.
      exif_rotation: see `EncodedImages`.

    Raises:
      DamagedFile: the zip is damaged, or no zip.
      ValueError: it has no images, or is encrypted.
    """
    path = os.path.expanduser(path)
    names = None if class_names is None else tuple(class_names)
    self._zip, inside = _split(path)
    members, left_out = _members(self._zip, inside)
    pictures = sorted(m for m in members if _is_picture(m, left_out))
    latents = sum(left_out[suffix] for suffix in dataset_json.LATENTS)
    dataset_json.refuse_latents(latents, name=path)
    if labels is not None:
      mixed_folders.check(path, pictures, classes=False)
    infos = [members[name] for name in pictures]
    self._offsets = np.array([i.header_offset for i in infos], np.int64)
    self._packed = np.array([i.compress_size for i in infos], np.int64)
    self._sizes = np.array([i.file_size for i in infos], np.int64)
    self._checksums = np.array([i.CRC for i in infos], np.uint32)
    self._deflated = np.array([bool(i.compress_type) for i in infos], bool)
    root = '' if dataset_json.FILE in members else _root(pictures, names)
    files = [name[len(root) :] for name in pictures]
    stored = members.get(root + dataset_json.FILE)
    own = class_labels.none(len(files))
    if stored is not None and names != () and labels is None and files:
      own = dataset_json.parse(
        _content(self._zip, stored),
        files,
        name=posixpath.join(path, root, dataset_json.FILE),
        folder=os.path.dirname(self._zip),
      )
    elif labels is None and (stored is None or not files):
      own = folder_classes.labels_of(files, names, root=path)
    super().__init__(
      path,
      PackedNames.of(files),
      own,
      class_names=names,
      max_pixels=max_pixels,
      max_value=max_value,
      label_path=labels,
      exif_rotation=exif_rotation,
    )
    member_names.say_left_out(path, left_out)

  @staticmethod
  def holds(path: str) -> bool:
    """Returns whether a path is that of a zip, or a folder in it, by its name.

    It never raises.
    """
    file, _ = _split(path)
    return file.lower().endswith(SUFFIX) and os.path.isfile(file)

  def read_bytes(self, i: int) -> bytes:
    name = self.name_of(i)
    member = _Member(
      int(self._offsets[i]),
      int(self._packed[i]),
      int(self._sizes[i]),
      int(self._checksums[i]),
      bool(self._deflated[i]),
    )
    image_decoder.check_file_bytes(
      max(member.packed, member.size),
      name=name,
      max_pixels=self._limits['max_pixels'],
    )
    return _read(self._zip, member, name)

  def stamp(self) -> Iterable[str]:
    yield from self._names
    for numbers in (self._sizes, self._checksums):
      yield hashlib.sha256(numbers.tobytes()).hexdigest()


class _Member(NamedTuple):
  """Where a file in a zip is.

  Attributes:
    offset: where its own header begins.
    packed: bytes that it takes.
    size: bytes that it has.
    checksum: CRC-32 of these.
    deflated: whether it is compressed.
  """

  offset: int
  packed: int
  size: int
  checksum: int
  deflated: bool


def _split(path: str) -> tuple[str, str]:
  """Returns (path of a zip, the folder in it that is meant: 'train/' or '')."""
  parts = path.split('/')
  for n, part in enumerate(parts, 1):
    file = '/'.join(parts[:n])
    if part.lower().endswith(SUFFIX) and os.path.isfile(file):
      inside = '/'.join(filter(None, parts[n:]))
      return file, f'{inside}/' if inside else ''
  return path, ''


def _read(path, member, name) -> bytes:
  """Returns the bytes of a member, compared with their checksum.

  Raises:
    BadImage: they are damaged.
  """
  head = byte_ranges.read(path, member.offset, _LOCAL.size)
  magic, name_bytes, extra_bytes = _LOCAL.unpack(head)
  if magic != _LOCAL_MAGIC:
    raise BadImage(name, 'the zip is damaged there: it has no such member')
  # The lengths must come from this header: the directory at the end of the zip
  # may have another extra field.
  begin = member.offset + _LOCAL.size + name_bytes + extra_bytes
  data = byte_ranges.read(path, begin, member.packed)
  if member.deflated:
    if member.size > MOST_UNPACKED_BYTES:
      raise UnusableImage(
        name,
        f'it would be unpacked to {member.size:,} bytes, and at most '
        f'{MOST_UNPACKED_BYTES:,} are allowed; store it without compression',
      )
    try:
      # One byte more shows that it is larger than the zip says.
      data = zlib.decompressobj(-15).decompress(data, member.size + 1)
    except zlib.error as error:
      raise BadImage(name, 'its compressed bytes are damaged') from error
  if len(data) != member.size or zlib.crc32(data) != member.checksum:
    raise BadImage(name, 'it is damaged: its bytes have another checksum')
  return data


def _content(path, info) -> bytes:
  """Returns the bytes of a small file."""
  member = _Member(
    info.header_offset,
    info.compress_size,
    min(info.file_size, MOST_UNPACKED_BYTES + 1),
    info.CRC,
    bool(info.compress_type),
  )
  return _read(path, member, posixpath.join(path, info.filename))


def _members(
  path: str, inside: str
) -> tuple[dict[str, zipfile.ZipInfo], collections.Counter[str]]:
  """Returns ({name: member}, what was left out) of a folder in a zip.

  Raises:
    DamagedFile: it is damaged, or is no zip, or a name leads out of it.
    ValueError: its members cannot be read one by one.
  """
  left_out = collections.Counter()
  members: dict[str, zipfile.ZipInfo] = {}
  for info in _directory(path):
    name = member_names.checked(info.filename, path)
    if info.is_dir() or not name.startswith(inside):
      continue
    name = name[len(inside) :]
    if stat.S_ISLNK(info.external_attr >> 16):
      left_out['link'] += 1
      continue
    wrong = _why_unreadable(info)
    if wrong is not None:
      raise ValueError(f'{printable(posixpath.join(path, name))} {wrong}')
    if name in members:
      raise DamagedFile(
        f'{printable(path)} has {printable(name)} twice, so that nobody knows '
        'which one is meant. Make the zip again.'
      )
    members[name] = info
  return members, left_out


def _why_unreadable(info) -> str | None:
  """Returns why a member cannot be read, and what to do, as half a sentence."""
  if info.flag_bits & _ENCRYPTED:
    return (
      'is encrypted. Unpack the zip with its password and pack it again '
      'without one.'
    )
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    return (
      f'is compressed with method {info.compress_type}; stored and deflated '
      'files are read. Unpack the zip and pack it again with: zip -0 -r'
    )
  return None


def _directory(path) -> list[zipfile.ZipInfo]:
  """Returns what the directory at the end of a zip lists."""
  reason = picture_files.why_not_a_file(path)
  if reason is not None:
    raise ValueError(f'{printable(path)} {reason}; give a zip of images.')
  size = os.path.getsize(path)
  try:
    with zipfile.ZipFile(path) as archive:
      listed = archive.infolist()
  # zipfile raises nearly anything on damaged bytes.
  except Exception as error:
    if transient_errors.not_of_the_file(error):
      raise
    if isinstance(error, PermissionError):
      raise
    with open(path, 'rb') as file:
      is_zip = file.read(4) == _LOCAL_MAGIC
    raise DamagedFile(
      f'{printable(path)} cannot be read as a zip ({error}). '
      + (
        'It begins as one, so it was cut short or damaged: copy or download it '
        'again.'
        if is_zip
        else foreign_content.remedy(path)
      )
    ) from error
  for info in listed:
    if not 0 <= info.header_offset <= size - info.compress_size:
      raise DamagedFile(
        f'{printable(path)} is damaged: its member {printable(info.filename)} '
        f'ends behind the end of the file. Copy or download it again.'
      )
  return listed


def _is_picture(name, left_out):
  if posixpath.basename(name) == dataset_json.FILE:
    return False
  return member_names.is_picture(name, left_out)


def _root(files: Sequence[str], class_names: tuple[str, ...] | None) -> str:
  """Returns the folders that lie around all images and are no class, with /."""
  root = ''
  while True:
    below = {name[len(root) :].partition('/')[:2] for name in files}
    if len(below) != 1:
      return root
    folder, slash = below.pop()
    if not slash or folder in (class_names or ()):
      return root
    root += f'{folder}/'
