"""Reads images in LMDB databases, where super-resolution programs keep them.

Two layouts are known, and neither has labels:

  BasicSR         meta_info.txt beside data.mdb has a line for each image, such
                  as `0001.png (480,320,3) 1`; its key is `0001`.
  Janspiry's SR3  The key `length` holds N. The keys `hr_128_00000` and so on
                  hold the images of 128 pixels, `sr_16_128_00000` those that
                  were enlarged from 16, and `lr_16_00000` the small ones.
"""

import itertools
import os
import pathlib
import re
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from absl import logging

from cdm.data import class_labels, image_decoder, shell_commands
from cdm.data.error_line import first_line
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.forms import foreign_content
from cdm.data.forms.encoded_images import EncodedImages
from cdm.data.forms.packed_names import PackedNames
from cdm.data.printable_name import printable
from cdm.data.source import first_names
from cdm.data.transforms import BadImage

_DATA, _META = 'data.mdb', 'meta_info.txt'
_LENGTH = b'length'
# 0001.png (480,320,3) 1: key, suffix, height, width, channels, compression.
_META_LINE = re.compile(r'(.+)\.\w+ \(\d+, ?\d+, ?\d+\) \d+')
_NUMBERED = re.compile(rb'(.+)_\d{5,}', re.DOTALL)
_HIGH_RES = re.compile(r'hr_\d+')
_MOST_PREFIXES = 100


