"""TIFF arrays are read by bands of rows as tifffile reads them whole."""

import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from cdm.data.arrays import array_file, array_kinds, array_layout, tiff_file

GREY = {'photometric': 'minisblack'}


def numbers(shape, dtype):
  return (np.random.default_rng(0).random(shape) * 1000).astype(dtype)


@pytest.mark.parametrize(
  ('shape', 'axes', 'dtype', 'options'),
  [
    ((50, 37), 'HW', 'f4', {}),
    ((50, 37), 'HW', 'f4', {'byteorder': '>', 'bigtiff': True}),
    ((50, 37), 'HW', 'u4', {'rowsperstrip': 7, 'compression': 'zlib'}),
    ((50, 37), 'HW', 'f8', {'tile': (16, 32)}),
    ((3, 50, 37), 'PHW', 'i2', {'tile': (16, 16), 'compression': 'zlib'}),
    ((50, 37, 6), 'HWC', 'u2', {'planarconfig': 'contig', 'tile': (16, 16)}),
    ((6, 50, 37), 'CHW', 'u2', {'planarconfig': 'separate', 'tile': (16, 32)}),
    ((2, 6, 50, 37), 'PCHW', 'u1', {'planarconfig': 'separate'}),
    ((2, 3, 50, 37), 'PPHW', 'f4', {'rowsperstrip': 16, 'predictor': False}),
    (
      (50, 37), 'HW', 'f4',
      {'compression': 'zlib', 'rowsperstrip': 50, 'byteorder': '>'},
    ),
  ],
)  # fmt: skip
def test_rows_are_those_of_the_whole(tmp_path, shape, axes, dtype, options):
  whole = numbers(shape, dtype)
  path = tmp_path / 'a.tif'
  tifffile.imwrite(path, whole, **{**GREY, **options})
  with array_file.closing(tiff_file.open_file(path, None)) as file:
    layout = file.layout
    assert (layout.shape, layout.axes) == (shape, axes)
    order = options.get('byteorder', '=')
    assert layout.dtype == np.dtype(dtype).newbyteorder(order)
    pages = whole.reshape(layout.pages, *shape[-axes.count('C') - 2 :])
    if axes.endswith('CHW'):
      pages = np.moveaxis(pages, 1, -1)
    pages = pages.reshape(layout.pages, 50, 37, layout.channels)
    for page, (first, last) in itertools.product(
      range(layout.pages), [(0, 50), (13, 14), (15, 33), (48, 50)]
    ):
      found = file.rows(page, first, last)
      np.testing.assert_array_equal(found, pages[page, first:last])


def test_axes_may_be_named_but_not_those_of_the_pixels(tmp_path):
  tifffile.imwrite(tmp_path / 'a.tif', numbers((4, 9, 8), 'f4'), **GREY)
  file = tiff_file.open_file(tmp_path / 'a.tif', 'CHW')
  assert (file.layout.pages, file.layout.channels) == (1, 4)
  assert file.rows(0, 2, 5).shape == (3, 8, 4)
  file.close()
  with pytest.raises(ValueError, match=r'are its axes 2 and 3, as the file'):
    tiff_file.open_file(tmp_path / 'a.tif', 'HWC')
  for text in ('HCW', 'WH', 'CHWC', 'HWP', 'H'):
    with pytest.raises(ValueError, match=f'--axes={text}: give a letter for'):
      array_layout.parse_axes(text)


def test_photographs_are_no_arrays(tmp_path):
  deep = numbers((9, 8, 3), 'u2')
  cases = {
    'photo': (deep, {'photometric': 'rgb'}, None),
    'grey': (deep[..., 0], GREY, None),
    'float': (deep[..., 0].astype('f4'), GREY, 'TIFF'),
    'pages': (np.stack([deep[..., 0]] * 2), GREY, 'TIFF'),
    'five': (numbers((9, 8, 5), 'u1'), {**GREY, 'planarconfig': 1}, 'TIFF'),
  }
  for name, (array, options, kind) in cases.items():
    path = tmp_path / f'{name}.tif'
    tifffile.imwrite(path, array, **options)
    assert array_kinds.kind_of(path) == kind
    assert array_kinds.kind_of(path, every_tiff=True) == 'TIFF'
  with tifffile.TiffWriter(tmp_path / 'thumbnail.tif') as file:
    file.write(deep, photometric='rgb')
    file.write(deep[::3, ::3], photometric='rgb', subfiletype=1)
  assert array_kinds.kind_of(tmp_path / 'thumbnail.tif') is None
  if 5 not in tifffile.TIFF.DECOMPRESSORS:  # LZW, with imagecodecs alone
    two = [Image.fromarray(deep.astype(np.uint8))] * 2
    options = dict(append_images=two[1:], compression='tiff_lzw')
    two[0].save(tmp_path / 'lzw.tif', save_all=True, **options)
    assert array_kinds.kind_of(tmp_path / 'lzw.tif') is None
  (tmp_path / 'cut.tif').write_bytes((tmp_path / 'float.tif').read_bytes()[:99])
  assert array_kinds.kind_of(tmp_path / 'cut.tif') is None


