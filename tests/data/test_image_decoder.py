"""Image files of every kind become the pixels that a viewer shows."""

import io
import os
import shlex
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, features

from cdm.data import image_decoder, image_kinds, shell_commands, transforms


def encoded(image, kind='PNG', **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def gradient(height=20, width=30):
  y, x = np.mgrid[:height, :width]
  pixels = np.stack([8 * x, 12 * y, 4 * (x + y)], axis=-1)
  return pixels.astype(np.uint8)


def decode(data, name='x', **options):
  return image_decoder.decode(data, name=name, **options).pixels


def notes(data, **options):
  decoded = image_decoder.decode(data, name='x', **options)
  return [note.kind for note in decoded.notes]


def refusal(data, **options):
  with pytest.raises(transforms.BadImage) as caught:
    decode(data, **options)
  return caught.value.reason


def chunk(kind, content):
  """-> a chunk of a PNG file."""
  checksum = zlib.crc32(kind + content)
  return (
    struct.pack('>I', len(content))
    + kind
    + content
    + struct.pack('>I', checksum)
  )


def with_chunk(png, kind, content):
  """-> a PNG file with a further chunk after its first."""
  return png[:33] + chunk(kind, content) + png[33:]


def with_segment(jpeg, marker, content):
  """-> a JPEG file with a further segment at its beginning."""
  length = struct.pack('>H', len(content) + 2)
  return jpeg[:2] + bytes([0xFF, marker]) + length + content + jpeg[2:]


def png16(samples, **chunks):
  """-> a 16-bit PNG file of uint16 [H, W] or [H, W, C]."""
  height, width = samples.shape[:2]
  colour = {1: 0, 2: 4, 3: 2, 4: 6}[samples[0, 0].size]
  rows = [b'\0' + row.astype('>u2').tobytes() for row in samples]
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      chunk(b'IHDR', struct.pack('>II2B3x', width, height, 16, colour)),
      *(chunk(name.encode(), content) for name, content in chunks.items()),
      chunk(b'IDAT', zlib.compress(b''.join(rows))),
      chunk(b'IEND', b''),
    ]
  )


def tiff(samples, *, order='<', extra=(), photometric=None, further_page=False):
  """-> an uncompressed TIFF file of [H, W] or [H, W, C] of any dtype."""
  height, width = samples.shape[:2]
  channels = samples[0, 0].size
  bits = samples.dtype.itemsize * 8
  kind = {'u': 1, 'i': 2, 'f': 3}[samples.dtype.kind]
  if photometric is None:
    photometric = 1 if channels == 1 else 2
  body = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
  numbers = struct.pack(f'{order}{channels}H', *[bits] * channels)
  blobs = numbers + struct.pack(f'{order}{channels}H', *[kind] * channels)
  start = 8
  at = start + len(body)

  def value(tag, content):
    short = struct.pack(order + 'H', content)
    return struct.pack(order + 'HHI', tag, 3, 1) + short + bytes(2)

  def many(tag, offset):
    if channels == 1:
      return value(tag, bits if tag == 258 else kind)
    return struct.pack(order + 'HHII', tag, 3, channels, offset)

  def long(tag, content):
    return struct.pack(order + 'HHII', tag, 4, 1, content)

  entries = {
    256: value(256, width), 257: value(257, height), 258: many(258, at),
    259: value(259, 1), 262: value(262, photometric), 273: long(273, start),
    277: value(277, channels), 278: value(278, height),
    279: long(279, len(body)), 339: many(339, at + 2 * channels),
  }  # fmt: skip
  for tag, number in extra:
    entries[tag] = value(tag, number)
  directory = at + len(blobs)
  mark = b'II*\0' if order == '<' else b'MM\0*'
  return b''.join(
    [
      mark, struct.pack(order + 'I', directory), body, blobs,
      struct.pack(order + 'H', len(entries)),
      *(entries[tag] for tag in sorted(entries)),
      struct.pack(order + 'I', directory if further_page else 0),
    ]
  )  # fmt: skip


