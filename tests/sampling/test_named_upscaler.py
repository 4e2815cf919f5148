"""Methods without training, by name in the place of a work directory."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from support import smoke_runs

from cdm.config import loader
from cdm.data.files import json_file
from cdm.ops.keys import seed_pairs
from cdm.sampling import named_upscaler, shrunk_images

CONFIG = smoke_runs.CONFIGS / 'smoke_sr.py'
SIZE, LOW = 16, 8


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'cdm' / shrunk_images.CACHE


@pytest.fixture
def folder(tmp_path):
  """-> a folder of 21 pictures, of which 3 is too small and 9 no picture."""
  rng = np.random.default_rng(0)
  home = tmp_path / 'pictures'
  home.mkdir()
  for n in range(21):
    side = SIZE - 1 if n == 3 else SIZE
    image = rng.integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(image).save(home / f'{n:02d}.png')
  (home / '09.png').write_bytes(b'no picture')
  return home


def overrides(folder):
  return [
    ('train_data.kind', 'folder'),
    ('train_data.path', str(folder)),
    ('train_data.class_names', '()'),
    ('pipeline.min_side', 'None'),
    ('pipeline.max_skip_fraction', '0.05'),
  ]


def opened(method, **given):
  name = pathlib.Path(f'{method}:{CONFIG}')
  return named_upscaler.opened(name, level=0.0, **given)[0]


def queries(count=5, seed=1):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, LOW, LOW, 3), np.uint8)


def upscaled(upscaler, low):
  return upscaler(low, keys=seed_pairs(0, np.arange(len(low))))


def test_nearest_by_its_name_repeats_pixels():
  low = queries()
  expected = low.repeat(2, axis=1).repeat(2, axis=2)
  np.testing.assert_array_equal(upscaled(opened('nearest'), low), expected)


def pixels(path):
  return np.asarray(Image.open(path))


def test_the_nearest_neighbour_is_that_of_a_search_in_whole_numbers(folder):
  upscaler = opened('nearest_neighbour', overrides=overrides(folder))
  low = queries()
  numbers = [n for n in range(21) if n not in (3, 9)]
  originals = np.stack([pixels(folder / f'{n:02d}.png') for n in numbers])
  small = upscaler.shrink(originals).astype(np.int64)
  distances = ((low[:, None].astype(np.int64) - small) ** 2).sum((2, 3, 4))
  best = distances.argmin(axis=1)
  np.testing.assert_array_equal(upscaled(upscaler, low), originals[best])
  found = upscaler.neighbours(low)
  assert [n.squared_distance for n in found] == distances.min(axis=1).tolist()
  assert [n.name for n in found] == [f'{numbers[i]:02d}.png' for i in best]


def test_what_was_super_resolved_is_not_searched_again(folder, monkeypatch):
  given = {'overrides': overrides(folder)}
  expected = opened('nearest_neighbour', **given).neighbours(queries())
  upscaler = opened('nearest_neighbour', **given)
  upscaled(upscaler, queries())
  monkeypatch.setattr(named_upscaler.nearest_originals, '_search', None)
  assert upscaler.neighbours(queries()) == expected


def test_blocks_of_any_size_find_the_same(folder, monkeypatch):
  given = dict(overrides=overrides(folder))
  whole = opened('nearest_neighbour', **given).neighbours(queries())
  module = named_upscaler.nearest_originals
  monkeypatch.setattr(module, 'MOST_IN_BLOCK', 1)  # on each of 8 devices
  parts = opened('nearest_neighbour', **given).neighbours(queries())
  assert parts == whole


def test_the_training_images_are_shrunk_once(folder, cache, monkeypatch):
  given = dict(overrides=overrides(folder))
  first = opened('nearest_neighbour', **given).neighbours(queries())
  files = sorted(cache.rglob('*.npy'))
  assert files

  def fails(self, number):
    raise AssertionError(number)

  with monkeypatch.context() as changed:
    changed.setattr(shrunk_images.ShrunkImages, '_read', fails)
    again = opened('nearest_neighbour', **given).neighbours(queries())
  assert again == first
  # A block that a full disk cut off is made again.
  files[0].write_bytes(files[0].read_bytes()[:200])
  assert opened('nearest_neighbour', **given).neighbours(queries()) == first


def test_other_training_images_are_shrunk_anew(folder):
  given = dict(overrides=overrides(folder))
  low = queries(1)
  before = opened('nearest_neighbour', **given).neighbours(low)[0]
  # The picture that is nearest is no longer there.
  (folder / before.name).unlink()
  after = opened('nearest_neighbour', **given).neighbours(low)[0]
  assert after.name != before.name
  assert after.squared_distance >= before.squared_distance


def test_too_many_unreadable_images_are_refused(folder):
  changed = dict(overrides(folder)) | {'pipeline.max_skip_fraction': '0.01'}
  with pytest.raises(
    ValueError, match=r'1 of 21 images cannot be read.*09\.png'
  ):
    opened('nearest_neighbour', overrides=list(changed.items()))


@pytest.mark.parametrize(
  ('name', 'given', 'sentence'),
  [
    (f'cubic:{CONFIG}', {}, "'cubic' is no method without training; known are"),
    (f'bicubic:{CONFIG}', {'at': 'best'}, '--at=best: bicubic has no checkp'),
    (f'bicubic:{CONFIG}', {'level': 0.1}, '--level=0.1: bicubic has no check'),
    (
      f'bicubic:{CONFIG.with_name("smoke.py")}', {},
      "'smoke' is a base model, which has no low-res images",
    ),
    (
      f'bicubic:{CONFIG.with_name("smoke_cascade.py")}', {},
      'is a cascade, whose stages',
    ),
  ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_a_sentence(name, given, sentence):
  with pytest.raises(ValueError, match=sentence):
    named_upscaler.opened(pathlib.Path(name), **{'level': 0.0, **given})


def test_a_work_directory_is_no_method(tmp_path):
  for name in ('runs/sr', 'gs://bucket/run', str(tmp_path), 'runs:2/sr'):
    assert named_upscaler.parse(name) is None


@pytest.mark.parametrize('method', named_upscaler.METHODS)
def test_the_manifest_says_which_method_made_the_images(method, tmp_path):
  out = tmp_path / 'out'
  words = ('--held_out=3', f'--out={out}')
  assert smoke_runs.cdm('upscale', f'--workdir={method}:{CONFIG}', *words) == 0
  manifest = json_file.read(out / 'upscaling.json', dict, remedy='')
  assert manifest['method'] == method and 'checkpoint' not in manifest
  assert manifest['experiment'] == 'smoke_sr'
  searched = method == 'nearest_neighbour'
  assert ('searched' in manifest) == searched
  listed = out / 'neighbours.json'
  assert listed.exists() == searched
  if searched:
    rows = json.loads(listed.read_text(encoding='utf-8'))
    assert [row['image'] for row in rows] == [f'{n:06d}.png' for n in range(3)]
    assert {*rows[0]} == {'image', 'index', 'name', 'squared_distance'}
    # The same command continues: it draws nothing, and tells them again.
    listed.unlink()
    assert (
      smoke_runs.cdm('upscale', f'--workdir={method}:{CONFIG}', *words) == 0
    )
    assert json.loads(listed.read_text(encoding='utf-8')) == rows


def test_picture_files_have_the_neighbours_of_their_tiles(tmp_path):
  picture = tmp_path / 'wide.png'
  Image.fromarray(queries(2).reshape(1, 16, 8, 3)[0][:8]).save(picture)
  wide = tmp_path / 'two.png'
  Image.fromarray(np.concatenate(queries(2), axis=1)).save(wide)
  out = tmp_path / 'out'
  words = (f'--workdir=nearest_neighbour:{CONFIG}', f'--out={out}')
  assert smoke_runs.cdm('upscale', picture, wide, *words) == 0
  rows = json.loads((out / 'neighbours.json').read_text(encoding='utf-8'))
  assert [row['image'] for row in rows] == ['wide.png'] + 3 * ['two.png']


def test_evaluate_scores_bicubic_as_its_own_baseline(tmp_path):
  row = tmp_path / 'row.json'
  code = smoke_runs.cdm(
    'evaluate',
    f'--samples=bicubic:{CONFIG}@eval',
    '--metrics=psnr,ssim,consistency',
    '--num=8',
    f'--out={row}',
  )
  assert code == 0
  found = json.loads(row.read_text(encoding='utf-8'))
  for name in ('psnr', 'ssim', 'consistency'):
    # The baseline rounds between the two passes, as Pillow does.
    assert found[name] == pytest.approx(found['bicubic'][name], rel=5e-3)
  assert found['samples_recipe']['stages'][0]['method'] == 'bicubic'
  assert found['samples_recipe']['weights'] == 'none'


def test_the_size_of_the_input_is_read_from_the_config():
  name = pathlib.Path(f'nearest:{CONFIG}')
  assert named_upscaler.lowres_size(name) == LOW
  changed = [('lowres.size', '4')]
  assert named_upscaler.lowres_size(name, changed) == 4
  assert loader.load(CONFIG).lowres.size == LOW
