"""What is in a photograph's file is in that of the enlarged picture."""

import io
import struct
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from cdm.data.photographs import (
  metadata_output,
  photograph,
  picture_writer,
  tiff_encoder,
)
from cdm.data.photographs.carried_metadata import Carried, Resolution
from cdm.data.photographs.output_kinds import Layout

NOTES = b'MAKER\0' + bytes(range(70))
IPTC = b'\x1c\x02\x19\0\x04tree\x1c\x02\x5a\0\x06Vienna'
XMP = (
  b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
  b'tiff:Orientation="6" exif:PixelXDimension="12"><dc:title>Tree</dc:title>'
  b'<tiff:ImageLength>20</tiff:ImageLength><xmp:Thumbnails>AAAA'
  b'</xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>'
)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
BLOCKS = ('.jpg', '.png', '.tif', '.webp', '.avif')  # kinds with metadata
KEEPS_IPTC = ('.jpg', '.png', '.tif')


def exif():
  """-> a block with a position, notes of the maker and an orientation."""
  block = Image.Exif()
  block[271], block[274], block[305] = 'Maker', 6, 'Cam 1.0'
  block[282] = block[283] = 300.0
  block[296] = 2
  block.get_ifd(0x8769).update({0x927C: NOTES, 0xA002: 12, 0xA003: 20})
  block.get_ifd(0x8825).update({1: 'N', 2: (48.0, 12.0, 30.0)})
  return block.tobytes()[6:]


def jpeg():
  """-> a JPEG photograph of 20x12 stored pixels with every block."""
  file = io.BytesIO()
  image = Image.fromarray(np.full((12, 20, 3), 90, np.uint8))
  image.save(
    file, 'JPEG', exif=b'Exif\0\0' + exif(), icc_profile=ICC, xmp=XMP,
    dpi=(300, 300), comment=b'a comment',
  )  # fmt: skip
  head = b'Photoshop 3.0\0' + struct.pack(
    '>4sHHI', b'8BIM', 0x404, 0, len(IPTC)
  )
  body = head + IPTC + bytes(len(IPTC) % 2)
  segment = struct.pack('>HH', 0xFFED, len(body) + 2) + body
  return file.getvalue()[:2] + segment + file.getvalue()[2:]


def enlarge(found, path, **options):
  """Writes the photograph at four times its size, and reads it."""
  samples = found.samples.repeat(4, 0).repeat(4, 1)
  height, width, channels = samples.shape
  carried = metadata_output.for_output(
    found.carried, width=width, height=height, **options
  )
  layout = Layout(width, height, channels, 8 * samples.itemsize)
  with picture_writer.open_writer(path, layout, carried=carried) as writer:
    writer.write(samples)
  return photograph.read(path)


def directories(block):
  """-> Pillow's reading of (the picture's, EXIF's, the position's) entries."""
  exif = Image.Exif()
  exif.load(b'Exif\0\0' + block)
  return exif, exif.get_ifd(0x8769), exif.get_ifd(0x8825)


@pytest.mark.parametrize('suffix', BLOCKS)
def test_every_block_is_in_the_enlarged_file(tmp_path, suffix):
  found = photograph.decode(jpeg(), name='x')
  assert found.samples.shape == (20, 12, 3)
  new = enlarge(found, tmp_path / f'x{suffix}', software='cdm, seed 3')
  assert new.samples.shape == (80, 48, 3)
  carried = new.carried
  assert carried.icc == ICC
  first, inner, position = directories(carried.exif)
  assert first[271] == 'Maker' and first[305] == 'Cam 1.0; cdm, seed 3'
  assert first.get(274, 1) == 1
  assert inner[0x927C] == NOTES
  assert (inner[0xA002], inner[0xA003]) == (48, 80)
  assert position[1] == 'N' and position[2] == (48.0, 12.0, 30.0)
  assert carried.xmp == (
    XMP.replace(b'"6"', b'"1"')
    .replace(b'"12"', b'"48"')
    .replace(b'>20<', b'>80<')
    .replace(b'<xmp:Thumbnails>AAAA</xmp:Thumbnails>', b'')
  )
  assert carried.iptc == (IPTC if suffix in KEEPS_IPTC else None)
  assert carried.comment == (b'a comment' if suffix == '.jpg' else None)