# What EXIF 2.32, tag 274, says the viewer must do with the stored pixels.
ORIENTATIONS = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_exif_rotation_is_applied(orientation):
  exif = Image.Exif()
  exif[274] = orientation
  pixels = gradient()
  data = encoded(Image.fromarray(pixels), 'PNG', exif=exif)
  shown = decode(data)
  np.testing.assert_array_equal(shown, ORIENTATIONS[orientation](pixels))


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'WEBP', 'JPEG'])
def test_a_rotation_that_is_not_applied_is_said_as_one_that_is(kind):
  exif = Image.Exif()
  exif[274] = 6
  image = Image.fromarray(gradient())
  data = encoded(image, kind, exif=exif)
  plain = decode(encoded(image, kind))
  np.testing.assert_array_equal(decode(data, exif_rotation=False), plain)
  np.testing.assert_array_equal(decode(data), np.rot90(plain, -1))
  assert notes(data, exif_rotation=False) == ['unrotated']
  assert notes(data) == ['rotated']
  for applied in (True, False):
    assert notes(encoded(image, kind), exif_rotation=applied) == []


def test_cmyk_jpegs_have_their_colours():
  patches = np.zeros((16, 48, 3), np.uint8)
  patches[:, :16], patches[:, 16:32, 0], patches[:, 32:, 2] = 255, 255, 255
  image = Image.fromarray(patches).convert('CMYK')
  shown = decode(encoded(image, 'JPEG', quality=95))
  assert shown.shape == (16, 48, 3)
  for x, colour in ((8, [255, 255, 255]), (24, [255, 0, 0]), (40, [0, 0, 255])):
    assert np.abs(shown[8, x].astype(int) - colour).max() <= 6


def test_palettes_and_bilevel_images_become_rgb():
  pixels = np.zeros((6, 8), np.uint8)
  pixels[:, 4:] = 1
  image = Image.fromarray(pixels)
  image.putpalette([10, 20, 30, 200, 100, 50])
  shown = decode(encoded(image))
  np.testing.assert_array_equal(shown[0, 0], [10, 20, 30])
  np.testing.assert_array_equal(shown[0, 7], [200, 100, 50])
  bilevel = Image.fromarray(pixels.astype(bool))
  shown = decode(encoded(bilevel))
  np.testing.assert_array_equal(np.unique(shown), [0, 255])


def test_grey_images_have_three_equal_channels():
  shown = decode(encoded(Image.fromarray(gradient()[..., 0])), name='x')
  np.testing.assert_array_equal(shown, gradient()[..., [0, 0, 0]])


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_16_bit_grey_is_scaled_not_clipped(kind):
  values = np.linspace(0, 65535, 600).round().astype(np.uint16).reshape(20, 30)
  data = encoded(Image.fromarray(values), kind)
  shown = decode(data)
  np.testing.assert_array_equal(shown[..., 0], np.rint(values / 257))


def test_transparency_is_laid_over_white():
  pixels = np.dstack([gradient(), np.full((20, 30), 255, np.uint8)])
  pixels[:, :10, 3], pixels[:, 10:20, 3] = 0, 51  # a fifth
  shown = decode(encoded(Image.fromarray(pixels)))
  opaque = np.array([0, 0.2, 1]).repeat(10)[:, None]
  expected = opaque * gradient() + (1 - opaque) * 255
  np.testing.assert_allclose(shown, expected, atol=1)


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG'])
def test_of_an_animation_the_first_frame_is_taken(kind):
  frames = [Image.new('RGB', (12, 10), c) for c in ('red', 'lime', 'blue')]
  options = {'save_all': True, 'append_images': frames[1:]}
  if kind == 'WEBP':
    options['lossless'] = True
  shown = decode(encoded(frames[0], kind, **options))
  assert (shown == [255, 0, 0]).all() and shown.shape == (10, 12, 3)


def test_a_program_is_never_started_for_an_image(tmp_path):
  """Pillow would start Ghostscript (gs) with an EPS."""
  mark = tmp_path / 'started'
  stand_in = tmp_path / 'bin' / 'gs'
  stand_in.parent.mkdir()
  stand_in.write_text(
    f'#!/bin/sh\ntouch {shlex.quote(str(mark))}\n', encoding='utf-8'
  )
  stand_in.chmod(0o755)
  eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n'
  code = (
    'import sys; from PIL import Image; from cdm.data import image_decoder\n'
    'Image.init()\n'  # even where another library has loaded all plugins
    'try: image_decoder.decode(sys.stdin.buffer.read(), name="a.png")\n'
    'except ValueError as error: print(error)\n'
  )
  path = f'{stand_in.parent}{os.pathsep}{os.environ["PATH"]}'
  out = subprocess.run(
    [sys.executable, '-c', code],
    input=eps,
    env={**os.environ, 'PATH': path},
    capture_output=True,
    check=True,
  ).stdout
  assert out.startswith(b'a.png: it is a PostScript (EPS) document, not a JPEG')
  assert not mark.exists()


