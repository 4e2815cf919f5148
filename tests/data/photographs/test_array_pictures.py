"""Pictures of NumPy and Pillow are taken, and given back as what they were."""

import io

import numpy as np
import pytest
from PIL import Image

from cdm.data.photographs import array_pictures, jpeg_quality


def ramp(*shape, dtype=np.uint8):
  most = 1 if dtype == np.float32 else np.iinfo(dtype).max
  return (np.linspace(0, most, np.prod(shape)).reshape(shape)).astype(dtype)


def alike(given):
  """-> the pictures as they are given back, if nothing is done to them."""
  found = array_pictures.taken(given)
  whole = [
    one.samples
    if one.alpha is None
    else np.dstack([one.samples, one.alpha[..., None]])
    for one in found.photographs
  ]
  return found.back(whole)


@pytest.mark.parametrize('dtype', array_pictures.DTYPES)
@pytest.mark.parametrize('shape', [(4, 5), (4, 5, 3), (2, 4, 5, 3)])
def test_an_array_comes_back_as_it_was(dtype, shape):
  given = ramp(*shape, dtype=dtype)
  found = alike(given)
  assert found.dtype == dtype
  np.testing.assert_allclose(found, given, atol=1e-7)


def test_floats_become_what_networks_take():
  one = array_pictures.taken(np.array([[0.0, 0.5, 1.0]], np.float32))
  np.testing.assert_array_equal(one.photographs[0].samples[0, :, 0], [-1, 0, 1])


@pytest.mark.parametrize('mode', array_pictures.MODES)
def test_a_pillow_image_comes_back_in_its_mode(mode):
  channels = len(mode) if mode != 'I;16' else 1
  dtype = np.uint16 if mode == 'I;16' else np.uint8
  given = Image.fromarray(ramp(4, 5, channels, dtype=dtype).squeeze())
  assert given.mode == mode
  given.info = {'icc_profile': b'profile', 'dpi': (300, 300), 'gamma': 1}
  found = alike(given)
  assert (found.mode, found.size) == (mode, (5, 4))
  np.testing.assert_array_equal(np.asarray(found), np.asarray(given))
  assert found.info == {'icc_profile': b'profile', 'dpi': (300, 300)}


def test_a_list_comes_back_as_a_list_of_the_same_things():
  image = Image.new('LA', (3, 2), (9, 7))
  found = alike([image, ramp(2, 4, 5, 3), ramp(4, 5)])
  assert isinstance(found, list) and found[0].mode == 'LA'
  assert [x.shape for x in found[1:]] == [(2, 4, 5, 3), (4, 5)]
  np.testing.assert_array_equal(found[1], ramp(2, 4, 5, 3))


@pytest.mark.parametrize('mode', ['L', 'RGB'])
def test_the_quality_of_a_jpeg_is_that_of_its_bytes(mode):
  """Pillow hands on the tables in another order than the file has them."""
  for quality in (1, 20, 60, 89, 90, 95, 100):
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, 'JPEG', quality=quality)
    data = file.getvalue()
    one = array_pictures.of_pillow(Image.open(io.BytesIO(data)))
    assert one.quality == jpeg_quality.estimate(data) == quality


def test_tables_are_put_in_the_order_of_figure_a_6_of_t_81():
  found = jpeg_quality.zigzag(np.arange(64)).tolist()
  assert found[:10] == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
  assert found[-4:] == [47, 55, 62, 63]
  assert sorted(found) == list(range(64))


@pytest.mark.parametrize(
  'given, error, text',
  [
    ('photo.png', TypeError, 'a Pillow image, or a list of them; this is of '),
    ([], ValueError, 'list of pictures is empty'),
    (np.zeros((4, 4)), ValueError, 'dtype float64; give uint8 or uint16'),
    (np.zeros((4, 4, 4), np.uint8), ValueError, r'\(4, 4, 4\); give \[H, W\]'),
    (np.zeros((0, 4, 3), np.uint8), ValueError, 'are empty, of shape'),
    (np.full((2, 2), -0.1, np.float32), ValueError, 'are -0.1 to -0.1; scale'),
    (np.full((2, 2), np.nan, np.float32), ValueError, 'are nan to nan'),
    (Image.new('P', (2, 2)), ValueError, r"'P', and .* image.convert\('RGB'\)"),
    (Image.new('La', (2, 2)), ValueError, r"give image.convert\('RGBA'\)"),
  ],
)
def test_what_is_no_picture_is_named(given, error, text):
  with pytest.raises(error, match=text):
    array_pictures.taken(given)


def test_a_transparent_colour_is_not_lost_unseen():
  image = Image.new('RGB', (2, 2))
  image.info['transparency'] = (0, 0, 0)
  with pytest.raises(ValueError, match=r"transparent colour.*\('RGBA'\)"):
    array_pictures.taken(image)