class LmdbImages(EncodedImages):
  """A source of the image files in one LMDB; see the module for its layout.

  It needs the package lmdb, extra `lmdb`. The file is mapped into memory, so
  that it must not become shorter while it is read.
  """

  KIND = 'lmdb'

  def __init__(
    self,
    path: str | os.PathLike[str],
    prefix: str | None = None,
    class_names: Iterable[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    max_pixels: int = image_decoder.MAX_PIXELS,
    max_value: float | None = None,
    exif_rotation: bool = False,
  ):
    """Opens the database and lists its images.

    Args:
      path: the folder that holds data.mdb, or the file itself.
      prefix: what the keys of an SR3 database begin with, such as 'hr_128';
        None takes the only size of `hr`, or the only prefix. Databases of
        BasicSR have none.
      class_names: see `encoded_images.EncodedImages`.
      labels: a file with the label of each image, see `label_file`.
      max_pixels, max_value, exif_rotation: see `encoded_images.EncodedImages`.

    Raises:
      DamagedFile: the file is damaged, cut short, or no LMDB.
      ValueError: there is no database or no such prefix, or its layout is
        another, or the package lmdb is not installed.
    """
    path = os.path.expanduser(path)
    self._file = os.path.join(path, _DATA) if os.path.isdir(path) else path
    self._environment: _Environment | None = None
    self._bytes, entries = self._open().size()
    meta = pathlib.Path(self._file).with_name(_META)
    if meta.is_file() and prefix is None:
      self._prefix, names = '', _basicsr_names(meta)
      expected = len(names)
    else:
      self._prefix, names, expected = self._numbered(prefix)
    if entries < expected:
      raise DamagedFile(
        f'{printable(self._file)} has {entries:,} entries of the '
        f'{expected:,} that it should have. Copy or download it again.'
      )
    if entries > expected:
      logging.warning(
        '%s has %d entries more than the %d that its list of images tells of; '
        'they are left out.',
        printable(self._file),
        entries - expected,
        expected,
      )
    super().__init__(
      path,
      names,
      class_labels.none(len(names)),
      class_names=class_names,
      max_pixels=max_pixels,
      max_value=max_value,
      label_path=labels,
      exif_rotation=exif_rotation,
    )

  @staticmethod
  def holds(path: str) -> bool:
    """Returns whether a path is an LMDB, or a folder with its data.mdb."""
    if os.path.isdir(path):
      return os.path.isfile(os.path.join(path, _DATA))
    return path.endswith(('.mdb', '.lmdb')) and os.path.isfile(path)

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_environment': None}

  def read_bytes(self, i: int) -> bytes:
    """Returns the image file under the key of record i.

    Raises:
      transforms.BadImage: the key is missing, or its page is damaged.
    """
    key = self._names[i].encode(errors='surrogateescape')
    try:
      data = self._open().read(key, self._bytes)
    except Exception as error:  # the library's own, of several types
      if not_of_the_file(error) or isinstance(error, MemoryError):
        raise
      raise BadImage(
        self.name_of(i),
        f'the database is damaged there ({first_line(error)}); copy or '
        'download it again',
      ) from error
    if data is None:
      raise BadImage(
        self.name_of(i), 'the database has no such key; download it again'
      )
    return data

  def stamp(self) -> Iterator[str]:
    """Yields the size of the database, and the keys."""
    yield f'{self._prefix}\0{self._bytes}'
    yield from self._names

  def _open(self):
    # Sources of one file share its environment.
    if self._environment is None:
      self._environment = _shared(self._file)
    return self._environment

  def _numbered(self, prefix) -> tuple[str, Sequence[str], int]:
    """Returns (prefix, keys, number of entries) of an SR3 database."""
    environment = self._open()
    found = environment.prefixes()
    where = printable(self._file)
    length = environment.read(_LENGTH, self._bytes)
    if length is None or not found:
      keys = environment.first_keys()
      raise ValueError(
        f'{where} has neither a {_META} beside it, as BasicSR writes it, nor '
        f'the key length and keys like hr_128_00000, as SR3 does; its first '
        f'keys are {first_names(keys)}. Write the images as one of these, or '
        'as a folder.'
      )
    if not length.isdigit() or len(length) > 18:
      raise DamagedFile(
        f'The key length of {where} holds {printable(length[:20])}, not a '
        'number. Copy or download it again.'
      )
    large = tuple(name for name in found if _HIGH_RES.fullmatch(name))
    chosen = found if prefix is not None else (large or found)
    if prefix is None and len(chosen) > 1:
      raise ValueError(
        f'{where} has images under {first_names(found)}. Choose one with '
        f'prefix={chosen[-1]!r}.'
      )
    if prefix is not None and prefix not in found:
      raise ValueError(
        f'{where} has no keys {prefix}_00000, ...; it has '
        f'{first_names(found)}. Give one of these as prefix.'
      )
    prefix, count = prefix or chosen[0], int(length)
    expected = 1 + count * len(found)
    # A damaged length must not fill the memory.
    shown = min(count, environment.size()[1])
    names = PackedNames.of(f'{prefix}_{n:05d}' for n in range(shown))
    return prefix, names, expected


def _basicsr_names(meta):
  """Returns the keys that a meta_info.txt lists."""
  names = []
  lines = meta.read_text(encoding='utf-8', errors='replace').splitlines()
  for n, line in enumerate(lines):
    match = _META_LINE.fullmatch(line.strip())
    if match:
      names.append(match[1])
    elif line.strip():
      raise DamagedFile(
        f'Line {n + 1} of {printable(meta)} is {printable(line[:60])!r}, not '
        'like `0001.png (480,320,3) 1`. Copy or download it again.'
      )
  return PackedNames.of(names)


class _Size(NamedTuple):
  """The bytes of a database's file, and how many entries it has."""

  bytes: int
  entries: int


class _Environment:
  """An open database, which all sources of a process share.

  LMDB refuses to open a file twice in a process. A forked process may go on
  with its parent's, since it is only read and has no table of readers.
  """

  def __init__(self, file: str):
    lmdb = _import_lmdb()
    where = printable(file)
    if not os.path.isfile(file):
      raise ValueError(
        f'{where} does not exist; give the folder that holds {_DATA}.'
      )
    try:
      self._lmdb = lmdb.open(
        file,
        subdir=False,
        readonly=True,
        create=False,
        lock=False,
        readahead=False,
        meminit=False,
      )
      pages = self._lmdb.info()['last_pgno'] + 1
      needed = pages * self._lmdb.stat()['psize']
    except lmdb.Error as error:
      if not_of_the_file(error):
        raise
      raise DamagedFile(
        f'{where} cannot be read as an LMDB ({first_line(error)}). '
        f'{foreign_content.remedy(file)}'
      ) from error
    # A page behind the end of the file would end the process.
    if os.path.getsize(file) < needed:
      raise DamagedFile(
        f'{where} has {os.path.getsize(file):,} bytes of the {needed:,} that '
        'its first page tells of: it is cut short. Copy or download it again.'
      )

  def size(self) -> _Size:
    stat = self._lmdb.stat()
    return _Size(os.path.getsize(self._lmdb.path()), stat['entries'])

  def read(self, key: bytes, most_bytes: int) -> bytes | None:
    """Returns the value of a key; None without."""
    with self._lmdb.begin(buffers=True) as transaction:
      value = transaction.get(key)
      if value is None:
        return None
      if len(value) > most_bytes:  # Copying it would end the process.
        raise DamagedFile(f'an entry says that it has {len(value):,} bytes')
      return bytes(value)

  def first_keys(self) -> tuple[str, ...]:
    with self._lmdb.begin() as transaction, transaction.cursor() as cursor:
      keys = itertools.islice(cursor.iternext(values=False), 6)
      return tuple(key.decode(errors='replace')[:60] for key in keys)

  def prefixes(self) -> tuple[str, ...]:
    """Returns what the numbered keys begin with, without reading all keys."""
    found: list[str] = []
    with self._lmdb.begin() as transaction, transaction.cursor() as cursor:
      is_there = cursor.first()
      while is_there and len(found) < _MOST_PREFIXES:
        match = _NUMBERED.fullmatch(cursor.key())
        if match is None:
          is_there = cursor.next()
          continue
        found.append(match[1].decode(errors='surrogateescape'))
        # The next byte after the underscore is behind all numbers.
        is_there = cursor.set_range(match[1] + bytes([ord('_') + 1]))
    return tuple(found)


_lock = threading.Lock()
_open: weakref.WeakValueDictionary[str, _Environment] = (
  weakref.WeakValueDictionary()
)


def _shared(file: str) -> _Environment:
  """Returns the open database of a file."""
  with _lock:
    real = os.path.realpath(file)
    environment = _open.get(real)
    if environment is None:
      environment = _open[real] = _Environment(file)
    return environment


def _renew_lock() -> None:
  global _lock
  _lock = threading.Lock()


# A lock that another thread held in the parent would never be free again.
if hasattr(os, 'register_at_fork'):
  os.register_at_fork(after_in_child=_renew_lock)


def _import_lmdb():
  try:
    import lmdb
  except ImportError as error:
    command = shell_commands.install('cdm[lmdb]')
    raise ValueError(
      f'Reading an LMDB needs the package lmdb ({error}). Run: {command}'
    ) from error
  return lmdb