@pytest.mark.parametrize(
  ('head', 'what'),
  [
    (b'%PDF-1.4', 'a PDF'),
    (b'\xd7\xcd\xc6\x9a' + bytes(40), 'a Windows metafile'),
    (b'<!DOCTYPE html>', 'a web page'),
    (b'{"error": 404}', 'a text'),
    (b'\0\0\0\x18ftypheic', 'a HEIC photograph'),
    (bytes(99), 'zeros'),
    (b'hello', 'not a JPEG, PNG'),
  ],
)
def test_what_is_no_image_is_said_by_its_content(head, what):
  assert what in refusal(head)


def test_the_kind_is_found_in_the_content_not_in_the_name(tmp_path):
  path = tmp_path / 'a.jpg'
  path.write_bytes(encoded(Image.fromarray(gradient()), 'BMP'))
  shown = image_decoder.read_file(path).pixels
  np.testing.assert_array_equal(shown, gradient())


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP'])
def test_pixels_are_limited_before_they_are_decoded(kind, monkeypatch):
  data = encoded(Image.new('RGB', (30, 20)), kind)
  assert decode(data, max_pixels=600).shape == (20, 30, 3)

  def load(*_):
    raise AssertionError('decoded')

  monkeypatch.setattr(ImageFile.ImageFile, 'load', load)
  assert '30x20 pixels are more than the 599' in refusal(data, max_pixels=599)


def test_a_huge_canvas_of_webp_is_refused_before_it_is_allocated():
  """Pillow makes room for it as soon as it opens the file."""
  size = (16383).to_bytes(3, 'little') * 2
  body = b'WEBPVP8X' + struct.pack('<I', 10) + bytes(4) + size
  data = b'RIFF' + struct.pack('<I', len(body)) + body
  assert '16384x16384 pixels are more' in refusal(data)


def test_images_larger_than_pillow_likes_are_read_without_a_warning(recwarn):
  assert decode(encoded(Image.new('1', (10_000, 9_000)))).shape[0] == 9000
  assert not recwarn.list


@pytest.mark.parametrize('orientation', ORIENTATIONS)
@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'P'])
def test_large_images_in_bands_equal_small_ones(orientation, mode, monkeypatch):
  exif = Image.Exif()
  exif[274] = orientation
  image = Image.fromarray(gradient())
  if mode == 'RGBA':
    image.putalpha(Image.fromarray(gradient()[..., 0]))
  data = encoded(image.convert(mode), exif=exif)
  whole = decode(data)
  monkeypatch.setattr(image_decoder.rgb_pixels, 'WHOLE_PIXELS', 0)
  monkeypatch.setattr(image_decoder.rgb_pixels, '_BAND_PIXELS', 95)
  np.testing.assert_array_equal(decode(data), whole)


def exif_block(orientation, order='<', kind=3):
  """-> an EXIF block that holds an orientation and junk."""
  mark = b'II*\0' if order == '<' else b'MM\0*'
  entry = struct.pack(order + 'HHI', 274, kind, 1)
  entry += struct.pack(order + ('H2x' if kind == 3 else 'I'), orientation)
  gps = struct.pack(order + 'HHII', 0x8825, 4, 1, 0xFFFFFFF0)
  text = struct.pack(order + 'HHII', 700, 2, 0xFFFFFFF0, 7)
  head = mark + struct.pack(order + 'IH', 8, 3)
  return b'Exif\0\0' + head + entry + gps + text


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('kind', [3, 4])
def test_orientation_is_read_among_malformed_metadata(order, kind):
  block = exif_block(6, order, kind)
  expected = np.rot90(gradient(), -1)
  plain = encoded(Image.fromarray(gradient()))
  with_exif = with_chunk(plain, b'eXIf', block[6:])
  np.testing.assert_array_equal(decode(with_exif), expected)
  jpeg = encoded(Image.fromarray(gradient()), 'JPEG')
  turned = decode(with_segment(jpeg, 0xE1, block))
  np.testing.assert_array_equal(turned, np.rot90(decode(jpeg), -1))