def test_a_file_that_is_cut_off_is_said(tmp_path):
  path = tmp_path / 'a.tif'
  tifffile.imwrite(path, numbers((50, 37), 'f4'), compression='zlib')
  path.write_bytes(path.read_bytes()[:-1000])
  with pytest.raises(ValueError, match='cut off'):
    file = tiff_file.open_file(path, None)
    file.rows(0, 0, 50)


def place(page, x, y):
  """-> where GeoTIFF puts point (x, y) of a page, which counts pixels."""
  if 34264 in page.tags:
    matrix = np.reshape(page.tags[34264].value, (4, 4))
    return (matrix @ [x, y, 0, 1])[:2]
  i, j, _, east, north, _ = page.tags[33922].value
  step_x, step_y, _ = page.tags[33550].value
  return np.array([east + (x - i) * step_x, north - (y - j) * step_y])


@pytest.mark.parametrize('raster', [1, 2])  # the corner or the centre is 0
@pytest.mark.parametrize('by_matrix', [False, True])
def test_places_on_the_earth_stay(tmp_path, raster, by_matrix):
  keys = (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, raster)
  places = [
    (33922, 12, 6, (2.0, 3.0, 0.0, 5e5, 4e6, 0.0), True),
    (33550, 12, 3, (10.0, 20.0, 0.0), True),
  ]
  if by_matrix:
    matrix = (9.0, 2.0, 0.0, 5e5, 1.0, -8.0, 0.0, 4e6, *[0.0] * 7, 1.0)
    places = [(34264, 12, 16, matrix, True)]
  path, out = tmp_path / 'a.tif', tmp_path / 'b.tif'
  tags = [*places, (34735, 3, 12, keys, True), (42113, 2, 0, 'nan', True)]
  tifffile.imwrite(
    path,
    numbers((6, 8), 'u1'),
    extratags=tags,
    resolution=(100, 50),
    resolutionunit='CENTIMETER',
    description='by hand',
  )
  assert array_kinds.kind_of(path) == 'TIFF'
  out.touch()
  with array_file.closing(tiff_file.open_file(path, None)) as file:
    large = file.layout.enlarged(24, 24)
  offset = tiff_file.begin(out, large, path, software='cdm')
  with open(out, 'r+b') as file:
    file.truncate(offset + large.nbytes)
  with tifffile.TiffFile(path) as a, tifffile.TiffFile(out) as b:
    old, new = a.pages.first, b.pages.first
    assert new.dataoffsets == (offset,) and new.shape == (24, 24)
    assert new.tags[34735].value == keys and new.description == 'by hand'
    assert new.get_resolution() == (300, 200) and new.software == 'cdm'
    shift = 0.0 if raster == 1 else 0.5
    for x, y in [(0.0, 0.0), (8.0, 6.0), (2.5, 4.0)]:  # from the corner
      np.testing.assert_allclose(
        place(new, 3 * x - shift, 4 * y - shift),
        place(old, x - shift, y - shift),
        rtol=1e-12,
      )


def test_the_xml_of_ome_says_the_finer_pixels(tmp_path):
  path, out = tmp_path / 'a.ome.tif', tmp_path / 'b.tif'
  metadata = {'axes': 'ZYX', 'PhysicalSizeX': 0.5, 'PhysicalSizeY': 0.25}
  tifffile.imwrite(path, numbers((3, 6, 8), 'u2'), metadata=metadata)
  out.touch()
  with array_file.closing(tiff_file.open_file(path, None)) as file:
    assert (file.layout.axes, file.layout.pages) == ('PHW', 3)
    large = file.layout.enlarged(12, 16)
  offset = tiff_file.begin(out, large, path, software='cdm')
  with open(out, 'r+b') as file:
    file.truncate(offset + large.nbytes)
  with tifffile.TiffFile(out) as file:
    assert file.is_ome and file.series[0].shape == (3, 12, 16)
    found = tifffile.xml2dict(file.ome_metadata)['OME']['Image']['Pixels']
    assert (found['PhysicalSizeX'], found['PhysicalSizeY']) == (0.25, 0.125)
    assert (found['SizeX'], found['SizeY']) == (16, 12)
