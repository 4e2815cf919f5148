"""Squares of photographs: what they depend on, and what they come with."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cdm.data import (
  decoded_pictures,
  drawn_pictures,
  folder_index,
  low_res_inputs,
  photo_crops,
  pipeline,
  transforms,
)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """Two photographs: one of noise, whose red is 10, one that is flat."""
  folder = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  rough = rng.integers(0, 256, (90, 140, 3), np.uint8)
  rough[..., 0] = 10
  flat = np.full((120, 100, 3), 200, np.uint8)
  for name, image in (('rough', rough), ('flat', flat)):
    Image.fromarray(image).save(folder / f'{name}.png')
  return folder


@pytest.fixture(autouse=True)
def kept(tmp_path_factory):
  place = tmp_path_factory.mktemp('kept')
  with folder_index.using(folder_index.Places(lambda: place)):
    yield place


def source(photos, **options):
  return photo_crops.PhotoCrops(
    str(photos), **{'image_size': 32, 'num_images': 400, **options}
  )


def same(a, b):
  assert a.keys() == b.keys()
  np.testing.assert_array_equal(a['image'], b['image'])
  for name in a['inputs']:
    np.testing.assert_array_equal(a['inputs'][name], b['inputs'][name])
  return True


def test_an_image_depends_on_the_seed_and_its_number_alone(photos):
  one, two = source(photos), source(photos)
  numbers = [7, 3, 250, 3]
  for i, j in zip(numbers, reversed(numbers), strict=True):
    one[j]
    assert same(one[i], two[i])
  other = source(photos, seed=1)
  assert any((one[i]['image'] != other[i]['image']).any() for i in range(3))
  assert one.fingerprint == two.fingerprint != other.fingerprint


def test_a_copy_in_another_process_reads_the_same(photos):
  mine = source(photos)
  again = pickle.loads(pickle.dumps(mine))
  assert same(mine[5], again[5])
  assert len(pickle.dumps(mine)) < 4000  # without the pixels


def test_the_low_res_image_is_the_shrunk_image_in_the_corner(photos):
  """Clean and at factor 2: one of the filters gives its bytes."""
  clean = source(photos, degraded=0.0, factors=(2.0,), drawn=0.0)
  seen = set()
  for i in range(60):
    element = clean[i]
    given, image = element['inputs'], element['image']
    size = int(given['lowres_size'])
    assert not given['lowres'][size:].any()
    assert not given['lowres'][:, size:].any()
    np.testing.assert_allclose(
      given['levels'], [np.log2(32 / size), 0, 0, 0], rtol=1e-6
    )
    low = given['lowres'][:size, :size]
    for name in ('bicubic', 'reflected', 'area', 'lanczos'):
      if (low == low_res_inputs.shrink_by(name, image, size)).all():
        seen.add(name)
  assert seen == {'bicubic', 'reflected', 'area', 'lanczos'}


def test_sizes_are_those_of_the_factors_or_any(photos):
  element = [source(photos, factors=(4.0, 1.0))[i] for i in range(300)]
  sizes = np.array([e['inputs']['lowres_size'] for e in element])
  assert sizes.min() >= 8 and sizes.max() <= 32
  exact = np.isin(sizes, (8, 32)).mean()
  assert exact == pytest.approx(0.8, abs=0.1) and len(set(sizes)) > 10


def test_squares_are_of_photographs_that_were_shrunk_first(photos):
  """Noise whose area means are taken has a smaller spread, by the factor."""
  for shrink in (1.0, 2.0):
    found = source(photos, shrinks=(shrink,), drawn=0.0, degraded=0.0)
    images = [found[i]['image'] for i in range(40)]
    rough = [x for x in images if x[0, 0, 0] == 10]
    assert rough and all((x[..., 0] == 10).all() for x in rough)
    spread = np.std([x[..., 2] for x in rough])
    assert spread == pytest.approx(
      np.sqrt((256**2 - 1) / 12) / shrink, rel=0.03
    )


def test_most_flat_squares_are_passed_over(photos):
  """Of two photographs of about one size, the flat one is nearly gone."""
  found = source(photos, drawn=0.0, shrinks=(1.0,))
  flat = np.mean([found[i]['image'][0, 0, 0] == 200 for i in range(300)])
  # Taken at the first try with 0.5 x 0.1 against 0.5.
  assert 0.02 < flat < 0.2


def test_all_flips_and_turns_come(photos):
  ramp = photos.parent / 'ramp'
  ramp.mkdir(exist_ok=True)
  image = np.zeros((32, 32, 3), np.uint8)
  image[..., 0], image[..., 1] = np.arange(32), 3 * np.arange(32)[:, None]
  Image.fromarray(image).save(ramp / 'a.png')
  found = source(ramp, shrinks=(1.0,), drawn=0.0)
  seen = {found[i]['image'][0, :2, :2].tobytes() for i in range(100)}
  assert len(seen) == 8


def test_a_share_of_the_images_is_drawn(photos):
  found = source(photos, drawn=0.3)
  drawn = 0
  for i in range(300):
    red = found[i]['image'][..., 0]
    drawn += not ((red == 10).all() or (red == 200).all())
  assert drawn / 300 == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize('kind', ['lettering', 'line_art', 'gradient'])
def test_drawn_pictures_depend_on_their_generator_and_have_something(kind):
  draw = getattr(drawn_pictures, kind)
  one, two, other = (draw(64, np.random.default_rng(n)) for n in (0, 0, 1))
  assert one.shape == (64, 64, 3) and one.dtype == np.uint8
  np.testing.assert_array_equal(one, two)
  assert (one != other).any()
  contrasts = [
    photo_crops.contrast(draw(64, np.random.default_rng(n))) for n in range(20)
  ]
  if kind == 'gradient':
    assert max(contrasts) < 8
  else:
    assert np.median(contrasts) > 2


def test_batches_hold_what_the_images_come_with_and_resume(photos):
  options = pipeline.PipelineOptions(image_size=32, crop='none')

  def batches(workers=0):
    return pipeline.make_iterator(
      source(photos),
      options._replace(worker_count=workers),
      batch_size=4,
      seed=0,
    )

  first = batches()
  expected = [next(first) for _ in range(4)]
  shapes = photo_crops.PhotoCrops.input_shapes(32)
  for name, (shape, dtype) in shapes.items():
    assert expected[0][name].shape == (4, *shape)
    assert expected[0][name].dtype == dtype
  second = batches()
  second.set_state({**first.get_state(), 'position': 8})
  for one in expected[2:]:
    two = next(second)
    for name in one:
      np.testing.assert_array_equal(one[name], two[name])
  first.close()
  second.close()


def test_worker_processes_read_the_same(photos):
  options = pipeline.PipelineOptions(
    image_size=32, crop='none', worker_count=1, read_threads=2
  )
  iterator = pipeline.make_iterator(
    source(photos), options, batch_size=4, seed=0
  )
  alone = pipeline.make_iterator(
    source(photos), options._replace(worker_count=0), batch_size=4, seed=0
  )
  one, two = next(iterator), next(alone)
  iterator.close()
  alone.close()
  for name in two:
    np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize('changed', [{'flip': True}, {'crop': 'center'}])
def test_a_pipeline_that_would_change_the_image_alone_is_refused(
  photos, changed
):
  options = pipeline.PipelineOptions(image_size=32, crop='none')
  with pytest.raises(
    ValueError, match='low-res inputs, which would not follow'
  ):
    pipeline.make_iterator(
      source(photos), options._replace(**changed), batch_size=4, seed=0
    )


def test_photographs_are_decoded_once_and_anew_when_they_change(
  photos, kept, monkeypatch, tmp_path
):
  decoded = decoded_pictures.decode(str(photos))
  assert decoded.names == ('flat.png', 'rough.png')
  for name, pixels in zip(decoded.names, decoded.pictures(), strict=True):
    np.testing.assert_array_equal(pixels, Image.open(photos / name))
  monkeypatch.setattr(decoded_pictures, '_write', None)
  assert decoded_pictures.decode(str(photos)) == decoded
  monkeypatch.undo()
  copy = tmp_path / 'copy'
  copy.mkdir()
  # As many bytes, whatever is in it.
  Image.open(photos / 'rough.png').save(copy / 'a.bmp')
  before = decoded_pictures.decode(str(copy))
  Image.new('RGB', Image.open(copy / 'a.bmp').size).save(copy / 'a.bmp')
  os.utime(copy / 'a.bmp', ns=(1, 1))
  after = decoded_pictures.decode(str(copy))
  assert before.path != after.path
  assert not after.pictures()[0].any()


def test_a_picture_that_cannot_be_read_leaves_nothing_behind(kept, tmp_path):
  (tmp_path / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\nnot at all')
  with pytest.raises(transforms.BadImage, match='broken.png'):
    decoded_pictures.decode(str(tmp_path))
  assert not list(kept.iterdir())


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ({'image_size': 4}, 'image_size is 4'),
    ({'num_images': 0}, 'num_images is 0'),
    ({'seed': -1}, 'seed is -1'),
    ({'drawn': 1.5}, 'drawn is 1.5'),
    ({'degraded': -0.1}, 'degraded is -0.1'),
    ({'shrinks': ()}, r'shrinks is \(\)'),
    ({'factors': (0.5,)}, r'factors is \(0.5,\)'),
    ({'image_size': 100}, 'No photograph .* short side of 150 pixels'),
  ],
)
def test_what_it_cannot_use_is_refused(photos, options, said):
  with pytest.raises(ValueError, match=said):
    source(photos, **options)


def test_the_source_needs_no_jax():
  code = (
    'import sys; import cdm.data.photo_crops; sys.exit("jax" in sys.modules)'
  )
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0