JUNK = [b'', b'Exif\0\0', b'Exif\0\0II*\0\xff\xff\xff\xff', bytes(range(256))]


@pytest.mark.parametrize('junk', JUNK)
def test_malformed_metadata_never_rejects_sound_pixels(junk):
  pixels = gradient()
  png = encoded(Image.fromarray(pixels))
  for kind in (b'eXIf', b'iCCP', b'zTXt', b'iTXt', b'pHYs', b'acTL', b'sBIT'):
    np.testing.assert_array_equal(decode(with_chunk(png, kind, junk)), pixels)
  jpeg = encoded(Image.fromarray(pixels), 'JPEG')
  for marker in (*range(0xE1, 0xEE), 0xEF, 0xFE):
    for head in (b'', b'MPF\0', b'ICC_PROFILE\0', b'Photoshop 3.0\0'):
      data = with_segment(jpeg, marker, head + junk)
      np.testing.assert_array_equal(decode(data), decode(jpeg))


def test_a_text_that_expands_without_end_does_not_reject_an_image():
  png = encoded(Image.fromarray(gradient()))
  bomb = b'Raw profile type exif\0\0' + zlib.compress(bytes(2**24))
  np.testing.assert_array_equal(
    decode(with_chunk(png, b'zTXt', bomb)), gradient()
  )


@pytest.mark.parametrize('order', ['<', '>'])
def test_tiff_metadata_are_read_by_their_tags_alone(order):
  """XMP as numbers ended in a TypeError of Pillow."""
  extra = [(274, 6), (700, 7), (34665, 3), (34675, 9), (330, 1)]
  data = tiff(gradient(), order=order, extra=extra)
  np.testing.assert_array_equal(decode(data), np.rot90(gradient(), -1))


def test_orientation_of_xmp_counts_where_exif_has_none():
  xmp = b'<x tiff:Orientation="8"/>'
  jpeg = encoded(Image.fromarray(gradient()), 'JPEG')
  data = with_segment(jpeg, 0xE1, b'http://ns.adobe.com/xap/1.0/\0' + xmp)
  np.testing.assert_array_equal(decode(data), np.rot90(decode(jpeg), 1))
  both = with_segment(data, 0xE1, exif_block(3))
  np.testing.assert_array_equal(decode(both), np.rot90(decode(jpeg), 2))


def ramp(top, channels=None):
  """-> uint16 [20, 30] or [20, 30, C] from 0 to top."""
  count = 600 * (channels or 1)
  values = np.linspace(0, top, count).round().astype(np.uint16)
  return values.reshape((20, 30) if channels is None else (20, 30, channels))


def eight_bits(samples, white):
  return np.floor(np.clip(samples * (255 / white), 0, 255) + 0.5)


@pytest.mark.parametrize('top', [1023, 4095, 65535])
@pytest.mark.parametrize('channels', [None, 3])
def test_pgm_and_ppm_are_scaled_by_their_maximum(top, channels):
  samples = ramp(top, channels)
  kind = 'P5' if channels is None else 'P6'
  head = f'{kind}\n# of a camera\n30 20\n{top}\n'.encode()
  data = head + samples.astype('>u2').tobytes()
  shown = decode(data).reshape(20, 30, 3)[..., : channels or 1]
  expected = eight_bits(samples, top).reshape(shown.shape)
  np.testing.assert_array_equal(shown, expected)
  assert 'cut off' in refusal(data[:-1]) and 'cut off' in refusal(head[:9])
  assert 'more than' in refusal(data, max_pixels=599)


def test_8_bit_ppm_is_pillows():
  data = encoded(Image.fromarray(gradient()), 'PPM')
  np.testing.assert_array_equal(decode(data), gradient())


@pytest.mark.parametrize('channels', [None, 2, 3, 4])
@pytest.mark.parametrize('white', [1023, 4095])
def test_png_of_few_bits_in_16_is_scaled_by_sbit(channels, white):
  samples = ramp(white, channels)
  if channels in (2, 4):
    samples[..., -1] = white  # opaque
  bits = bytes([white.bit_length()] * (channels or 1))
  shown = decode(png16(samples, sBIT=bits))
  colours = samples if channels is None else samples[..., :3]
  colours = colours[..., :1] if channels == 2 else colours
  expected = eight_bits(colours, white).reshape(20, 30, -1)
  np.testing.assert_array_equal(shown[..., : expected.shape[-1]], expected)


