"""Pictures are written band by band, exactly, and whole or not at all."""

import io
import os
import shutil
import struct
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from cdm.data.photographs import (
  output_kinds,
  output_limits,
  photograph,
  picture_writer,
  tiff_encoder,
)
from cdm.data.photographs.output_kinds import Layout

LOSSLESS = ('.png', '.tif')


def picture(height, width, channels, dtype):
  """-> smooth in one part, noise in another, extremes in the last."""
  y, x = np.mgrid[:height, :width]
  white = np.iinfo(dtype).max
  smooth = (x * (white // 300) + y * (white // 200))[..., None]
  values = smooth + np.arange(channels) * (white // 9)
  rng = np.random.default_rng(0)
  values[height // 2 :] = rng.integers(white + 1, size=values.shape)[
    height // 2 :
  ]
  values[-3:] = white * rng.integers(2, size=values[-3:].shape)
  return (values % (white + 1)).astype(dtype)


def write(path, samples, *, step=17, **options):
  height, width, channels = samples.shape
  layout = Layout(width, height, channels, 8 * samples.itemsize)
  with picture_writer.open_writer(path, layout, **options) as writer:
    for top in range(0, height, step):
      writer.write(samples[top : top + step])
  return writer


def options(**values):
  return {'options': picture_writer.Options(**values)}


def test_every_kind_that_loses_nothing_gives_the_samples_back(tmp_path):
  for suffix in LOSSLESS:
    for channels in (1, 2, 3, 4):
      for dtype in (np.uint8, np.uint16):
        path = tmp_path / f'x{channels}{suffix}'
        samples = picture(70, 45, channels, dtype)
        write(path, samples)
        found = photograph.read(path)
        assert found.samples.dtype == dtype
        stored = found.samples
        if channels in (2, 4):
          stored = np.concatenate([stored, found.alpha[..., None]], axis=2)
        else:
          assert found.alpha is None
        np.testing.assert_array_equal(stored, samples, err_msg=str(path))
        if suffix == '.tif':
          other = tifffile.imread(path).reshape(samples.shape)
          np.testing.assert_array_equal(other, samples)


def test_pillow_reads_the_png_filters(tmp_path):
  """Rows that want each of the filters; Pillow undoes them all."""
  rng = np.random.default_rng(1)
  up = np.repeat(rng.integers(256, size=(1, 64, 3)), 8, axis=0)
  sub = np.repeat(rng.integers(256, size=(8, 1, 3)), 64, axis=1)
  y, x = np.mgrid[:16, :64]
  ramp = np.repeat(((5 * x + 9 * y) % 256)[..., None], 3, axis=2)
  # Each sample is the mean of its neighbours.
  mean = rng.integers(256, size=(17, 65, 3))
  for row in range(1, 17):
    for column in range(1, 65):
      mean[row, column] = (mean[row - 1, column] + mean[row, column - 1]) // 2
  parts = [up, sub, ramp, mean[1:, 1:], rng.integers(256, size=(8, 64, 3))]
  samples = np.concatenate(parts).astype(np.uint8)
  write(tmp_path / 'x.png', samples, step=len(samples))
  with Image.open(tmp_path / 'x.png') as image:
    np.testing.assert_array_equal(np.asarray(image), samples)
  data = (tmp_path / 'x.png').read_bytes()
  start, packed = 8, b''
  while start < len(data):
    length, kind = struct.unpack_from('>I4s', data, start)
    packed += data[start + 8 : start + 8 + length] * (kind == b'IDAT')
    start += 12 + length
  # zlib also checks the sum, which is put together from those of the bands.
  rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, 193)
  assert set(rows[:, 0]) == {1, 2, 3, 4}


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('subsampling', ['4:4:4', '4:2:0'])
@pytest.mark.parametrize('height', [5, 64, 65, 300])
def test_a_jpeg_of_stripes_is_one_jpeg(tmp_path, channels, subsampling, height):
  """The compressed bytes are those of one compression of the whole."""
  samples = picture(height, 83, channels, np.uint8)
  path = tmp_path / 'x.jpg'
  write(path, samples, **options(quality=90, subsampling=subsampling))
  whole = io.BytesIO()
  image = Image.fromarray(samples.squeeze())
  kind = {'subsampling': subsampling} if channels == 3 else {}
  image.save(whole, 'JPEG', quality=90, restart_marker_rows=1, **kind)
  assert path.read_bytes() == whole.getvalue()
  plain = io.BytesIO()
  image.save(plain, 'JPEG', quality=90, **kind)
  with Image.open(path) as mine, Image.open(plain) as other:
    np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))


def test_jpeg_is_written_with_95_and_all_colours(tmp_path):
  samples = picture(40, 40, 3, np.uint8)
  write(tmp_path / 'x.jpg', samples)
  expected = io.BytesIO()
  Image.fromarray(samples).save(
    expected, 'JPEG', quality=95, subsampling=0, restart_marker_rows=1
  )
  assert (tmp_path / 'x.jpg').read_bytes() == expected.getvalue()


