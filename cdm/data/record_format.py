"""Defines the format of a prepared data set on disk: records and an index.

`cdm prepare` writes it of a source, and `cdm sample` of the images it draws.

Record i of a prepared data set is image i of its source, so both have the same
length and the same order when shuffled. An image that could not be used keeps
its place, as a record that states the reason.

A record holds raw pixels, which ArrayRecord compresses, or an image file. The
aim of raw pixels is not to decode again: reading a 128-pixel image takes 0.1 ms
this way and 0.6 ms from PNG, for about 1.3 times the bytes.
"""

import json
import os
import pathlib
import re
import struct
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from cdm.data import image_decoder, transforms
from cdm.data.files import atomic_files, json_file
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.source import Element

if TYPE_CHECKING:
  from etils import epath

INDEX = 'index.json'
SAMPLING = 'sampling.json'  # the manifest that `cdm sample` writes
WRITER_OPTIONS = 'group_size:1'  # one record per chunk, for random access

# magic, label, short side of the original (0 if it is unusable), and the size
# of raw pixels or the number of bytes of an image file
_HEAD = struct.Struct('<4siii')
_MAGIC = b'CDM1'
# Of files; those of the second are turned as their EXIF orientation says.
_FILE_MAGIC, _TURNED_MAGIC = b'CDMF', b'CDMR'
_SHARD_NAME = r'images-\d{5,}-of-\d{5,}\.array_record'


class Manifest(TypedDict):
  """The manifest of a prepared data set: all that its pixels depend on.

  Attributes:
    format: version of the format.
    source: fingerprint of the source.
    records: number of images.
    size: S, pixels; 0 if every image has the size that its source has.
    crop: 'center', 'squash' or 'none'.
    filter: see `transforms.fit`; 'none' if the size is 0.
    records_per_shard: records of every shard but the last.
    pillow: version of Pillow, which decodes the images, or 'none'.
    libjpeg_turbo: version of the decoder of JPEGs, or 'none'.
    command: the command that wrote the data set; absent is 'cdm prepare'.
    named: whether the names of the classes are known, not only their numbers;
      absent is True.
    payload: 'raw', 'png' or 'jpeg', see `payload`; absent is 'raw'.
    quality: of the JPEG files that were written; absent for other payloads.
    order: what numbers the images: 'text', 'numbers' or a list (see
      `picture_order`), or 'as stored'; absent in data sets of earlier versions.
  """

  format: int
  source: str
  records: int
  size: int
  crop: str
  filter: str
  records_per_shard: int
  pillow: str
  libjpeg_turbo: str
  command: NotRequired[str]
  named: NotRequired[bool]
  payload: NotRequired[str]
  quality: NotRequired[int]
  order: NotRequired[str]


class Shard(TypedDict):
  """A complete shard of a prepared data set.

  Attributes:
    file: its file name.
    records: number of its records.
    skipped: one text for each image that could not be used, with the reason.
    bytes: size of the file, by which a reader knows it without opening it;
      absent in data sets of earlier versions.
    crc32: checksum of all its records, one after the other, by which
      `cdm prepare --verify` knows them; absent as `bytes` is.
  """

  file: str
  records: int
  skipped: list[str]
  bytes: NotRequired[int]
  crc32: NotRequired[int]


class Storage(TypedDict):
  """The entry `storage` of sampling.json, where samples are kept as shards.

  Attributes:
    format: 'array_records'.
    images: number of images, which decides the names of the shards.
    records_per_shard: records of every shard but the last.
    folders: the folder of each stage whose images are kept, inside the output
      folder; the last is that of the samples.
  """

  format: str
  images: int
  records_per_shard: int
  folders: list[str]


class Index(TypedDict):
  """The contents of `index.json`.

  Attributes:
    recipe: the manifest of the data set.
    fingerprint: changes when the manifest does.
    class_names: the name of each label; [] if there are none.
    shards: the complete shards, in their order.
    complete: True if no shard is missing.
  """

  recipe: Manifest
  fingerprint: str
  class_names: list[str]
  shards: list[Shard]
  complete: bool


def pack(element: Element) -> bytes:
  """Returns the record of an element whose image is uint8 [S, S, 3]."""
  image = element['image']
  numbers = (int(element['label']), int(element['short_side']), len(image))
  return _HEAD.pack(_MAGIC, *numbers) + image.tobytes()


def pack_file(
  data: bytes, *, label: int, short_side: int, exif_rotation: bool = False
) -> bytes:
  """Returns the record of an image file.

  Args:
    data: its bytes.
    label: see `source.Element`.
    short_side: see `source.Element`.
    exif_rotation: how it is decoded, see `image_decoder.decode`.
  """
  magic = _TURNED_MAGIC if exif_rotation else _FILE_MAGIC
  return _HEAD.pack(magic, label, short_side, len(data)) + data


def pack_bad(error: transforms.BadImage) -> bytes:
  """Returns the record of an unusable image; `unpack` raises its error."""
  return _HEAD.pack(_MAGIC, 0, 0, 0) + json.dumps(error.args).encode()