def test_sbit_of_a_png_that_was_scaled_up_changes_nothing():
  """As the PNG specification has it: the upper bits are the significant."""
  for samples in (ramp(4095) << 4, ramp(255) << 4):
    shown = decode(png16(samples, sBIT=b'\x0c'))
    expected = eight_bits(samples, 65535)
    np.testing.assert_array_equal(shown[..., 0], expected)


@pytest.mark.parametrize('channels', [None, 3, 4])
@pytest.mark.parametrize('kind', ['PNG', '<', '>', 'LZW'])
def test_16_bits_are_rounded_not_cut(kind, channels):
  """Pillow takes the upper byte of 16-bit colours."""
  samples = ramp(65535, channels)
  if channels == 4:
    samples[..., 3] = 65535
  if kind == 'LZW' and channels is not None:
    pytest.skip('Pillow writes no 16-bit colours')
  if kind == 'LZW':
    data = encoded(Image.fromarray(samples), 'TIFF', compression='tiff_lzw')
  else:
    extra = [(338, 2)] if channels == 4 else []
    data = png16(samples)
    if kind != 'PNG':
      data = tiff(samples, order=kind, extra=extra)
  expected = eight_bits(samples, 65535).reshape(20, 30, -1)[..., :3]
  shown = decode(data)[..., : expected.shape[-1]]
  np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize('order', ['<', '>'])
def test_white_is_zero_is_turned(order):
  for samples in (ramp(65535), gradient()[..., 0]):
    data = tiff(samples, order=order, photometric=0)
    white = np.iinfo(samples.dtype).max
    expected = 255 - eight_bits(samples, white)
    np.testing.assert_array_equal(decode(data)[..., 0], expected)


@pytest.mark.parametrize('channels', [None, 3])
def test_a_sixteenth_of_16_bits_is_said_and_max_value_mends_it(channels):
  samples = ramp(4000, channels)
  data = png16(samples)
  assert notes(data) == ['dark']
  assert notes(png16(ramp(4096, channels))) == []
  assert notes(data, max_value=4095) == []
  shown = decode(data, max_value=4095)[..., : channels or 1]
  expected = eight_bits(samples, 4095).reshape(shown.shape)
  np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize('kind', [np.int32, np.uint32, np.int16, np.float32])
def test_samples_without_a_usual_range_need_max_value(kind):
  samples = np.linspace(0, 200, 600).astype(kind).reshape(20, 30)
  reason = refusal(tiff(samples))
  what = 'fractions' if kind == np.float32 else 'bit integers'
  assert what in reason and 'give max_value' in reason
  shown = decode(tiff(samples), max_value=200)
  np.testing.assert_array_equal(shown[..., 0], eight_bits(samples, 200))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'CMYK', 'I;16B'])
def test_every_mode_of_pillow_has_its_colours(mode):
  pixels = np.zeros((16, 48, 3), np.uint8)
  pixels[:, :16] = 255
  image = Image.fromarray(pixels)
  if mode == 'I;16B':
    data = tiff(np.uint16(pixels[..., 0]) * 257, order='>')
  else:
    kind = 'TIFF' if mode == 'CMYK' else 'PNG'
    data = encoded(image.convert(mode), kind)
  np.testing.assert_array_equal(decode(data), pixels)


def test_a_transparent_colour_of_a_palette_is_white_and_said():
  image = Image.new('P', (8, 8), 1)
  image.putpalette([0, 0, 0, 200, 100, 50])
  image.paste(0, (0, 0, 4, 8))
  data = encoded(image, transparency=0)
  assert (decode(data)[:, :4] == 255).all()
  assert (decode(data)[:, 4:] == [200, 100, 50]).all()
  assert notes(data) == ['alpha']


def test_a_transparent_colour_of_16_bits_is_white_and_said():
  grey = ramp(65535)
  data = png16(grey, tRNS=struct.pack('>H', int(grey[0, 5])))
  assert (decode(data)[0, 5] == 255).all() and notes(data) == ['alpha']
  colours = ramp(65535, 3)
  data = png16(colours, tRNS=struct.pack('>3H', *map(int, colours[0, 5])))
  assert (decode(data)[0, 5] == 255).all() and notes(data) == ['alpha']