def test_bmp_is_what_pillow_writes(tmp_path):
  for channels in (1, 3):
    samples = picture(23, 19, channels, np.uint8)
    write(tmp_path / 'x.bmp', samples, step=5)
    with Image.open(tmp_path / 'x.bmp') as image:
      assert image.mode == ('L' if channels == 1 else 'RGB')
      np.testing.assert_array_equal(np.asarray(image), samples.squeeze())


@pytest.mark.parametrize('suffix', ['.webp', '.avif'])
def test_kinds_in_memory_keep_transparency(tmp_path, suffix):
  samples = np.full((40, 40, 4), 200, np.uint8)
  samples[..., 3] = 255
  samples[:20, :, 3] = 0
  write(tmp_path / f'x{suffix}', samples, **options(quality=100))
  found = photograph.read(tmp_path / f'x{suffix}')
  assert found.alpha[:19].max() == 0 and found.alpha[21:].min() == 255
  assert abs(int(found.samples[30, 30, 0]) - 200) <= 2


def test_what_a_kind_cannot_hold_is_said(tmp_path):
  samples = np.zeros((8, 8, 4), np.uint16)
  samples[..., 3] = 32768
  writer = write(tmp_path / 'x.jpg', samples)
  assert [note.split(' ', 1)[0] for note in writer.notes] == ['JPEG', 'JPEG']
  assert 'white' in writer.notes[0] and '8 bits' in writer.notes[1]
  with Image.open(tmp_path / 'x.jpg') as image:
    assert abs(np.asarray(image).mean() - 127) < 1.5


def test_16_bits_are_rounded_to_the_nearest_of_8(tmp_path):
  samples = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
  write(tmp_path / 'x.bmp', samples)
  found = photograph.read(tmp_path / 'x.bmp').samples
  np.testing.assert_array_equal(found, np.rint(samples / 257))


class Stop(BaseException):
  """As Ctrl-C."""


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif', '.bmp', '.webp'])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
  path = tmp_path / f'x{suffix}'
  path.write_bytes(b'old')
  with pytest.raises(Stop):
    with picture_writer.open_writer(path, Layout(9, 9, 3, 8)) as writer:
      writer.write(np.zeros((4, 9, 3), np.uint8))
      raise Stop
  with pytest.raises(ValueError, match='Only 4 of 9 rows'):
    with picture_writer.open_writer(path, Layout(9, 9, 3, 8)) as writer:
      writer.write(np.zeros((4, 9, 3), np.uint8))
  assert os.listdir(tmp_path) == [path.name]
  assert path.read_bytes() == b'old'


def test_rows_of_another_layout_are_refused(tmp_path):
  path = tmp_path / 'x.png'
  for rows in (
    np.zeros((1, 8, 3), np.uint8),
    np.zeros((1, 9, 4), np.uint8),
    np.zeros((1, 9, 3), np.uint16),
  ):
    with pytest.raises(ValueError, match=r'expected uint8 \[N, 9, 3\]'):
      with picture_writer.open_writer(path, Layout(9, 9, 3, 8)) as writer:
        writer.write(rows)
  with pytest.raises(ValueError, match='10 rows were given for a picture of 9'):
    with picture_writer.open_writer(path, Layout(9, 9, 3, 8)) as writer:
      writer.write(np.zeros((10, 9, 3), np.uint8))


def test_the_caller_may_use_its_rows_again(tmp_path):
  rows = np.zeros((4, 50, 3), np.uint8)
  for suffix in ('.png', '.tif', '.jpg'):
    path = tmp_path / f'x{suffix}'
    with picture_writer.open_writer(path, Layout(50, 400, 3, 8)) as writer:
      for i in range(100):
        rows[:] = i
        writer.write(rows)
    found = photograph.read(path).samples
    assert np.abs(found[::4, 0, 0].astype(int) - np.arange(100)).max() <= 3


def test_grey_rows_need_no_axis_of_channels(tmp_path):
  with picture_writer.open_writer(
    tmp_path / 'x.png', Layout(9, 9, 1, 8)
  ) as writer:
    writer.write(np.full((9, 9), 7, np.uint8))
  assert photograph.read(tmp_path / 'x.png').samples.tolist()[0][0] == [7]


def test_bigtiff_begins_where_four_gigabytes_end(tmp_path, monkeypatch):
  samples = picture(40, 30, 3, np.uint16)
  write(tmp_path / 'x.tif', samples)
  monkeypatch.setattr(tiff_encoder, 'CLASSIC_BYTES', 1000)
  write(tmp_path / 'big.tif', samples)
  for name, is_big in (('x.tif', False), ('big.tif', True)):
    with tifffile.TiffFile(tmp_path / name) as file:
      assert file.is_bigtiff == is_big
      np.testing.assert_array_equal(file.asarray(), samples)