@pytest.mark.parametrize('suffix', BLOCKS)
def test_nothing_is_told_of_a_stripped_picture(tmp_path, suffix):
  found = photograph.decode(jpeg(), name='x')
  path = tmp_path / f'x{suffix}'
  new = enlarge(found, path, software='cdm', strip=True)
  assert new.carried.icc == ICC and new.carried.resolution is not None
  assert not new.carried.xmp and not new.carried.iptc
  data = path.read_bytes()
  for told in (b'MAKER', b'Maker', b'Cam 1.0', b'cdm', b'Vienna', b'Tree'):
    assert told not in data


@pytest.mark.parametrize('suffix', [*BLOCKS, '.bmp'])
@pytest.mark.parametrize('with_exif', [True, False])
def test_300_dots_per_inch_stay_300(tmp_path, suffix, with_exif):
  found = photograph.decode(jpeg(), name='x')
  if not with_exif:
    found = found._replace(carried=found.carried._replace(exif=None))
  enlarge(found, tmp_path / f'x{suffix}')
  with Image.open(tmp_path / f'x{suffix}') as image:
    dpi = image.info.get('dpi')
    if suffix in ('.webp', '.avif'):
      dpi = image.getexif()[282], image.getexif()[283]
  assert [round(float(number), 2) for number in dpi] == [300, 300]
  again = photograph.read(tmp_path / f'x{suffix}')
  enlarge(again, tmp_path / 'again.jpg')
  with Image.open(tmp_path / 'again.jpg') as image:
    assert image.info['dpi'] == (300, 300)


@pytest.mark.parametrize('big', [False, True])
def test_exif_in_a_tiff_file_is_read_by_others(tmp_path, monkeypatch, big):
  """In a classic file, even the place of the maker's notes is the same."""
  if big:
    monkeypatch.setattr(tiff_encoder, 'CLASSIC_BYTES', 1000)
  found = photograph.decode(jpeg(), name='x')
  path = tmp_path / 'x.tif'
  enlarge(found, path, software='cdm')
  with tifffile.TiffFile(path) as file:
    assert file.is_bigtiff == big
    tags = file.pages.first.tags
    assert tags['Make'].value == 'Maker'
    assert tags['ExifTag'].value['MakerNote'] == NOTES
    assert tags['GPSTag'].value['GPSLatitude'] == (48, 1, 12, 1, 30, 1)
    assert tags['Orientation'].value == 1
    assert tags['InterColorProfile'].value == ICC
    assert tags['Software'].value == 'Cam 1.0; cdm'
  if not big:
    place = found.carried.exif.index(NOTES)
    assert path.read_bytes()[place : place + len(NOTES)] == NOTES


def test_texts_and_colour_chunks_stay_in_png(tmp_path):
  from PIL import PngImagePlugin

  info = PngImagePlugin.PngInfo()
  info.add_text('Title', 'Tree')
  info.add_itxt('Author', 'Ünal', lang='tr')
  info.add(b'gAMA', struct.pack('>I', 100_000))
  file = io.BytesIO()
  Image.new('RGB', (4, 4)).save(file, 'PNG', pnginfo=info)
  found = photograph.decode(file.getvalue(), name='x')
  enlarge(found, tmp_path / 'x.png', software='cdm 1')
  with Image.open(tmp_path / 'x.png') as image:
    image.load()
    assert image.text['Title'] == 'Tree' and image.text['Author'] == 'Ünal'
    assert image.text['Software'] == 'cdm 1' and image.info['gamma'] == 1
    assert image.getexif()[305] == 'cdm 1'
  again = photograph.read(tmp_path / 'x.png')
  enlarge(again, tmp_path / 'y.png', strip=True)
  with Image.open(tmp_path / 'y.png') as image:
    image.load()
    assert not image.text and image.info['gamma'] == 1


def test_blocks_that_are_too_long_for_jpeg_are_said(tmp_path):
  xmp = b'<x:xmpmeta>' + b' ' * 70_000
  profile = ICC + bytes(150_000)  # in three segments
  layout = Layout(8, 8, 3, 8)
  carried = Carried(xmp=xmp, icc=profile)
  path = tmp_path / 'x.jpg'
  with picture_writer.open_writer(path, layout, carried=carried) as writer:
    writer.write(np.zeros((8, 8, 3), np.uint8))
  assert writer.notes == (
    'JPEG is written without its XMP, which is too long for it',
  )
  with Image.open(path) as image:
    assert image.info['icc_profile'] == profile


def test_resolutions_change_their_unit():
  given = Resolution(Fraction(300), Fraction(254), 'inch')
  assert given.per('inch') == (300, 254)
  assert given.per('cm')[1] == 100
  assert Resolution(*given.per('cm'), 'cm').per('inch') == (300, 254)
