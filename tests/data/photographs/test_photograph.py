"""Photographs are read with their own colours, depth and transparency."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from cdm.data import transforms
from cdm.data.photographs import photograph


def encoded(image, kind='PNG', **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def decode(data, **options):
  return photograph.decode(data, name='x', **options)


def kinds_of_notes(found):
  return [note.kind for note in found.notes]


def gradient(channels=3, dtype=np.uint8):
  y, x = np.mgrid[:20, :30]
  scale = np.iinfo(dtype).max // 255
  values = [
    (8 * x, 12 * y, 4 * (x + y), 255 - 8 * x)[k] for k in range(channels)
  ]
  return (np.stack(values, axis=-1) * scale).astype(dtype)


def png(samples, *chunks):
  """-> a PNG file of uint8 or uint16 [H, W, C]."""
  height, width, channels = samples.shape
  bits = 8 * samples.itemsize
  head = struct.pack(
    '>IIBB3x', width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
  )
  stored = samples.astype(samples.dtype.newbyteorder('>'))
  rows = b''.join(b'\0' + row.tobytes() for row in stored)
  parts = [
    (b'IHDR', head),
    *chunks,
    (b'IDAT', zlib.compress(rows)),
    (b'IEND', b''),
  ]
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(body)) + kind + body
    + struct.pack('>I', zlib.crc32(kind + body))
    for kind, body in parts
  )  # fmt: skip


def tiff(samples, **options):
  file = io.BytesIO()
  tifffile.imwrite(file, samples, **options)
  return file.getvalue()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_png_samples_are_as_stored(channels, dtype):
  samples = gradient(channels, dtype)
  found = decode(png(samples))
  colours = samples if channels % 2 else samples[..., :-1]
  assert found.samples.dtype == dtype and found.kind == 'PNG'
  assert (
    found.white == np.iinfo(dtype).max and found.bits == 8 * samples.itemsize
  )
  np.testing.assert_array_equal(found.samples, colours)
  if channels % 2:
    assert found.alpha is None
  else:
    np.testing.assert_array_equal(found.alpha, samples[..., -1])
  assert not found.notes


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('planes', ['contig', 'separate'])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_16_bit_tiff_samples_are_as_stored(channels, planes, order):
  samples = gradient(channels, np.uint16)
  stored = samples
  kind = {'photometric': 'minisblack' if channels < 3 else 'rgb'}
  if channels in (2, 4):
    kind['extrasamples'] = ['unassalpha']
  if channels > 1:
    kind['planarconfig'] = planes
    if planes == 'separate':
      stored = np.moveaxis(samples, 2, 0)
  else:
    stored = samples[..., 0]
  found = decode(tiff(stored, byteorder=order, **kind))
  together = found.samples
  if channels % 2 == 0:
    together = np.concatenate([together, found.alpha[..., None]], axis=2)
  np.testing.assert_array_equal(together, samples)


def test_associated_alpha_is_divided_out():
  samples = gradient(4, np.uint16)
  samples[..., 3] = np.maximum(samples[..., 3], 20_000)
  alpha = samples[..., 3:] / 65535
  stored = samples.copy()
  stored[..., :3] = np.rint(samples[..., :3] * alpha)
  found = decode(tiff(stored, photometric='rgb', extrasamples=['assocalpha']))
  difference = found.samples.astype(int) - samples[..., :3]
  assert np.abs(difference).max() <= 2  # a half, over the least alpha
  np.testing.assert_array_equal(found.alpha, samples[..., 3])


def test_white_is_zero_is_turned():
  samples = gradient(1, np.uint16)
  data = tiff(65535 - samples[..., 0], photometric='miniswhite')
  np.testing.assert_array_equal(decode(data).samples, samples)


def test_fewer_significant_bits_are_scaled_to_all():
  samples = np.uint16([[[0], [1], [2047], [4095]]] * 2)
  found = decode(png(samples, (b'sBIT', b'\x0c')))
  expected = np.rint(samples * (65535 / 4095))
  np.testing.assert_array_equal(found.samples, expected)


def test_whole_numbers_of_32_bits_need_a_white():
  samples = gradient(1)[..., 0].astype(np.int32)
  with pytest.raises(transforms.UnusableImage, match='max_value'):
    decode(tiff(samples))
  found = decode(tiff(samples), max_value=255)
  np.testing.assert_array_equal(found.samples[..., 0], samples * 257)


def test_palettes_bilevel_and_transparent_colours():
  grey = gradient(1)[..., 0]
  image = Image.fromarray(np.uint8([[0, 1], [1, 0]]))
  image.putpalette([10, 20, 30, 200, 100, 50])
  found = decode(encoded(image))
  assert found.samples[0].tolist() == [[10, 20, 30], [200, 100, 50]]
  found = decode(encoded(image, transparency=1))
  assert found.alpha.tolist() == [[255, 0], [0, 255]]
  image.putpalette([7, 7, 7, 9, 9, 9])
  assert decode(encoded(image)).samples.tolist() == [[[7], [9]], [[9], [7]]]
  found = decode(encoded(image, transparency=0))
  assert found.samples.shape[2] == 1 and found.alpha[0].tolist() == [0, 255]
  found = decode(encoded(Image.fromarray(grey > 100)))
  np.testing.assert_array_equal(found.samples[..., 0], 255 * (grey > 100))
  found = decode(encoded(Image.fromarray(grey), transparency=0))
  np.testing.assert_array_equal(found.alpha == 0, grey == 0)
  found = decode(png(gradient(3, np.uint16), (b'tRNS', bytes(6))))
  assert found.alpha[0, 0] == 0 and found.alpha[5, 5] == 65535


def test_grey_jpegs_stay_grey():
  grey = Image.fromarray(gradient(1)[..., 0])
  found = decode(encoded(grey, 'JPEG', quality=71))
  assert found.samples.shape == (20, 30, 1) and found.quality == 71
  assert decode(encoded(grey)).quality is None


@pytest.mark.parametrize('orientation', range(1, 9))
def test_samples_are_upright_with_their_alpha(orientation):
  turns = {
    1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: np.rot90(x, 2),
    4: lambda x: x[::-1], 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
  }  # fmt: skip
  exif = Image.Exif()
  exif[274] = orientation
  samples = gradient(4, np.uint16)
  found = decode(png(samples, (b'eXIf', exif.tobytes()[6:])))
  expected = turns[orientation](samples)
  np.testing.assert_array_equal(found.samples, expected[..., :3])
  np.testing.assert_array_equal(found.alpha, expected[..., 3])


@pytest.mark.parametrize('kind', ['JPEG', 'TIFF'])
def test_inks_become_srgb_with_a_note(kind):
  patches = np.zeros((16, 48, 3), np.uint8)
  patches[:, :16], patches[:, 16:32, 0], patches[:, 32:, 2] = 255, 255, 255
  image = Image.fromarray(patches).convert('CMYK')
  options = {'quality': 95} if kind == 'JPEG' else {}
  found = decode(encoded(image, kind, **options))
  assert kinds_of_notes(found) == ['converted']
  assert 'CMYK' in found.notes[0].text and found.carried.icc is None
  for x, colour in ((8, [255, 255, 255]), (24, [255, 0, 0]), (40, [0, 0, 255])):
    assert np.abs(found.samples[8, x].astype(int) - colour).max() <= 6


def test_cielab_becomes_srgb_with_a_note():
  rgb = Image.fromarray(gradient())
  srgb, lab = (ImageCms.createProfile(name) for name in ('sRGB', 'LAB'))
  image = ImageCms.profileToProfile(rgb, srgb, lab, outputMode='LAB')
  found = decode(encoded(image, 'TIFF'))
  assert kinds_of_notes(found) == ['converted']
  difference = np.abs(found.samples.astype(int) - gradient())
  assert difference.mean() < 3  # CIELab has 8 bits here.


def test_only_the_first_frame_is_read_and_that_is_said():
  frames = [Image.new('RGB', (9, 9), c) for c in ('red', 'lime', 'blue')]
  for kind in ('WEBP', 'GIF', 'PNG', 'TIFF'):
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    found = decode(data)
    assert kinds_of_notes(found) == ['more'], kind
    assert found.samples[4, 4, 0] > 250 > 5 > found.samples[4, 4, 2]


@pytest.mark.parametrize('code, name', [(16, 'PQ'), (18, 'HLG')])
def test_high_dynamic_range_is_refused(code, name):
  data = png(gradient(), (b'cICP', bytes([9, code, 0, 1])))
  with pytest.raises(
    transforms.UnusableImage, match=rf'dynamic range \({name}\)'
  ):
    decode(data)
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  count = struct.unpack_from('>I', profile, 128)[0]
  tag = struct.pack('>4sII', b'cicp', len(profile) + 12, 12)
  profile = (
    profile[:128] + struct.pack('>I', count + 1) + tag + profile[132:]
    + b'cicp\0\0\0\0' + bytes([9, code, 0, 1])
  )  # fmt: skip
  body = b'x\0\0' + zlib.compress(profile)
  with pytest.raises(transforms.UnusableImage, match=name):
    decode(png(gradient(), (b'iCCP', body)))


def test_malformed_metadata_reject_no_sound_picture():
  samples = gradient()
  for kind, body in (
    (b'eXIf', b'junk'), (b'iCCP', b'x\0\0junk'),
    (b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0junk'),
    (b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(b'\nexif\n 4\nzz')),
  ):  # fmt: skip
    found = decode(png(samples, (kind, body)))
    np.testing.assert_array_equal(found.samples, samples)
    assert kinds_of_notes(found) == ['metadata'], body
    assert not any(found.carried)


def test_a_tiff_file_with_numbers_for_xmp_is_read_and_turned():
  data = tiff(
    gradient(), photometric='rgb',
    extratags=[(274, 3, 1, 6, True), (700, 4, 3, (1, 2, 3), True)],
  )  # fmt: skip
  found = decode(data)
  np.testing.assert_array_equal(found.samples, np.rot90(gradient(), -1))
  assert kinds_of_notes(found) == ['metadata']


def test_damaged_and_foreign_files_are_refused():
  for data, said in (
    (encoded(Image.fromarray(gradient()), 'JPEG')[:-200], 'cut off'),
    (b'%!PS-Adobe-3.0 EPSF-3.0', 'PostScript'),
    (b'', 'empty'),
  ):
    with pytest.raises(transforms.BadImage, match=said):
      decode(data)


def test_the_number_of_pixels_is_limited_before_they_are_decoded():
  samples = np.zeros((1, 1, 1), np.uint16)
  data = png(samples).replace(
    struct.pack('>II', 1, 1), struct.pack('>II', 10**5, 10**5)
  )
  with pytest.raises(transforms.UnusableImage, match='100000x100000 pixels'):
    decode(data)
  for kind in ('WEBP', 'TIFF', 'JPEG', 'AVIF', 'PPM'):
    with pytest.raises(transforms.UnusableImage, match='allowed'):
      decode(encoded(Image.fromarray(gradient()), kind), max_pixels=599)


def test_portable_maps_keep_their_depth():
  samples = gradient(1, np.uint16)
  body = samples.astype('>u2').tobytes()
  found = decode(b'P5 30 20 65535\n' + body)
  np.testing.assert_array_equal(found.samples, samples)
  found = decode(b'P5 30 20 1000\n' + np.full((20, 30), 500, '>u2').tobytes())
  assert found.samples[0, 0, 0] == 32768
  found = decode(b'P6 30 20 255\n' + gradient().tobytes())
  np.testing.assert_array_equal(found.samples, gradient())