@pytest.mark.parametrize(
  'suffix, width, height, limit',
  [
    ('.webp', 16_384, 10, '16,383'),
    ('.jpg', 10, 65_501, '65,500'),
    ('.avif', 65_537, 10, '65,536'),
  ],
)
def test_a_side_that_the_format_cannot_hold_is_refused(
  tmp_path, suffix, width, height, limit
):
  path = tmp_path / f'x{suffix}'
  with pytest.raises(ValueError, match=rf'{width:,}x.* {limit} .*png or .tif'):
    with picture_writer.open_writer(path, Layout(width, height, 3, 8)):
      pass
  assert not os.listdir(tmp_path)


def test_a_bmp_of_more_than_four_gigabytes_is_refused(tmp_path):
  with pytest.raises(ValueError, match='BMP holds at most'):
    output_limits.check(
      output_kinds.by_name('BMP'), Layout(40_000, 40_000, 3, 8), tmp_path
    )


def test_a_disk_that_is_too_full_is_refused(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda folder: usage)
  with pytest.raises(
    ValueError, match=r'may take 3,0\d\d,\d+ .* 1,000,000 left'
  ):
    write(tmp_path / 'x.png', picture(1000, 1000, 3, np.uint8))
  write(tmp_path / 'x.png', picture(100, 100, 3, np.uint8))


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.jpg', '.bmp'])
def test_noise_takes_no_more_bytes_than_were_said(tmp_path, suffix):
  rng = np.random.default_rng(0)
  samples = rng.integers(256, size=(300, 300, 3)).astype(np.uint8)
  path = tmp_path / f'x{suffix}'
  write(path, samples)
  layout = Layout(300, 300, 3, 8)
  kind = output_kinds.by_suffix(path)
  assert path.stat().st_size <= output_limits.needed_bytes(kind, layout)


def test_memory_is_that_of_some_bands_or_of_the_whole():
  layout = Layout(24_000, 16_000, 3, 8)  # 24 megapixels at 4x
  for kind in output_kinds.KINDS:
    needed = output_limits.memory_needed(kind, layout)
    assert (needed < 2e9) == kind.is_banded


@pytest.mark.parametrize(
  'values, said',
  [
    ({'quality': 0}, 'quality is 0'),
    ({'quality': 101}, 'quality is 101'),
    ({'compression': 10}, 'compression is 10'),
    ({'subsampling': '4:1:1'}, '4:4:4, 4:2:0'),
  ],
)
def test_options_out_of_range_are_refused(values, said):
  with pytest.raises(ValueError, match=said):
    picture_writer.check_options(picture_writer.Options(**values))


@pytest.mark.skipif(
  not sys.platform.startswith('linux'), reason='names are text there'
)
@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif', '.webp', '.avif'])
def test_file_names_may_be_any_bytes(tmp_path, suffix):
  name = os.fsdecode(b'caf\xe9 \n ' + suffix.encode())
  samples = picture(20, 20, 3, np.uint8)
  write(tmp_path / name, samples)
  assert photograph.read(tmp_path / name).samples.shape == samples.shape


def test_kinds_are_found_by_suffix():
  for name, kind in (
    ('a.JPG', 'JPEG'), ('a.b.jfif', 'JPEG'), ('a.tiff', 'TIFF'),
    ('a.Png', 'PNG'),
  ):  # fmt: skip
    assert output_kinds.by_suffix(name).name == kind
  with pytest.raises(ValueError, match=r"suffix '\.heic' is of no kind"):
    output_kinds.by_suffix('a.heic')
  with pytest.raises(ValueError, match="suffix '' is of no kind"):
    output_kinds.by_suffix('png')


def test_a_photograph_is_written_as_its_own_kind_by_default():
  def of(kind, bits=8, has_alpha=False):
    return output_kinds.default(kind, bits=bits, has_alpha=has_alpha).name

  assert [of(k) for k in ('JPEG', 'PNG', 'TIFF', 'WebP', 'AVIF', 'BMP')] == [
    'JPEG', 'PNG', 'TIFF', 'WebP', 'AVIF', 'BMP',
  ]  # fmt: skip
  assert of('HEIC') == 'JPEG'
  assert of('HEIC', bits=16) == of('HEIC', has_alpha=True) == 'PNG'
  assert of('camera RAW', bits=16) == 'TIFF'
  assert of('GIF') == of('PBM, PGM or PPM') == of('JPEG XL') == 'PNG'


def test_the_name_says_the_scale():
  jpeg, png = output_kinds.by_name('JPEG'), output_kinds.by_name('PNG')
  path = output_kinds.default_path
  assert str(path('d/a.b.JPEG', jpeg, 4)) == 'd/a.b_x4.JPEG'
  assert str(path('a.heic', jpeg, 2.5)) == 'a_x2.5.jpg'
  assert str(path('a', png, 4.0)) == 'a_x4.png'
