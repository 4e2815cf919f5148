"""Arrays become larger: same units, same dtype, no value where there is none.

The stage shows the bicubic enlargement of what it is given, which is linear in
the values; Pillow computes the same of float32.
"""

import sys

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import array_stages

from cdm.data.arrays import missing_values
from cdm.sampling import (
  array_jobs,
  canvas_plan,
  enlarged_arrays,
  enlarged_files,
  enlarged_inputs,
  picture_rows,
)
from cdm.sampling.array_jobs import Values
from cdm.sampling.enlarged_jobs import Settings


@pytest.fixture(scope='module')
def upscalers():
  """-> {C: stage of C channels that magnifies twice}."""
  return {c: array_stages.enlarging(c) for c in (1, 3, 4)}


FOUND, WIDE = Values(), Values(range=(0.0, 50.0))


def enlarge(upscaler, given, out=None, *, values=FOUND, rounds=0, **more):
  every_tiff = values.range is not None
  inputs = enlarged_inputs.check(given, out, scale=2.0, every_tiff=every_tiff)
  settings = Settings(back_projections=rounds, **more)
  enlarged_arrays.write_enlarged_arrays(upscaler, inputs, settings, values)


def measured(*shape, seed=0):
  """-> smooth values from about 10 to 30, with noise."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[: shape[0], : shape[1]]
  planes = [
    20 + 6 * np.sin(y / 4 + c) * np.cos(x / 5) + rng.random(y.shape)
    for c in range(int(np.prod(shape[2:])))
  ]
  return np.stack(planes, -1).reshape(shape)


def bicubic(plane, times=2):
  height, width = (int(n * times) for n in plane.shape)
  image = Image.fromarray(plane.astype(np.float32))
  return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('dtype', ['u1', 'u2', 'i2', '>i4', 'f2', '<f4', '>f8'])
def test_units_and_dtype_stay(upscalers, tmp_path, dtype, channels):
  """A plane is drawn as it is, or by the mean of three equal channels."""
  array = measured(21, 19).astype(dtype)
  np.save(tmp_path / 'a.npy', array)
  enlarge(upscalers[channels], [tmp_path / 'a.npy'], values=WIDE)
  found = np.load(tmp_path / 'a_x2.npy')
  assert found.dtype == np.dtype(dtype) and found.shape == (42, 38)
  rounding = {'f': 1e-4}.get(found.dtype.kind, 0.51)
  rounding = 0.01 if dtype == 'f2' else rounding
  np.testing.assert_allclose(
    found.astype(float), bicubic(array.astype('f4')), atol=rounding
  )


def test_channels_and_pages_are_drawn_by_themselves(
  upscalers, tmp_path, capsys
):
  array = measured(18, 23, 5).astype('f4')
  np.save(tmp_path / 'a.npy', array)
  np.save(tmp_path / 'first.npy', np.moveaxis(array, -1, 0))
  np.save(tmp_path / 'fortran.npy', np.asfortranarray(array))
  samples = dict(photometric='minisblack', planarconfig='contig')
  tifffile.imwrite(tmp_path / 'many.tif', array, **samples)
  tifffile.imwrite(tmp_path / 'pages.tif', np.moveaxis(array, -1, 0))
  given = ['a.npy', 'fortran.npy', 'many.tif', 'pages.tif']
  enlarge(
    upscalers[3], [tmp_path / n for n in given], tmp_path / 'out', values=WIDE
  )
  enlarge(
    upscalers[1],
    [tmp_path / 'first.npy'],
    values=Values((0.0, 50.0), axes='PHW'),
  )
  told = capsys.readouterr().out
  assert 'a.npy: 5 channels of 23x18 -> 46x36 pixels, float32' in told
  assert 'pages.tif: 5 pages of 23x18 -> 46x36 pixels, float32' in told
  assert 'values 0 to 50 (given)' in told
  assert 'each channel is drawn as a grey picture by itself' in told
  expected = np.stack([bicubic(array[..., c]) for c in range(5)], -1)
  for name in given:
    read = np.load if name.endswith('npy') else tifffile.imread
    found = read(tmp_path / 'out' / name)
    if name == 'pages.tif':
      found = np.moveaxis(found, 0, -1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
  found = np.load(tmp_path / 'first_x2.npy')
  np.testing.assert_allclose(np.moveaxis(found, 0, -1), expected, atol=1e-4)


def test_a_stage_of_four_channels_draws_four_together(
  upscalers, tmp_path, capsys
):
  array = measured(18, 20, 4).astype('u2')
  np.save(tmp_path / 'a.npy', array)
  grey = dict(photometric='minisblack')
  tifffile.imwrite(
    tmp_path / 'pages.tif', np.moveaxis(array, -1, 0).copy(), **grey
  )
  np.save(tmp_path / 'bad.npy', array[..., :3])
  given = [tmp_path / n for n in ('a.npy', 'pages.tif', 'bad.npy')]
  with pytest.raises(ValueError, match=r'4 channels together, and the array'):
    enlarge(upscalers[4], given, tmp_path / 'out', values=WIDE)
  told = capsys.readouterr().out
  assert 'its 4 pages are drawn as channels of one picture' in told
  expected = np.stack([bicubic(array[..., c]) for c in range(4)], -1)
  found = np.load(tmp_path / 'out' / 'a.npy')
  np.testing.assert_allclose(found, expected, atol=0.51)
  pages = tifffile.imread(tmp_path / 'out' / 'pages.tif')
  np.testing.assert_array_equal(np.moveaxis(pages, 0, -1), found)


def test_the_range_is_given_trained_of_the_dtype_or_found(
  upscalers, tmp_path, capsys
):
  deep = (measured(12, 12) * 50).astype('u2')
  np.save(tmp_path / 'deep.npy', deep)
  real = measured(12, 12, 2)
  real[..., 1] *= 100
  np.save(tmp_path / 'real.npy', real)
  given = [tmp_path / 'deep.npy', tmp_path / 'real.npy']
  enlarge(upscalers[3], given, tmp_path / 'found')
  told = capsys.readouterr().out
  assert 'values 0 to 65535 (of uint16)' in told
  assert f'--range={deep.min()}:{deep.max()} would show' in told
  low, high = real.min(), real.max()
  assert f'values {low:g} to {high:g} (found, each channel its own)' in told
  trained = array_stages.enlarging(3, values=(0.0, 9e3))
  enlarge(trained, given[1:], tmp_path / 'trained')
  assert 'values 0 to 9000 (of the training data)' in capsys.readouterr().out
  # An overshoot of the filter ends at the values that were found.
  found = np.load(tmp_path / 'found' / 'real.npy')
  for c in range(2):
    expected = np.clip(bicubic(real[..., c]), real[..., c].min(), None)
    expected = np.minimum(expected, real[..., c].max())
    np.testing.assert_allclose(
      found[..., c], expected, atol=1e-5 * real[..., c].max()
    )


def test_values_beyond_the_range_come_back_by_back_projection(
  upscalers, tmp_path
):
  """A star ten times as bright as the range is not cut off at its end."""
  array = np.full((24, 24), 5.0, 'f4')
  array[8:16, 8:16] = 100.0
  np.save(tmp_path / 'a.npy', array)
  values = Values(range=(0.0, 10.0))
  enlarge(upscalers[1], [tmp_path / 'a.npy'], tmp_path / '0', values=values)
  assert np.load(tmp_path / '0' / 'a.npy').max() <= 10.0
  enlarge(
    upscalers[1],
    [tmp_path / 'a.npy'],
    tmp_path / '2',
    values=values,
    rounds=2,
  )
  found = np.load(tmp_path / '2' / 'a.npy')
  np.testing.assert_allclose(found[20:28, 20:28], 100.0, atol=2.0)
  np.testing.assert_allclose(found[:8, :8], 5.0, atol=0.1)


def test_missing_values_are_filled_for_the_network_and_missing_again(
  upscalers, tmp_path, capsys
):
  array = measured(40, 30).astype('f4')
  array[10:14, 5:9] = np.nan
  array[30, 3] = np.inf
  np.save(tmp_path / 'a.npy', array)
  holed = np.where(np.isfinite(array), array, -999).astype('i2')
  tifffile.imwrite(
    tmp_path / 'b.tif', holed, extratags=[(42113, 2, 0, '-999', True)]
  )
  given = [tmp_path / 'a.npy', tmp_path / 'b.tif']
  enlarge(upscalers[1], given, tmp_path / 'out', values=WIDE)
  assert capsys.readouterr().out.count('17 values are missing') == 2
  found = np.load(tmp_path / 'out' / 'a.npy')
  large = np.repeat(np.repeat(array, 2, 0), 2, 1)
  np.testing.assert_array_equal(np.isnan(found), np.isnan(large))
  np.testing.assert_array_equal(np.isinf(found), np.isinf(large))
  filled = array.copy()
  filled[30, 3] = np.nan
  filled = missing_values.fill(filled, np.isnan(filled), 0.0)
  there = np.isfinite(large)
  np.testing.assert_allclose(found[there], bicubic(filled)[there], atol=1e-4)
  with tifffile.TiffFile(tmp_path / 'out' / 'b.tif') as file:
    assert file.pages.first.tags[42113].value.strip('\0') == '-999'
    whole = file.asarray()
  np.testing.assert_array_equal(whole == -999, ~there)


def test_missing_values_do_not_depend_on_the_band_that_is_read():
  rng = np.random.default_rng(0)
  values = rng.random((120, 20))
  missing = np.zeros((120, 20), bool)
  missing[20:110] = True
  filled = missing_values.fill(values, missing, -1.0)
  reach = missing_values.REACH
  part = missing_values.fill(
    values[60 - reach : 70 + reach], missing[60 - reach : 70 + reach], -1.0
  )
  np.testing.assert_array_equal(part[reach : reach + 10], filled[60:70])
  np.testing.assert_array_equal(filled[20:51], np.tile(values[19], (31, 1)))
  assert (filled[19 + reach + 1 : 110 - reach] == -1.0).all()


def test_memory_does_not_grow_with_the_height(upscalers, tmp_path, monkeypatch):
  """The rows that are read and written at once are counted."""
  array = measured(900, 20).astype('f4')
  tifffile.imwrite(
    tmp_path / 'a.tif', array, rowsperstrip=16, compression='zlib'
  )
  seen = []
  rows = array_jobs.ArrayFile.rows

  def counted(self, page, first, last):
    seen.append(last - first)
    return rows(self, page, first, last)

  monkeypatch.setattr(array_jobs.ArrayFile, 'rows', counted)
  monkeypatch.setattr(canvas_plan.plan, '__kwdefaults__', {
    **canvas_plan.plan.__kwdefaults__, 'memory': 400_000
  })  # fmt: skip
  monkeypatch.setattr(array_jobs.Enlargement.of.__func__, '__kwdefaults__', {
    **array_jobs.Enlargement.of.__func__.__kwdefaults__, 'memory': 400_000
  })  # fmt: skip
  enlarge(upscalers[1], [tmp_path / 'a.tif'], values=WIDE, rounds=1)
  assert max(seen) <= array_jobs._BAND and len(seen) > 20
  assert max(seen[4:]) < 250  # of 900, of what is drawn
  found = tifffile.imread(tmp_path / 'a_x2.tif')
  assert found.shape == (1800, 40) and picture_rows.BAND < 250


def test_what_is_there_is_kept_and_an_error_leaves_no_half_file(
  upscalers, tmp_path, monkeypatch, capsys
):
  np.save(tmp_path / 'a.npy', measured(20, 20))
  out = tmp_path / 'out'
  enlarge(upscalers[1], [tmp_path / 'a.npy'], out, values=WIDE)
  first = (out / 'a.npy').stat().st_mtime_ns
  enlarge(upscalers[1], [tmp_path / 'a.npy'], out, values=WIDE)
  assert (out / 'a.npy').stat().st_mtime_ns == first
  with pytest.raises(ValueError, match='would be overwritten'):
    enlarge(upscalers[1], [tmp_path / 'a.npy'], out, values=Values((0.0, 51.0)))

  def fail(self):
    raise OSError('The disk is full.')

  monkeypatch.setattr(enlarged_arrays.array_writer.Writer, 'finish', fail)
  with pytest.raises(OSError, match='disk is full'):
    enlarge(upscalers[1], [tmp_path / 'a.npy'], tmp_path / 'no', values=WIDE)
  assert not list((tmp_path / 'no').glob('*.npy'))
  assert not list((tmp_path / 'no').glob('.*.partial'))


def test_a_folder_of_pictures_and_arrays_is_split(tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  np.save(folder / 'a.npy', measured(8, 8))
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / 'b.png')
  grey = np.zeros((8, 8), np.uint16)
  tifffile.imwrite(folder / 'c.tif', grey)
  tifffile.imwrite(folder / 'd.tif', grey.astype('f4'))
  inputs = enlarged_inputs.check([folder], tmp_path / 'out', scale=2.0)
  assert [p.path.name for p in inputs.pictures] == ['b.png', 'c.tif']
  assert [a.target.name for a in inputs.arrays] == ['a.npy', 'd.tif']
  inputs = enlarged_inputs.check(
    [folder], tmp_path / 'out', scale=2.0, every_tiff=True
  )
  assert [a.kind for a in inputs.arrays] == ['NPY', 'TIFF', 'TIFF']
  with pytest.raises(ValueError, match='an array keeps its kind, NPY; give'):
    enlarged_inputs.check([folder / 'a.npy'], tmp_path / 'a.tif', scale=2.0)


def test_a_stage_of_one_channel_enlarges_grey_photographs(upscalers, tmp_path):
  grey = measured(12, 14).astype(np.uint8)
  Image.fromarray(grey).save(tmp_path / 'a.png')
  Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / 'rgb.png')
  given = [tmp_path / 'a.png', tmp_path / 'rgb.png']
  inputs = enlarged_inputs.check(given, tmp_path / 'out', scale=2.0)
  with pytest.raises(ValueError, match=r'rgb\.png has 3 .* give grey pictures'):
    enlarged_files.write_enlarged_files(
      upscalers[1], inputs, Settings(back_projections=0)
    )
  with Image.open(tmp_path / 'out' / 'a.png') as found:
    assert found.mode == 'L'
    np.testing.assert_allclose(np.asarray(found), bicubic(grey), atol=0.51)


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.zeros((4, 4), 'i8'), 'is int64; store it as one of uint8'),
    (np.zeros((4, 4), 'c8'), 'is complex64; store it as one of'),
    (np.zeros(4), r'is \[4\]; \[H, W\], \[H, W, C\] or'),
    (
      np.zeros((4, 90, 70)),
      r'would be 70 channels of 90x4 pixels; give',
    ),
    (np.full((4, 4), np.nan), 'a channel of the array holds no value at all'),
    (np.zeros((0, 4)), 'is empty'),
  ],
)
def test_what_cannot_be_enlarged_is_said(upscalers, tmp_path, array, message):
  np.save(tmp_path / 'a.npy', array)
  with pytest.raises(ValueError, match=rf'a\.npy: .*{message}'):
    enlarge(upscalers[3], [tmp_path / 'a.npy'])


def test_fits_without_astropy_names_the_command(
  upscalers, tmp_path, monkeypatch
):
  (tmp_path / 'a.fits').write_bytes(b'SIMPLE  =' + bytes(2871))
  monkeypatch.setitem(sys.modules, 'astropy.io.fits', None)
  with pytest.raises(
    ValueError, match=r"a\.fits: FITS .* install 'cdm\[science\]'"
  ):
    enlarge(upscalers[1], [tmp_path / 'a.fits'])


def test_fits_keeps_its_header_and_the_sky_stays(upscalers, tmp_path, capsys):
  """Astropy's own coordinates say where the pixels are."""
  fits = pytest.importorskip('astropy.io.fits')
  from astropy.wcs import WCS

  header = fits.Header()
  header['OBJECT'], header['BUNIT'] = 'M31', 'electron'
  for axis, (kind, at) in enumerate([('RA', 10.68), ('DEC', 41.27)], 1):
    header[f'CTYPE{axis}'] = f'{kind:-<5}TAN-SIP'[:8] + '-SIP'
    header[f'CRVAL{axis}'], header[f'CRPIX{axis}'] = at, 9.25 + axis
    header[f'CUNIT{axis}'] = 'deg'
  header['CD1_1'], header['CD1_2'] = -2e-4, 5e-5
  header['CD2_1'], header['CD2_2'] = 6e-5, 2e-4
  header['A_ORDER'], header['A_2_0'], header['A_1_1'] = 2, 3e-4, -2e-4
  header['B_ORDER'], header['B_0_2'] = 2, 1e-4
  array = (measured(20, 24) * 1000).astype('u2')
  array[3, 4] = 7
  hdus = fits.HDUList(
    [fits.PrimaryHDU(), fits.ImageHDU(array, header), fits.ImageHDU(array)]
  )
  hdus[0].header['TELESCOP'] = 'cdm'
  hdus.writeto(tmp_path / 'a.fits', checksum=True)
  cube = measured(8, 9, 3).astype('f4').transpose(2, 0, 1)
  fits.writeto(tmp_path / 'cube.fits', cube)
  given = [tmp_path / 'a.fits', tmp_path / 'cube.fits']
  values = Values(range=(0.0, 50_000.0))
  enlarge(upscalers[3], given, tmp_path / 'out', values=values)
  told = capsys.readouterr().out
  assert 'a.fits: 24x20 -> 48x40 pixels, int16' in told
  assert 'its other extensions are left out: 2' in told
  assert 'cube.fits: 3 pages of 9x8 -> 18x16' in told
  with fits.open(tmp_path / 'out' / 'a.fits') as found:
    found.verify('exception')
    assert found[0].header['TELESCOP'] == 'cdm' and len(found) == 2
    assert found[1].data.dtype == np.uint16
    np.testing.assert_allclose(
      found[1].data.astype(float), bicubic(array), atol=0.51
    )
    assert found[1].header['OBJECT'] == 'M31'
    fine = WCS(found[1].header)
  coarse = WCS(header)
  places = np.array([[0.0, 0.0], [23.0, 19.0], [5.5, 12.25]])
  np.testing.assert_allclose(
    fine.all_pix2world(2 * places + 0.5, 0),
    coarse.all_pix2world(places, 0),
    atol=1e-9,
  )
  np.testing.assert_allclose(
    fits.getdata(tmp_path / 'out' / 'cube.fits')[1], bicubic(cube[1]), atol=0.01
  )
  enlarge(upscalers[3], given, tmp_path / 'out', values=values)  # is kept


