import itertools
import struct

import pytest

from cdm.data import tiff_tags
from cdm.data.image_parts import Unreadable

SIZE = ((256, 3), (257, 5))


def tiff(*entries, order='<', following=0):
  """A classic TIFF of these (tag, number) and no pixels."""
  mark = {'<': b'II*\0', '>': b'MM\0*'}[order]
  body = b''.join(
    struct.pack(order + 'HHIHxx', tag, 3, 1, number)
    for tag, number in sorted((*SIZE, *entries))
  )
  count = struct.pack(order + 'H', len(entries) + len(SIZE))
  end = struct.pack(order + 'I', following)
  return mark + struct.pack(order + 'I', 8) + count + body + end


def tags(data, order='<'):
  """The tags in the first directory of a classic TIFF."""
  (start,) = struct.unpack_from(order + 'I', data, 4)
  (count,) = struct.unpack_from(order + 'H', data, start)
  return [
    struct.unpack_from(order + 'H', data, start + 2 + 12 * i)[0]
    for i in range(count)
  ]


# TIFF 6.0: how the samples are laid out, packed and coloured, with both kinds
# of JPEG; the last one is a region of pixels as Lightroom writes it.
NEEDED = (
  *(254, 255, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320),
  *(322, 323, 324, 325, 332, 338, 339, 347),
  *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 50674),
)
# Texts, resolution, private directories, profiles and what else is there.
METADATA = (269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 318)
METADATA += (319, 330, 33432, 33723, 34377, 34665, 34853, 37724, 700, 34675)


@pytest.mark.parametrize('order', ['<', '>'])
def test_what_the_pixels_depend_on_stays_and_the_rest_goes(order):
  given = [(tag, 1) for tag in (*NEEDED, *METADATA)]
  parts = tiff_tags.split(tiff(*given, order=order))
  assert tags(parts.data, order) == sorted([256, 257, *NEEDED])
  assert parts.size == (3, 5)


@pytest.mark.parametrize(
  ('entries', 'expected'),
  [
    ((), dict(orientation=1, bits=1, white_is_zero=False, has_more=False)),
    (((258, 12),), dict(bits=12)),
    (((262, 0),), dict(white_is_zero=True)),
    (((274, 8),), dict(orientation=8)),
    (((274, 9),), dict(orientation=1)),
    (((322, 2**13), (323, 2**13)), dict(size=(3, 5))),
  ],
)
def test_what_the_tags_say_is_told(entries, expected):
  parts = tiff_tags.split(tiff(*entries))
  assert {name: getattr(parts, name) for name in expected} == expected


def test_a_malformed_orientation_never_drops_sound_pixels():
  data = tiff((274, 6))
  at = data.index(struct.pack('<HHI', 274, 3, 1))
  numbers = (0, 1, 2, 6, 99, 2**31, 2**32 - 1)
  for kind, count, value in itertools.product(range(20), numbers, numbers):
    entry = struct.pack('<HHII', 274, kind, count, value)
    parts = tiff_tags.split(data[:at] + entry + data[at + 12 :])
    assert parts.size == (3, 5) and 1 <= parts.orientation <= 8


def test_a_page_that_follows_is_told_and_cut_off():
  parts = tiff_tags.split(tiff(following=8))
  assert parts.has_more
  assert not tiff_tags.split(parts.data).has_more


def test_tiles_of_an_absurd_size_are_refused():
  with pytest.raises(Unreadable, match='tiles of an absurd size'):
    tiff_tags.split(tiff((322, 2**13), (323, 2**13 + 1)))


@pytest.mark.parametrize('kept', [4, 8, 10, 20, 33, -5, -1])
def test_a_directory_that_is_cut_off_is_refused(kept):
  with pytest.raises(Unreadable):
    tiff_tags.split(tiff()[:kept])
