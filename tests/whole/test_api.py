"""What Python draws and judges is what the commands draw and judge."""

import doctest
import functools
import inspect
import io
import math
import typing

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import linalg
from skimage import metrics as skimage_metrics
from support import canvas_stages, linear_features, smoke_runs

from cdm import api
from cdm.cli.enlarging_worker import cascade_tasks
from cdm.sampling import shipped_model
from cdm.sampling import upscaler as sampling_upscaler

CONFIG = smoke_runs.CONFIGS / 'smoke_cascade.py'


@pytest.fixture(autouse=True)
def one_device():
  """One program serves all tests of this file, and both ways to draw."""
  with smoke_runs.on(1):
    yield


@functools.cache
def stage():
  """-> the super-resolution stage of the smoke cascade."""
  return api.load(smoke_runs.trained() / 'sr')


@functools.cache
def doubling():
  """-> magnifies any picture twice, without a checkpoint."""
  made = canvas_stages.stage(size=16, margin=0)
  upscaler = sampling_upscaler.stage_upscaler(made, None, batch_size=4)
  return api.Model('doubling', 16, 2, None, (), {}, upscaler=upscaler)


def photo(height=9, width=13, seed=0):
  return canvas_stages.photo(height, width, seed)[0]


def public():
  return [getattr(api, name) for name in api.__all__]


def test_the_example_of_the_module_is_true():
  names = {'RUNS': smoke_runs.trained()}
  (test,) = doctest.DocTestFinder(recurse=False).find(api, globs=names)
  assert len(test.examples) > 10
  found = io.StringIO()
  runner = doctest.DocTestRunner()
  runner.run(test, out=found.write)
  assert not runner.failures, found.getvalue()


def test_there_are_at_most_six_functions_and_all_are_described():
  functions = [one for one in public() if inspect.isfunction(one)]
  assert len(functions) <= 6
  own = [
    name
    for name, one in vars(api).items()
    if inspect.isfunction(one) and one.__module__ == api.__name__
  ]
  hidden = {name for name in own if name[0] == '_'}
  assert {one.__name__ for one in functions} == {*own} - hidden
  for function in functions:
    parameters = inspect.signature(function).parameters
    assert set(typing.get_type_hints(function)) == {*parameters, 'return'}
    text = inspect.getdoc(function).split('Args:')[1].split('Return')[0]
    for name in parameters:
      assert f' {name}' in text, f'{function.__name__}: {name}'


def test_enlarged_pictures_are_the_files_of_the_command(tmp_path):
  """Colours, grey, 16 bits, transparency, and a damaged JPEG on its side."""
  image, folder = photo(8, 7), tmp_path / 'in'
  folder.mkdir()
  Image.fromarray(image).save(folder / 'a.png')
  Image.fromarray(image[..., 0]).save(folder / 'b.png')
  Image.fromarray(image[..., 0].astype(np.uint16) * 250).save(folder / 'c.png')
  hole = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
  hole[:4, :, 3] = 0
  Image.fromarray(hole).save(folder / 'd.png')
  exif = Image.Exif()
  exif[274] = 6
  turned = image.transpose(1, 0, 2)[::-1]  # so that it is upright again
  Image.fromarray(turned).save(folder / 'e.jpg', quality=60, exif=exif)
  words = ['upscale', f'--workdir={smoke_runs.trained() / "sr"}', '--seed=3']
  more = [folder, f'--out={tmp_path / "out"}', '--format=png', '--label=2']
  assert smoke_runs.cdm(*words, *more) == 0
  paths = sorted(folder.iterdir())
  given = [Image.open(path) for path in paths]
  for one in given:
    ImageOps.exif_transpose(one, in_place=True)
  found = api.upscale(stage(), given, seed=3, number=paths, label=2)
  for path, one in zip(paths, found, strict=True):
    with Image.open(tmp_path / 'out' / f'{path.stem}.png') as opened:
      assert one.mode == opened.mode
      np.testing.assert_array_equal(np.asarray(one), np.asarray(opened))
  one = folder / 'a.png'
  out = f'--out={tmp_path / "same.png"}'
  assert smoke_runs.cdm(*words, one, out, '--scale=1') == 0
  with Image.open(tmp_path / 'same.png') as opened:
    np.testing.assert_array_equal(
      api.restore(stage(), image, seed=3, number=one), np.asarray(opened)
    )


def test_without_a_folder_it_is_the_model_of_the_package(tmp_path, monkeypatch):
  monkeypatch.setattr(shipped_model, 'FOLDER', tmp_path)
  with pytest.raises(ValueError, match='Give workdir, the work directory of'):
    api.load()
  with pytest.raises(ValueError, match='give workdir=, the folder'):
    api.load(config='configs/smoke_cascade.py')
  words = ['export', f'--workdir={smoke_runs.trained() / "sr"}']
  assert smoke_runs.cdm(*words, f'--out={tmp_path / shipped_model.PHOTO}') == 0
  np.testing.assert_array_equal(
    api.upscale(api.load(), photo(), label=2, number=1),
    api.upscale(stage(), photo(), label=2, number=1),
  )
  # A base model in one file, with the names of its classes.
  words = ['export', f'--workdir={smoke_runs.trained() / "base"}']
  packed = tmp_path / 'base.safetensors'
  assert smoke_runs.cdm(*words, f'--out={packed}') == 0
  one, other = (
    api.load(path, steps=2) for path in (packed, smoke_runs.trained() / 'base')
  )
  assert one.class_names == other.class_names != ()
  np.testing.assert_array_equal(
    api.sample(one, 2, seed=1), api.sample(other, 2, seed=1)
  )