def test_fits_steps_and_rotations_are_of_finer_pixels():
  fits = pytest.importorskip('astropy.io.fits')
  from astropy.wcs import WCS

  from cdm.data.arrays import fits_grid

  for times in ((4.0, 4.0), (3.0, 2.5)):
    header = fits.Header()
    for axis, (kind, at) in enumerate([('RA---TAN', 150.0), ('DEC--TAN', 2.0)]):
      header[f'CTYPE{axis + 1}'], header[f'CRVAL{axis + 1}'] = kind, at
      header[f'CRPIX{axis + 1}'], header[f'CDELT{axis + 1}'] = 7.0, 3e-4
    header['PC1_1'], header['PC1_2'] = 0.8, -0.6
    header['PC2_1'], header['PC2_2'] = 0.6, 0.8
    coarse = WCS(header.copy())
    fits_grid.refine(header, times)
    if times == (4.0, 4.0):
      assert header['CDELT1'] == 3e-4 / 4 and header['PC1_1'] == 0.8
    places = np.array([[0.0, 0.0], [30.0, 11.0]])
    y, x = times
    finer = (places + 0.5) * [x, y] - 0.5
    np.testing.assert_allclose(
      WCS(header).all_pix2world(finer, 0),
      coarse.all_pix2world(places, 0),
      atol=1e-10,
    )
