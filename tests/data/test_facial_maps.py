"""Landmarks and parts of faces on their way through the pipeline."""

import numpy as np
import pytest
from PIL import Image

from cdm.data import (
  facial_maps,
  folder,
  landmark_file,
  parsing_folder,
  pipeline,
)
from cdm.data.transforms import BadImage

# Every point and part has a colour of its own in the pictures.
POINTS = {
  'lefteye': (255, 0, 0),
  'nose': (0, 255, 0),
  'righteye': (0, 0, 255),
}
PARTS = ('background', 'l_ear', 'r_ear')
SIZE, COUNT = 32, 12


def draw(root):
  """Pictures of odd sizes, with a spot at each point; one map of parts each.

  The left eye and ear are in the left half; the part that covers a pixel is
  told by how dark it is.
  """
  rng = np.random.default_rng(0)
  columns = [f'{name}_{axis}' for name in POINTS for axis in 'xy']
  lines = [f'{COUNT}', ' '.join(columns)]
  for i in range(COUNT):
    height, width = rng.integers(50, 80, 2)
    side = min(height, width)
    corner = np.array([(width - side) // 2, (height - side) // 2])
    parts = np.zeros((height, width), np.uint8)
    parts[:, : width // 3], parts[:, -width // 3 :] = 1, 2
    pixels = np.zeros((height, width, 3), np.uint8)
    words = [f'{i}.png']
    for colour, at in zip(POINTS.values(), (0.25, 0.5, 0.75), strict=True):
      point = corner + (side * np.array([at, rng.uniform(0.3, 0.7)])).astype(
        int
      )
      x, y = point + rng.integers(-3, 4, 2)
      pixels[y - 2 : y + 3, x - 2 : x + 3] = colour
      words += [str(x), str(y)]
    lines.append(' '.join(words))
    for kind, values in (('pictures', pixels), ('maps', parts)):
      (root / kind).mkdir(exist_ok=True)
      Image.fromarray(values).save(root / kind / f'{i}.png')
  (root / 'points.txt').write_text('\n'.join(lines), encoding='utf-8')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('faces')
  draw(root)
  return root


def open_faces(root, *, landmarks='points.txt', parsing='maps'):
  source = folder.Folder(root / 'pictures', class_names=())
  points = parts = None
  if landmarks:
    points = landmark_file.read(root / landmarks, source.files)
  if parsing:
    parts = parsing_folder.ParsingFolder(root / parsing, source.files, PARTS)
  return facial_maps.FacialMaps(source, points, parts)


def start(source, **options):
  options = {'image_size': SIZE, 'flip': True, 'min_side': 0} | options
  return pipeline.make_iterator(
    source, pipeline.PipelineOptions(**options), batch_size=8, seed=1
  )


def take(iterator, count=3):
  found = [next(iterator) for _ in range(count)]
  iterator.close()
  return found


@pytest.mark.parametrize('crop', ['center', 'random', 'squash'])
def test_the_maps_follow_the_picture_and_a_flip_exchanges_the_sides(root, crop):
  """The map of the left eye is on the left, on whichever eye is there."""
  flips = 0
  for batch in take(start(open_faces(root), crop=crop)):
    assert batch['prior'].shape == (8, SIZE // 2, SIZE // 2, 6)
    assert batch['prior'].dtype == np.uint8
    for image, maps in zip(batch['image'], batch['prior'], strict=True):
      small = image.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean(axis=(1, 3))
      red, blue = (small[..., c].sum(axis=0).argmax() for c in (0, 2))
      flips += red > blue
      # On the left is the red spot of the left eye, or in a mirrored picture
      # the blue one.
      shown = [0, 1, 2] if red < blue else [2, 1, 0]
      for k, channel in enumerate(shown):
        heat = maps[..., k]
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        light = small[..., channel]
        assert light[row, column] > 0.4 * light.max()
      left, right = maps[..., 4], maps[..., 5]
      if crop == 'squash':
        assert (left[:, :5] == 255).all() and (right[:, -5:] == 255).all()
      np.testing.assert_allclose(
        maps[..., 3:].sum(axis=2, dtype=int), 255, atol=1
      )
      assert not left[:, -4:].any() and not right[:, :4].any()
  assert 5 < flips < 19


def test_pictures_and_order_are_those_without_maps(root):
  """And maps of one kind alone are the same as beside those of the other."""
  options = {'crop': 'random'}
  both = take(start(open_faces(root), **options))
  bare = take(
    start(folder.Folder(root / 'pictures', class_names=()), **options)
  )
  points = take(start(open_faces(root, parsing=None), **options))
  parts = take(start(open_faces(root, landmarks=None), **options))
  for all_maps, none, some, others in zip(
    both, bare, points, parts, strict=True
  ):
    assert set(none) == {'image', 'label'}
    np.testing.assert_array_equal(all_maps['image'], none['image'])
    np.testing.assert_array_equal(all_maps['prior'][..., :3], some['prior'])
    np.testing.assert_array_equal(all_maps['prior'][..., 3:], others['prior'])


def test_a_run_goes_on_with_the_maps_of_its_position(root):
  """In worker processes as in threads, with the rows of one process or two."""
  whole = take(start(open_faces(root), crop='random'), 4)
  iterator = start(open_faces(root), crop='random')
  next(iterator)
  state = iterator.get_state()
  iterator.close()
  again = start(open_faces(root), crop='random', worker_count=2)
  again.set_state(state)
  for one, other in zip(take(again), whole[1:], strict=True):
    for key in ('image', 'label', 'prior'):
      np.testing.assert_array_equal(one[key], other[key])


# --- What cannot be used


def changed(root, tmp_path, old, new):
  """-> a copy of the list of points with a change."""
  text = (root / 'points.txt').read_text(encoding='utf-8')
  assert old in text
  (tmp_path / 'points.txt').write_text(text.replace(old, new), encoding='utf-8')
  return tmp_path / 'points.txt'


def test_points_outside_of_their_picture_are_refused_at_the_start(
  root, tmp_path
):
  """Wherever the picture is, because the outermost points are looked at."""
  line = (root / 'points.txt').read_text(encoding='utf-8').splitlines()[9]
  name, x, *rest = line.split()
  path = changed(root, tmp_path, line, ' '.join([name, '99', *rest]))
  source = open_faces(root, landmarks=path)
  with pytest.raises(ValueError, match=rf'^{name}: .*reach \(99, .* as they'):
    source.check(flip=True)
  # In training it counts as a picture that cannot be read.
  i = source._source.files.index(name)
  with pytest.raises(BadImage, match=r'reach \(99'):
    source[i]
  open_faces(root).check(flip=True)
  assert float(x) < 80


def test_maps_of_another_shape_are_refused_at_the_start(root, tmp_path):
  (tmp_path / 'maps').mkdir()
  for i in range(COUNT):
    Image.fromarray(np.zeros((30, 90), np.uint8)).save(
      tmp_path / 'maps' / f'{i}.png'
    )
  source = open_faces(root, parsing=tmp_path / 'maps')
  with pytest.raises(ValueError, match='has 90x30 pixels, of another shape'):
    source.check(flip=False)


def test_maps_may_have_another_size_than_the_pictures(root, tmp_path):
  """Those of CelebAMask-HQ are half as large."""
  (tmp_path / 'maps').mkdir()
  for i in range(COUNT):
    with Image.open(root / 'maps' / f'{i}.png') as image:
      larger = image.resize((2 * image.width, 2 * image.height), 0)
    larger.save(tmp_path / 'maps' / f'{i}.png')
  one = open_faces(root, landmarks=None)
  two = open_faces(root, landmarks=None, parsing=tmp_path / 'maps')
  two.check(flip=True)
  for a, b in zip(take(start(one)), take(start(two)), strict=True):
    np.testing.assert_array_equal(a['prior'], b['prior'])


def test_points_without_sides_are_refused_where_pictures_are_mirrored(
  root, tmp_path
):
  text = (root / 'points.txt').read_text(encoding='utf-8')
  header = text.splitlines()[1]
  numbered = header.replace('lefteye', 'p1').replace('righteye', 'p2')
  path = changed(root, tmp_path, header, numbered)
  source = open_faces(root, landmarks=path, parsing=None)
  with pytest.raises(ValueError, match=r'^landmarks has .*flip=False\.$'):
    source.check(flip=True)
  source.check(flip=False)