def test_alpha_is_said_only_where_something_is_transparent():
  image = Image.fromarray(gradient()).convert('RGBA')
  assert notes(encoded(image)) == []
  image.putpixel((3, 3), (1, 2, 3, 254))
  assert notes(encoded(image)) == ['alpha']


def profile(name):
  """-> an ICC profile that has a name and nothing else."""
  text = b'desc' + bytes(4) + struct.pack('>I', len(name) + 1) + name + b'\0'
  return bytes(128) + struct.pack('>I4sII', 1, b'desc', 144, len(text)) + text


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'TIFF'])
def test_a_profile_other_than_srgb_is_named(kind):
  image = Image.fromarray(gradient())
  data = encoded(image, kind, icc_profile=profile(b'Display P3'))
  decoded = image_decoder.decode(data, name='x')
  assert [note.kind for note in decoded.notes] == ['profile']
  assert "'Display P3' was not applied" in decoded.notes[0].text
  assert notes(encoded(image, kind, icc_profile=profile(b'sRGB v4'))) == []


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG', 'TIFF'])
def test_further_frames_and_pages_are_said(kind):
  frames = [Image.new('RGB', (12, 10), c) for c in ('red', 'lime', 'blue')]
  options = {'save_all': True, 'append_images': frames[1:]}
  assert notes(encoded(frames[0], kind, **options)) == ['more']
  assert notes(encoded(frames[0], kind)) == []


def test_pages_that_follow_each_other_in_a_circle_end():
  data = tiff(gradient(), further_page=True)
  np.testing.assert_array_equal(decode(data), gradient())
  assert notes(data) == ['more']


def test_absurd_tiles_and_scans_are_refused():
  tiled = tiff(gradient(), extra=[(322, 60_000), (323, 60_000)])
  assert 'tiles of an absurd size' in refusal(tiled)
  jpeg = encoded(Image.fromarray(gradient()), 'JPEG', progressive=True)
  start = jpeg.rindex(b'\xff\xda')
  assert 'scans' in refusal(jpeg[:start] + 600 * jpeg[start:-2])


