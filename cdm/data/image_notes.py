"""Says what of an image was left out, guessed or changed as it was read.

A command that reads single files says it for each of them. One that reads data
sets says it once for each kind, at the first image, and tells the number of
such images when it ends.
"""

import atexit
import collections
import functools
import threading
from collections.abc import Iterable
from typing import NamedTuple

from absl import logging

# What is said of many images, by kind.
KINDS = {
  'profile': 'a colour profile other than sRGB was not applied',
  'alpha': 'transparency was laid over white',
  'more': 'only the first of several frames or pages was read',
  'dark': 'the 16-bit values use at most a sixteenth of their range',
  'rotated': 'the EXIF orientation was applied',
  'unrotated': 'the EXIF orientation was not applied',
  'converted': 'colours were converted to sRGB',
  'metadata': 'metadata could not be read',
  'developed': 'raw values of a camera were developed',
  'enlarged': 'a smaller image was enlarged',
  'damage': 'visible damage was restored',
}
# What a user who names a single file sees in any viewer too.
_AS_SHOWN = ('rotated',)


class Note(NamedTuple):
  """Something that a decoded image does not show of its file.

  Attributes:
    kind: a key of `KINDS`.
    name: the image's name: a path, or data set and index.
    text: the sentence, without the name and the full stop.
  """

  kind: str
  name: str
  text: str


def of_enlarging(side: int, size: int, name: str) -> tuple[Note, ...]:
  """Returns a note if an image is enlarged.

  Args:
    side: the shorter side of the image, pixels.
    size: what it becomes, pixels.
    name: the image's name.
  """
  if side >= size:
    return ()
  return (Note('enlarged', name, f'its {side} pixels were enlarged to {size}'),)


class _Counts:
  """The number of images of each kind that this process has read."""

  def __init__(self):
    self._lock = threading.Lock()
    self._first: dict[str, Note] = {}
    self._count: collections.Counter[str] = collections.Counter()

  def add(self, note):
    with self._lock:
      self._count[note.kind] += 1
      if note.kind in self._first:
        return
      self._first[note.kind] = note
    logging.warning(
      '%s: %s. Further images of this kind are counted.', note.name, note.text
    )

  def report(self):
    with self._lock:
      for kind, count in self._count.items():
        if count > 1:
          logging.warning(
            'In %d images read, %s; the first: %s.',
            count,
            KINDS[kind],
            self._first[kind].name,
          )
      self._count.clear()


@functools.cache
def _counts():
  counts = _Counts()
  atexit.register(counts.report)
  return counts


def count(notes: Iterable[Note]) -> None:
  """Counts notes about the images of a set; the first of a kind is said."""
  for note in notes:
    _counts().add(note)


def say(notes: Iterable[Note]) -> None:
  """Says every note, for a command that reads files that the user named.

  A file that is read again is not spoken of again.
  """
  for note in notes:
    if note.kind not in _AS_SHOWN:
      _say_once(note)


@functools.lru_cache(10_000)
def _say_once(note):
  logging.warning('%s: %s.', note.name, note.text)