def test_a_result_is_of_the_kind_that_was_given():
  image = photo()
  of_bytes = api.upscale(doubling(), image, number=5)
  assert of_bytes.shape == (18, 26, 3) and of_bytes.dtype == np.uint8
  of_floats = api.upscale(doubling(), image / np.float32(255), number=5)
  assert of_floats.dtype == np.float32
  # The same picture, not rounded.
  np.testing.assert_allclose(of_floats * 255, of_bytes, atol=0.501)
  both = api.upscale(doubling(), np.stack([image, image]), number=[5, 6])
  np.testing.assert_array_equal(both[0], of_bytes)
  assert (both[1] != of_bytes).any()
  picture = api.upscale(doubling(), Image.fromarray(image), number=5)
  np.testing.assert_array_equal(np.asarray(picture), of_bytes)


def test_the_noise_depends_on_the_seed_and_on_the_pixels_or_a_number():
  image = photo()
  first = api.upscale(doubling(), image)
  three = api.upscale(doubling(), image, num_samples=3)
  assert isinstance(three, list) and len(three) == 3
  np.testing.assert_array_equal(three[0], first)
  np.testing.assert_array_equal(
    three[2], api.upscale(doubling(), image, seed=2)
  )
  assert (three[1] != first).any()
  # A picture beside it changes nothing.
  listed = api.upscale(doubling(), [photo(seed=1), image])
  np.testing.assert_array_equal(listed[1], first)


def test_sizes_are_those_that_are_asked_for():
  image = photo(8, 12)
  for scale, size in (
    (1.5, (12, 18)),
    (api.Size(width=30), (20, 30)),
    (api.Size(megapixels=0.000384), (16, 24)),
  ):
    assert api.upscale(doubling(), image, scale=scale).shape[:2] == size
  assert api.restore(doubling(), image).shape == image.shape


def test_samples_are_those_of_the_command(tmp_path):
  runs = smoke_runs.trained()
  words = ['sample', f'--config={CONFIG}', f'--workdir={runs}', '--num=5']
  more = ['--seed=2', '--labels=1,3', '--steps=base:2,sr:2', '--out']
  assert smoke_runs.cdm(*words, *more, tmp_path / 'out') == 0
  model = api.load(runs, config=CONFIG, steps={'base': 2, 'sr': 2})
  assert model.num_classes == 4 and model.image_size == 16
  found = api.sample(model, 5, labels=[1, '3'], seed=2)
  with np.load(tmp_path / 'out' / 'samples.npz') as archive:
    np.testing.assert_array_equal(found, archive['arr_0'])


def test_metrics_of_pairs_are_those_of_scikit_image():
  samples = np.stack([photo(40, 48, seed=i) for i in range(3)])
  originals = np.stack([photo(40, 48, seed=i + 3) for i in range(3)])
  found = api.evaluate(samples, originals)
  psnr, ssim = (
    np.mean([f(a, b) for a, b in zip(originals, samples, strict=True)])
    for f in (
      skimage_metrics.peak_signal_noise_ratio,
      functools.partial(skimage_metrics.structural_similarity, channel_axis=-1),
    )
  )
  assert found['psnr'] == pytest.approx(psnr)
  assert found['ssim'] == pytest.approx(ssim)
  assert 'consistency' not in found and 'ms_ssim' not in found  # too small
  pictures = [Image.fromarray(x) for x in samples]
  floats = originals / np.float32(255)
  assert api.evaluate(pictures, floats, metrics='psnr') == {
    'psnr': found['psnr']
  }
  assert api.evaluate(samples, samples, metrics=['psnr']) == {'psnr': math.inf}
  low = samples[:, ::2, ::2]
  with_low = api.evaluate(samples, originals, lowres=low)
  assert with_low['psnr'] == found['psnr']
  assert {'consistency', 'bicubic_psnr', 'bicubic_ssim'} <= set(with_low)


def test_metrics_of_sets_are_those_of_their_features(tmp_path, monkeypatch):
  place = linear_features.prepared(tmp_path, monkeypatch)
  sets = {}
  for name in 'ab':
    with np.load(place / f'{name}.npz') as archive:
      sets[name] = archive['arr_0']
  weights = {'features': place / 'w.pth'}
  given = dict(few=True, weights=weights)
  found = api.evaluate(sets['a'], sets['b'], metrics=['fid', 'is'], **given)
  assert set(found) == {'fid', 'is', 'is_std'}
  a, b = (linear_features.features(n, place).pool.astype(float) for n in 'ab')
  root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
  fid = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
    np.cov(a.T) + np.cov(b.T) - 2 * root
  )
  assert found['fid'] == pytest.approx(fid, rel=1e-5)
  row = linear_features.judge(place)
  assert found == {name: row[name] for name in found}
  with pytest.raises(ValueError, match='or add few to have the number') as e:
    api.evaluate(sets['a'], sets['b'], metrics='fid', weights=weights)
  assert '--' not in str(e.value)


