import struct

import pytest

from cdm.data import image_parts


def profile(*tags):
  """An ICC profile of these (name, content), one behind the other."""
  at, table, contents = 132 + 12 * len(tags), b'', b''
  for name, content in tags:
    table += struct.pack('>4sII', name, at + len(contents), len(content))
    contents += content
  return bytes(128) + struct.pack('>I', len(tags)) + table + contents


def plain(name):
  """The content of a description of version 2."""
  return b'desc' + bytes(4) + struct.pack('>I', len(name) + 1) + name + b'\0'


def translated(*names):
  """That of version 4, which has a text in every language."""
  at = 16 + 12 * len(names)
  records, texts = b'', b''
  for language, name in names:
    text = name.encode('utf-16-be')
    records += language + struct.pack('>II', len(text), at + len(texts))
    texts += text
  return (
    b'mluc' + bytes(4) + struct.pack('>II', len(names), 12) + (records + texts)
  )


@pytest.mark.parametrize(
  ('content', 'name'),
  [
    (plain(b'Display P3'), 'Display P3'),
    (translated((b'enUS', 'Display P3')), 'Display P3'),
    (translated((b'enUS', 'Größe'), (b'deDE', 'Weite')), 'Größe'),
    (translated((b'enUS', 'sRGB IEC61966-2.1')), None),
    (plain(b'sRGB v4'), None),
    (plain(b'x' * 300), 'x' * 40),
    (plain(b'a\x01b'), 'ab'),
    (plain(b''), 'unnamed'),
    (b'desc', 'unnamed'),  # cut off
    (translated((b'enUS', 'y' * 150)), 'y' * 40),
  ],
)
@pytest.mark.parametrize('others', [0, 2, 99])
def test_a_profile_is_named_by_its_description(content, name, others):
  before = [(b'cprt', plain(b'sRGB, or not'))] * others
  icc = profile(*before, (b'desc', content))
  assert image_parts.profile_name(icc) == name


def test_a_description_behind_a_hundred_tags_is_not_looked_for():
  before = [(b'cprt', b'')] * 100
  icc = profile(*before, (b'desc', plain(b'Display P3')))
  assert image_parts.profile_name(icc) == 'unnamed'


def exif(*entries, order='<', first=8):
  head = {'<': b'II*\0', '>': b'MM\0*'}[order] + struct.pack(order + 'I', first)
  body = struct.pack(order + 'H', len(entries)) + b''.join(entries)
  return head + bytes(first - 8) + body


def entry(tag=0x112, kind=3, values=1, number=6, *, order='<'):
  packed = struct.pack(order + {3: 'H2x', 4: 'I'}.get(kind, 'I'), number)
  return struct.pack(order + 'HHI', tag, kind, values) + packed


OTHER = entry(0x100, 4, 1, 3)


@pytest.mark.parametrize(
  ('block', 'orientation'),
  [
    (exif(entry()), 6),
    (exif(OTHER, OTHER, entry(kind=4, number=3)), 3),
    (b'Exif\0\0' + exif(entry(number=8), first=12), 8),
    (exif(entry(order='>', number=2), order='>'), 2),
    (exif(entry(number=1)), 1),
    (exif(entry(kind=1, number=7)), 7),
    (exif(entry(kind=16, number=7)) + bytes(4), 7),
    (exif(entry(number=0)), None),
    (exif(entry(number=9)), None),
    (exif(entry(values=2)), None),
    (exif(entry(kind=200)), None),
    (exif(entry(tag=0x113)), None),
    (exif(OTHER), None),
    (exif(OTHER) + entry(), None),  # behind as many as are counted
    (exif(OTHER, OTHER) + entry() + entry() + entry(), None),
    (exif(entry())[:-5], None),
    (b'IJ*\0' + exif(entry())[4:], None),
    (b'', None),
  ],
)
def test_an_orientation_counts_where_exif_states_one_of_eight(
  block, orientation
):
  found = image_parts.orientation_of(block, None)
  assert found == (orientation or 1)
  # XMP counts where EXIF has none.
  for xmp in (b'<x tiff:Orientation="5"/>', b'<tiff:Orientation>5</tiff'):
    assert image_parts.orientation_of(block, xmp) == (orientation or 5)
  for xmp in (b'tiff:Orientation="9"', b'exif:Orientation="5"'):
    assert image_parts.orientation_of(block, xmp) == found
