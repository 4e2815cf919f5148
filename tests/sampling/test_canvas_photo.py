"""The photo model on a picture of any size is its network on the whole."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from PIL import Image
from support import random_params, smoke_runs

from cdm.config import loader, stage
from cdm.data import low_res_inputs
from cdm.data.low_res_inputs import Degradation
from cdm.data.photographs import visible_damage
from cdm.ops import pixels, resize
from cdm.sampling import canvas_plan, cascade, enlarged_inputs, picture_rows
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_files import write_enlarged_files
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlarged_size import Asked, choose
from cdm.sampling.enlargement import Drawn, Enlargement
from cdm.sampling.upscaler import stage_upscaler

CONFIG = smoke_runs.CONFIGS / 'photo_faithful.py'
NOISY = Degradation(noise=6.0, quality=50)
PICTURE = np.random.default_rng(0).integers(0, 256, (1, 22, 31, 3), np.uint8)


@pytest.fixture(scope='module')
def built():
  overrides = [
    ('model.features', '4'), ('model.num_blocks', '1'),
    ('model.patch_size', '2'), ('pipeline.image_size', '32'),
    ('lowres.size', '8'),
  ]  # fmt: skip
  return stage.stage(loader.load(CONFIG, overrides))


@pytest.fixture(scope='module')
def params(built):
  return random_params.moved(built.method.init(jax.random.key(0)))


@pytest.fixture(scope='module')
def upscaler(built, params):
  made = cascade.Stage.of(built, params, None, name='photo')
  upscaler = CanvasUpscaler.of(made, batch_size=4)
  cut = canvas_plan.any_factor(made.canvas.any_factor, 40)
  assert cut.size == 40 and cut.reach == 10 and cut.overlap == 20
  return dataclasses.replace(upscaler, cut=cut)


def enlarged(upscaler, asked, damage=(low_res_inputs.CLEAN,)):
  """-> (picture [H, W, 3], its Enlargement)."""
  size = choose(PICTURE.shape[1:3], 4, asked, any_factor=True)
  made = Enlargement.of(upscaler, size)
  rows = picture_rows.WholePictures(PICTURE)
  bands = made.bands(rows, Drawn(back_projections=0, damage=damage))
  return np.concatenate(list(bands), axis=1)[0], made


def whole(built, params, x, size, damage=low_res_inputs.CLEAN):
  """-> [H, W, 3], the network on the whole enlarged picture x [1, h, w, 3]."""
  factor = np.sqrt(np.prod(size) / np.prod(x.shape[1:3]))
  up = resize.resize(x, size, method='bicubic')
  levels = low_res_inputs.levels(factor, damage)[None]
  odd = [(0, side % 2) for side in size]
  even = np.pad(up, [(0, 0), *odd, (0, 0)], 'symmetric')
  y = built.net.apply({'params': params}, even, levels, train=False).image[0]
  y = y[: size[0], : size[1]]
  assert np.abs(y - up[0]).max() > 0.05
  return np.clip(y, -1, 1)


# At the end of an axis windows see its mirror image, and the network zeros.
INNER = (slice(8, -12), slice(8, -12))


@pytest.mark.parametrize(
  'asked, size',
  [(Asked(), (88, 124)), (Asked(scale=2.5), (55, 78)), (Asked(scale=1), None)],
)
def test_a_picture_in_windows_is_that_of_the_network_on_the_whole(
  built, params, upscaler, asked, size
):
  """By any factor, in one pass and without a resize after it."""
  size = size or PICTURE.shape[1:3]
  found, made = enlarged(upscaler, asked)
  assert made.is_exact and made.size.passes == (size,)
  assert found.shape == (*size, 3)
  expected = whole(built, params, pixels.to_float(PICTURE), size)
  np.testing.assert_allclose(found[INNER], expected[INNER], atol=2e-5)


def test_the_network_is_told_what_degraded_a_picture(built, params, upscaler):
  found, _ = enlarged(upscaler, Asked(scale=2), [NOISY])
  x = pixels.to_float(PICTURE)
  told = whole(built, params, x, (44, 62), NOISY)
  clean = whole(built, params, x, (44, 62))
  assert np.abs(told - clean).max() > 0.05
  np.testing.assert_allclose(found[INNER], told[INNER], atol=2e-5)


def test_a_chain_takes_what_came_out_of_the_pass_before_for_clean(
  built, params, upscaler
):
  found, made = enlarged(upscaler, Asked(scale=5), [NOISY])
  assert made.size.passes == ((28, 39), (110, 155))
  first, _ = enlarged(upscaler, Asked(height=28), [NOISY])
  expected = whole(built, params, np.clip(first, -1, 1)[None], (110, 155))
  inner = (slice(8, -12), slice(8, -8))
  np.testing.assert_allclose(found[inner], expected[inner], atol=2e-5)


def test_windows_suit_the_pictures_of_a_run(upscaler):
  assert upscaler.fitted([(200, 256)]).cut.size == 256
  assert upscaler.fitted([(200, 256), (4000, 3000)]).cut.size == 1024
  assert upscaler.fitted([]).cut.size == 40


def test_files_are_restored_for_the_damage_that_they_show(
  built, params, upscaler, tmp_path, caplog
):
  """At their own size too; the pixels of a clean file decide more than once."""
  y, x = np.mgrid[:80, :90]
  smooth = np.dstack([x + y, 2 * x, 128 + 0 * x]).astype(float)
  noisy = smooth + np.random.default_rng(0).normal(0, 4, smooth.shape)
  for name, image in {'clean': smooth, 'noisy': noisy}.items():
    image = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    image.save(tmp_path / f'{name}.png')
    image.save(tmp_path / f'{name}.jpg', quality=60)
  made = cascade.Stage.of(built, params, None, name='photo')
  whole_upscaler = stage_upscaler(made, None, batch_size=4)
  canvas = dataclasses.replace(whole_upscaler.canvas, cut=upscaler.cut)
  whole_upscaler = dataclasses.replace(whole_upscaler, canvas=canvas)

  def restored(name, out, **settings):
    inputs = enlarged_inputs.check([tmp_path / name], tmp_path / out, scale=1)
    given = Settings(asked=Asked(scale=1), **settings)
    write_enlarged_files(whole_upscaler, inputs, given)
    return np.asarray(Image.open(tmp_path / out / name)).astype(float)

  found = restored('noisy.png', 'a')
  told = re.search(r'noise of ([\d.]+) grey levels', caplog.text)
  assert float(told[1]) == pytest.approx(4, abs=0.5)
  given = Degradation(noise=visible_damage.estimate(np.asarray(
    Image.open(tmp_path / 'noisy.png'))).noise)  # fmt: skip
  np.testing.assert_array_equal(found, restored('noisy.png', 'b', damage=given))
  clean = restored('noisy.png', 'c', damage=low_res_inputs.CLEAN)
  assert np.abs(found - clean).max() > 2
  restored('clean.png', 'd')
  assert 'clean.png: restored' not in caplog.text
  restored('clean.jpg', 'e')
  assert re.search(r'clean.jpg: restored .*JPEG quality 60; ', caplog.text)