@pytest.mark.parametrize(
  'call, text',
  [
    (lambda: api.upscale(doubling(), photo(), scale=17), r'^scale=17 makes'),
    (lambda: api.upscale(doubling(), photo(), scale=0), r'^scale=0 is not'),
    (
      lambda: api.upscale(doubling(), photo(), scale=api.Size(2, 3)),
      r'^scale=2 and width=3 both set',
    ),
    (lambda: api.upscale(doubling(), photo(), seed=-1), 'seed=-1: seeds are'),
    (
      lambda: api.upscale(doubling(), photo(), seed=2**32 - 1, num_samples=2),
      'that of the last sample 4294967296: seeds are',
    ),
    (lambda: api.upscale(doubling(), photo(), num_samples=0), 'at least 1'),
    (lambda: api.upscale(doubling(), photo(), number=-1), 'give 0 to 2'),
    (lambda: api.upscale(doubling(), photo(), number=[1, 2]), '2 values for 1'),
    (lambda: api.upscale(doubling(), photo(), label=1), 'takes no label'),
    (
      lambda: api.upscale(
        doubling(), photo(), correction=api.Correction(back_projection=11)
      ),
      'back_projection=11: give 0 to 10',
    ),
    (
      lambda: api.upscale(
        doubling(), photo(), correction=api.Correction(damage='none')
      ),
      "damage='none': this stage is not told what degraded a picture",
    ),
    (
      lambda: api.upscale(
        doubling(), photo(), correction=api.Correction(detail=0.5)
      ),
      'detail=0.5: this stage draws no details over a mean',
    ),
    (lambda: api.sample(doubling(), 4), 'super-resolution stage, which needs'),
    (lambda: api.evaluate(photo(), photo(), metrics='mse'), "no metric 'mse'"),
    (lambda: api.evaluate(photo(), metrics='psnr'), 'psnr needs references='),
    (
      lambda: api.evaluate(photo(), photo(), metrics='consistency'),
      'consistency needs lowres=',
    ),
    (
      lambda: api.evaluate(photo(), photo(), metrics='ms_ssim'),
      'ms_ssim: its windows need images of',
    ),
    (lambda: api.evaluate(photo(8, 8), photo()), 'A sample has 8x8 pixels'),
    (lambda: api.load(smoke_runs.trained()), 'base, sr; give config='),
    (
      lambda: api.load(
        smoke_runs.trained(), config=smoke_runs.CONFIGS / 'smoke.py'
      ),
      'leave config out',
    ),
    (lambda: api.load(smoke_runs.trained() / 'sr', at='1'), "'1' of .* give a"),
    (
      lambda: api.load(smoke_runs.trained() / 'sr', steps=0),
      '^steps=0',
    ),
  ],
)
def test_a_wrong_argument_is_named(call, text):
  with pytest.raises(ValueError, match=text):
    call()


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='or point workdir at the'):
    api.load(tmp_path)


def test_the_page_draws_the_same(tmp_path):
  """Of every stage, by class, seed and weight of guidance."""
  given = dict(samples=f'{CONFIG}@{smoke_runs.trained()}', at=None)
  tasks = cascade_tasks.opened({**given, 'sampler': None, 'steps': None})
  drawn = {}

  class Report:
    advance = staticmethod(lambda count, total: None)
    found = staticmethod(drawn.update)

  def page(folder, **change):
    request = dict(task='draw', count=4, seed=3, label=None, guidance={})
    (tmp_path / folder).mkdir()
    given = dict(folder=tmp_path / folder, **{**request, **change})
    tasks.run(given, Report)
    shown = [
      [np.asarray(Image.open(tmp_path / folder / name)) for name in names]
      for names in drawn['images']
    ]
    assert {image.shape[0] for image in shown[0]} == {
      stage['size'] for stage in tasks.about['stages']
    }
    return np.stack([names[-1] for names in shown])

  model = api.load(smoke_runs.trained(), config=CONFIG)
  np.testing.assert_array_equal(
    page('all'), api.sample(model, 4, labels=[0, 1, 2, 3], seed=3)
  )
  plain = page('one', label=2)
  np.testing.assert_array_equal(plain, api.sample(model, 4, labels=[2], seed=3))
  assert tasks.about['guided'] == {'base': 0.0, 'sr': 0.0}
  guided = api.load(
    smoke_runs.trained(), config=CONFIG, guidance={'base': 3.0, 'sr': 0.5}
  )
  found = page('guided', label=2, guidance={'base': 3.0, 'sr': 0.5})
  np.testing.assert_array_equal(
    found, api.sample(guided, 4, labels=[2], seed=3)
  )
  assert (found != plain).any()