def test_a_progressive_jpeg_that_is_cut_off_is_said_to_be():
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
  data = encoded(Image.fromarray(noise), 'JPEG', progressive=True)
  assert refusal(data[: len(data) * 6 // 10]) == 'the JPEG file is cut off'


@pytest.mark.skipif(not features.check('avif'), reason='Pillow without AVIF')
def test_avif_is_turned_and_survives_malformed_metadata():
  image = Image.fromarray(gradient())
  exif = Image.Exif()
  exif[274] = 6
  exif[305] = 'a program'
  plain = encoded(image, 'AVIF', quality=100)
  data = encoded(image, 'AVIF', quality=100, exif=exif)
  np.testing.assert_array_equal(decode(data), np.rot90(decode(plain), -1))
  at = data.rindex(b'II*\0') if b'II*\0' in data else data.rindex(b'MM\0*')
  damaged = data[:at] + b'junk' + data[at + 4 :]
  np.testing.assert_array_equal(decode(damaged), np.rot90(decode(plain), -1))


def test_a_pillow_without_a_kind_says_what_to_install(monkeypatch):
  image_kinds._opener.cache_clear()
  monkeypatch.setitem(sys.modules, 'PIL.AvifImagePlugin', None)
  data = b'\0\0\0\x1cftypavif' + bytes(40)
  assert shell_commands.install('--upgrade', 'pillow') in refusal(data)
  image_kinds._opener.cache_clear()


@pytest.mark.parametrize(
  ('make', 'reason'),
  [
    (lambda path: path.mkdir(), 'it is a folder, not a file'),
    (lambda path: os.mkfifo(path), 'it is a pipe or device, not a file'),
    (lambda path: path.symlink_to('nowhere'), 'there is no such file'),
    (lambda path: path.symlink_to(path), 'the file cannot be read: too many'),
  ],
)
def test_what_cannot_be_read_as_a_file_is_said(tmp_path, make, reason):
  path = tmp_path / 'x.png'
  make(path)
  with pytest.raises(transforms.BadImage) as caught:
    image_decoder.read_file(path)
  assert str(caught.value).startswith(f'{path}: {reason}')
  assert not caught.value.is_data_error


def test_only_what_is_damaged_is_an_error_of_the_data():
  """What a user can change, such as the white, is an error of input."""
  whole = encoded(Image.new('F', (3, 3)), 'TIFF')
  unusable = [
    (whole, {}),  # of an unknown white
    (encoded(Image.new('RGB', (9, 8)), 'PNG'), {'max_pixels': 71}),
    (encoded(Image.new('RGB', (1, 8)), 'PNG'), {}),
  ]
  damaged = [(b'', {}), (b'text', {}), (whole[: len(whole) // 2], {})]
  for files, expected in ((unusable, False), (damaged, True)):
    for data, options in files:
      with pytest.raises(transforms.BadImage) as caught:
        decode(data, **options)
      assert caught.value.is_data_error is expected, caught.value


def test_a_file_of_absurd_length_is_not_read(tmp_path):
  path = tmp_path / 'x.png'
  with open(path, 'wb') as file:
    file.truncate(2**40)
  with pytest.raises(transforms.BadImage, match='too many for an image of'):
    image_decoder.read_file(path)


def test_damaged_bytes_end_in_a_reason_without_pillows_words():
  rng = np.random.default_rng(0)
  image = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
  info = PngImagePlugin.PngInfo()
  info.add_text('a', 'b' * 50, zip=True)
  kinds = ('JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP')
  files = [encoded(image, kind) for kind in kinds]
  files += [encoded(image, pnginfo=info), tiff(gradient()), png16(ramp(99, 3))]
  for data in files:
    for _ in range(60):
      bytes_of = bytearray(data[: rng.integers(1, len(data) + 1)])
      for at in rng.integers(0, len(bytes_of), 3):
        bytes_of[at] = rng.integers(256)
      try:
        decode(bytes(bytes_of))
      except transforms.BadImage as error:
        assert 'Error' not in error.reason and 'stream' not in error.reason


@pytest.mark.parametrize('white', [1.0, 0.25, 1000.0])
def test_white_of_fractions_may_be_one_or_less(white):
  samples = np.linspace(0, 1.1 * white, 600, dtype=np.float32).reshape(20, 30)
  shown = decode(tiff(samples), max_value=white)
  np.testing.assert_array_equal(shown[..., 0], eight_bits(samples, white))


@pytest.mark.parametrize('shape', [(2, 2), (2, 9), (9, 2)])
def test_two_pixels_a_side_are_the_smallest_image(shape):
  pixels = gradient(*shape)
  data = encoded(Image.fromarray(pixels))
  most = shape[0] * shape[1]
  np.testing.assert_array_equal(decode(data, max_pixels=most), pixels)
  for thin in (pixels[:1], pixels[:, :1]):
    data = encoded(Image.fromarray(thin))
    assert 'are not an image' in refusal(data)


@pytest.mark.parametrize('limits', [(0, None), (-1, None), (1, 0), (1, -1.0)])
def test_limits_are_above_nothing(limits):
  least = {'max_pixels': 1, 'max_value': 1e-9}
  assert image_decoder.check_limits(**least) == least
  with pytest.raises(ValueError, match='max_(pixels|value) is'):
    image_decoder.check_limits(*limits)


def truncated(kind):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
  data = encoded(Image.fromarray(noise), kind)
  return data[: len(data) * 2 // 3]


@pytest.mark.parametrize(
  ('data', 'reason'),
  [
    (truncated('JPEG'), 'JPEG file is cut off'),
    (truncated('PNG'), 'PNG file is cut off'),
    (truncated('WEBP'), 'WebP file is damaged or cut off'),
    (b'', 'is empty'),
    (b'GIF89a, or so it says', 'GIF file is'),
    (encoded(Image.new('RGB', (1, 1))), '1x1 pixels are not an image'),
    (encoded(Image.new('RGB', (9, 1))), '9x1 pixels'),
    (
      encoded(Image.new('F', (8, 8)), 'TIFF'),
      'fractions, and nothing states',
    ),
  ],
  ids=['jpeg', 'png', 'webp', 'empty', 'text', '1x1', '9x1', 'float'],
)
def test_unusable_files_are_named_with_their_reason(data, reason):
  with pytest.raises(transforms.BadImage, match=f'cats/7.jpg: .*{reason}'):
    decode(data, name='cats/7.jpg')
