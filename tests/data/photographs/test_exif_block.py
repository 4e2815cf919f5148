"""An EXIF block is changed without moving anything in it."""

import io
import struct

import pytest
from PIL import Image

from cdm.data.photographs import exif_block

NOTES = b'MAKER\0' + bytes(range(60))


def block(order='<', thumbnail=True, software=b'Cam 1.0\0'):
  """-> a block as cameras write it: two directories, notes, a thumbnail."""
  mark = b'II*\0' if order == '<' else b'MM\0*'

  def entry(tag, kind, count, value):
    if isinstance(value, int):
      value = struct.pack(order + 'I', value)
    return struct.pack(order + 'HHI4s', tag, kind, count, value)

  def short(number):
    return struct.pack(order + 'HH', number, 0)

  first, inner, last = 8, 8 + 2 + 3 * 12 + 4, 8 + 2 * 42
  text = last + 30
  notes, picture = text + 8, text + 8 + len(NOTES)
  jpeg = io.BytesIO()
  Image.new('RGB', (8, 8)).save(jpeg, 'JPEG')
  jpeg = jpeg.getvalue()
  return b''.join(
    [
      mark, struct.pack(order + 'I', first),
      struct.pack(order + 'H', 3),
      entry(274, 3, 1, short(6)),
      entry(305, 2, len(software), text),
      entry(0x8769, 4, 1, inner),
      struct.pack(order + 'I', last if thumbnail else 0),
      struct.pack(order + 'H', 3),
      entry(0x927C, 7, len(NOTES), notes),
      entry(0xA002, 3, 1, short(90)),
      entry(0xA003, 4, 1, 60),
      bytes(4),
      struct.pack(order + 'H', 2),
      entry(0x201, 4, 1, picture), entry(0x202, 4, 1, len(jpeg)),
      bytes(4),
      software, NOTES, jpeg,
    ]
  )  # fmt: skip


def read(data):
  """-> Pillow's reading."""
  exif = Image.Exif()
  exif.load(b'Exif\0\0' + data)
  return exif


@pytest.mark.parametrize('order', '<>')
def test_orientation_size_and_software_are_new(order):
  exif = read(exif_block.updated(block(order), 240, 100_000, 'cdm'))
  assert exif[274] == 1
  assert exif[305] == 'Cam 1.0; cdm'
  inner = exif.get_ifd(0x8769)
  assert (inner[0xA002], inner[0xA003]) == (240, 100_000)


@pytest.mark.parametrize('order', '<>')
def test_the_notes_of_the_maker_stay_in_their_place(order):
  old = block(order)
  new = exif_block.updated(old, 240, 360, 'cdm 0.1.0, model 1a2b, seed 3')
  assert new.index(NOTES) == old.index(NOTES)
  assert read(new).get_ifd(0x8769)[0x927C] == NOTES


def test_the_thumbnail_is_gone():
  old = block()
  assert b'\xff\xd8\xff' in old and read(old).get_ifd(-1)
  new = exif_block.updated(old, 240, 360, None)
  assert b'\xff\xd8\xff' not in new
  assert not read(new).get_ifd(-1)
  assert len(new) < len(old)


def test_a_thumbnail_before_other_content_is_erased():
  old = block() + b'more of the maker'
  new = exif_block.updated(old, 240, 360, None)
  assert b'\xff\xd8\xff' not in new and new.endswith(b'more of the maker')


def test_software_is_added_where_none_was():
  exif = Image.Exif()
  exif[274], exif[271] = 6, 'Maker'
  exif = read(exif_block.updated(exif.tobytes()[6:], 10, 10, 'cdm'))
  assert (exif[274], exif[271], exif[305]) == (1, 'Maker', 'cdm')


def test_without_software_only_values_change():
  old = block(thumbnail=False)
  new = exif_block.updated(old, 91, 61, None)
  assert len(new) == len(old)
  assert sum(a != b for a, b in zip(old, new, strict=True)) <= 8


@pytest.mark.parametrize('length', range(0, 300, 7))
def test_a_torn_block_is_unsound_or_can_be_changed(length):
  torn = block()[:length]
  if exif_block.is_sound(torn):
    exif_block.updated(torn, 240, 360, 'cdm')


def test_damaged_offsets_break_nothing():
  old = block()
  for at in range(4, 130):
    for value in (0, 8, 255):
      damaged = old[:at] + bytes([value]) + old[at + 1 :]
      if exif_block.is_sound(damaged):
        exif_block.updated(damaged, 240, 360, 'cdm')


def test_junk_is_no_block():
  for junk in (b'', b'II*\0', b'junk' * 9, b'MM\0*\0\0\0\xff'):
    assert not exif_block.is_sound(junk)