def unpack(data: bytes, *, name: str) -> Element:
  """Reverses `pack` and `pack_file`.

  Args:
    data: bytes of one record.
    name: the record's name in the error if it is damaged.

  Returns:
    The element; its image is uint8 [S, S, 3] if the record holds raw pixels.

  Raises:
    transforms.BadImage: the record is damaged, or `pack_bad` stored this error.
  """
  magic, files = data[:4], (_FILE_MAGIC, _TURNED_MAGIC)
  if len(data) < _HEAD.size or magic not in (_MAGIC, *files):
    raise transforms.BadImage(name, 'not a record of a prepared data set')
  _, label, short_side, size = _HEAD.unpack_from(data)
  if magic in files:
    file = data[_HEAD.size :]
    if len(file) != size or short_side < 1:
      raise transforms.BadImage(
        name, f'{len(file)} bytes are not an image file of {size} bytes'
      )
    return {
      'image': image_decoder.decode(
        file, name=name, exif_rotation=magic == _TURNED_MAGIC
      ).pixels,
      'label': np.int32(label),
      'short_side': np.int32(short_side),
    }
  if short_side == 0:
    raise transforms.BadImage(*_reason(data[_HEAD.size :], name))
  pixels = np.frombuffer(data, np.uint8, offset=_HEAD.size)
  if size < 1 or pixels.size != size * size * 3:
    raise transforms.BadImage(
      name, f'{pixels.size} bytes are not {size}x{size} RGB pixels'
    )
  return {
    # frombuffer returns a read-only view, so the pixels are copied.
    'image': pixels.reshape(size, size, 3).copy(),
    'label': np.int32(label),
    'short_side': np.int32(short_side),
  }


def _reason(text, name):
  """Returns the (name, reason) of an image that `pack_bad` stored."""
  try:
    return json_file.parse(text, tuple[str, str], name=name, remedy='')
  except DamagedFile:
    return name, 'not a record of a prepared data set'


def is_url(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path is that of a folder in a bucket."""
  return os.fspath(path).startswith('gs://')


def location(path: str | os.PathLike[str]) -> 'pathlib.Path | epath.Path':
  """Returns a folder as a path with the methods of pathlib.

  Args:
    path: path of a folder, or the URL of one in a bucket.
  """
  if not is_url(path):
    return pathlib.Path(path).expanduser()
  from etils import epath

  return epath.Path(os.fspath(path))


def find_folder(
  path: str | os.PathLike[str],
) -> 'pathlib.Path | epath.Path | None':
  """Returns the folder of the shards that a path stands for, or None.

  It is the path itself if shards lie there. The output folder of `cdm sample`
  stands for the samples of its last stage, if they are kept as shards.

  Raises:
    DamagedFile: sampling.json is damaged.
  """
  place = location(path)
  if is_url(path):
    return place if (place / INDEX).exists() else None
  path = pathlib.Path(place)
  if (path / INDEX).is_file() and any(map(is_shard_name, os.listdir(path))):
    return path
  stored = read_storage(path)
  return None if stored is None else path / stored['folders'][-1]


def read_storage(out: str | os.PathLike[str]) -> Storage | None:
  """Returns how the samples in an output folder of `cdm sample` are kept.

  Returns:
    The entry `storage` of sampling.json; None if they are PNG files, or if
    there is no such file.

  Raises:
    DamagedFile: the file is damaged.
  """
  path = pathlib.Path(out) / SAMPLING
  if not path.is_file():
    return None
  remedy = 'Restore it, or draw the samples into another folder.'
  saved = json_file.read(path, dict[str, Any], remedy=remedy)
  stored = saved.get('storage')
  if stored is None:
    return None
  json_file.check(stored, Storage, name=f'storage of {path}', remedy=remedy)
  inside = all(os.path.basename(name) == name for name in stored['folders'])
  if not (stored['folders'] and inside and stored['records_per_shard'] > 0):
    raise DamagedFile(f'storage of {path} is damaged. {remedy}')
  return stored


def command_of(index: Index) -> str:
  """Returns the command that wrote a data set, for error messages."""
  return index['recipe'].get('command', 'cdm prepare')


def read_index(folder: str | os.PathLike[str]) -> Index | None:
  """Returns the contents of `index.json` in a folder, or None without one.

  Raises:
    DamagedFile: the file is damaged.
  """
  path = location(folder) / INDEX
  if not path.exists():
    return None
  remedy = 'Run the command that wrote it again: it is made anew.'
  data = path.read_bytes()
  index = json_file.parse(data, Index, name=str(path), remedy=remedy)
  recipe = index['recipe']
  sizes = [recipe['records'], recipe['records_per_shard']]
  # Only image files can all have sizes of their own.
  sizes.append(recipe['size'] + ('payload' in recipe))
  if min(sizes) < 1 or any(s['records'] < 1 for s in index['shards']):
    raise DamagedFile(f'{path} is damaged: it counts below 1. {remedy}')
  for shard in index['shards']:
    # A name with a folder in it could be that of any file.
    if not is_shard_name(shard['file']):
      raise DamagedFile(
        f'{path} is damaged: {shard["file"]!r} is no shard of it. {remedy}'
      )
  return index


def shard_name(index: int, count: int) -> str:
  """Returns the file name of a shard, of `count` in all."""
  return f'images-{index:05d}-of-{count:05d}.array_record'


def is_shard_name(name: str) -> bool:
  """Returns whether a file is named as `shard_name` names shards."""
  return re.fullmatch(_SHARD_NAME, name) is not None


def write_index(folder: str | os.PathLike[str], index: Index) -> None:
  """Replaces `index.json` atomically: a kill leaves the old or the new one.

  Args:
    folder: the folder of the prepared data set.
    index: its contents.
  """
  path = pathlib.Path(folder) / INDEX
  atomic_files.write_text_atomically(path, json.dumps(index, indent=1))
