"""Arrays of other channels than three, from the data to what is drawn."""

import numpy as np
import pytest
from support import smoke_runs

from cdm.checkpointing import reader
from cdm.config import loader, stage
from cdm.ops import value_scores
from cdm.reporting import metric_writer
from cdm.training import program

CHANNELS = 4


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """-> folder of three float32 arrays [70, 50, 4], some values missing."""
  folder = tmp_path_factory.mktemp('arrays')
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:70, :50]
  for i in range(3):
    planes = [
      20 + 8 * np.sin(y / 4 + c + i) * np.cos(x / 5) + rng.random(y.shape)
      for c in range(CHANNELS)
    ]
    array = np.stack(planes, -1).astype(np.float32)
    array[5:9, 4:9] = np.nan
    np.save(folder / f'{i}.npy', array)
  return folder


def keys(folder, channels=CHANNELS):
  """-> {key of a config: value} that trains on arrays."""
  of_data = {'kind': 'arrays', 'path': folder, 'range': (0.0, 40.0), 'size': 16}
  given = {
    f'{section}.{key}': value
    for section in ('train_data', 'eval_data')
    for key, value in of_data.items()
  }
  return given | {
    'pipeline.channels': channels,
    'model.num_classes': None,
    'model.null_class': False,
  }


def train(folder, workdir, **more):
  given = {k.replace('.', '__'): v for k, v in keys(folder).items()}
  smoke_runs.train('smoke_regression', workdir, **given, **more)


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run') / 'sr'
  train(data, workdir, eval__every_steps=4)
  return workdir


def test_training_scores_values_that_are_not_rounded(trained):
  rows = metric_writer.read_scalars(trained / 'scalars.jsonl')
  found = {k: row[k] for row in rows for k in row if 'held_out' in k}
  for name in ('loss', 'psnr', 'psnr_bicubic', 'ssim', 'consistency'):
    assert np.isfinite(found[f'held_out/{name}'])
  # The noise is of 1 in a range of 40, and the waves are smooth.
  assert 25 < found['held_out/psnr_bicubic'] < 45
  assert found['held_out/psnr'] != found['held_out/psnr_bicubic']


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
  trained, data, tmp_path
):
  train(data, tmp_path, train__num_steps=2, train__num_samples=0)
  train(data, tmp_path, train__num_samples=0)
  assert reader.complete_steps(tmp_path)[-1] == 4
  whole, parts = (smoke_runs.state(path, 4) for path in (trained, tmp_path))
  assert whole.keys() == parts.keys()
  for name, value in whole.items():
    np.testing.assert_array_equal(value, parts[name], err_msg=name)


def test_an_array_is_enlarged_in_the_units_of_the_training(
  trained, data, tmp_path, capsys
):
  array = np.load(data / '1.npy')[:30, :25]
  np.save(tmp_path / 'a.npy', array)
  words = ('upscale', f'--workdir={trained}', tmp_path / 'a.npy')
  assert smoke_runs.cdm(*words) == 0
  told = capsys.readouterr().out
  assert '4 channels of 25x30 -> 50x60 pixels, float32' in told
  assert 'values 0 to 40 (of the training data)' in told
  found = np.load(tmp_path / 'a_x2.npy')
  np.testing.assert_array_equal(
    np.isnan(found), np.isnan(array).repeat(2, 0).repeat(2, 1)
  )
  # Back-projection: the result shrinks to what was given.
  small = found.reshape(30, 2, 25, 2, CHANNELS).mean(axis=(1, 3))
  there = np.isfinite(small)
  assert np.abs(small - array)[there].mean() < 1.0
  assert smoke_runs.cdm(*words, '--quality=90') == 2
  assert 'arrays keep their kind' in capsys.readouterr().err
  (tmp_path / 'b.png').write_bytes(smoke_png())
  assert (
    smoke_runs.cdm('upscale', f'--workdir={trained}', tmp_path / 'b.png') == 2
  )
  assert 'the stage draws 4; give arrays of' in capsys.readouterr().err
  out = tmp_path / 'out'
  held_out = ('--held_out=2', f'--out={out}')
  assert smoke_runs.cdm('upscale', f'--workdir={trained}', *held_out) == 2
  assert 'RGB images of 8 bits are needed' in capsys.readouterr().err


def smoke_png():
  import io

  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file, 'PNG')
  return file.getvalue()


@pytest.mark.parametrize('channels', [1, 4])
def test_a_diffusion_model_draws_and_trains_on_as_many(data, channels):
  c = config('smoke_sr', data, channels)
  assembled = program.assemble(c)
  image = assembled.batch['image']
  assert image.shape[-1] == channels and image.dtype == np.float32
  built = assembled.built
  assert built.channels == channels and built.values == (0.0, 40.0)
  program.trace_loss_and_sampler(c, built, assembled.state.params)
  params, _ = built.trace()
  assert params['conv_out']['kernel'].shape[-1] == channels * 4  # 2x2 patches


def config(name, data, channels=CHANNELS, **more):
  given = smoke_runs.SMALL | keys(data, channels) | more
  given['method.label_dropout'] = 0.0
  given = {k: v for k, v in given.items() if k != 'eval.every_steps'}
  words = [(k, str(v)) for k, v in given.items()]
  return loader.load(smoke_runs.CONFIGS / f'{name}.py', words)


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('smoke_raisr', {}, "method.kind='raisr' works on RGB images"),
    ('smoke_sr', {'eval.fid_every_steps': 2}, 'FID compares RGB images of 8'),
    ('smoke_sr', {'pipeline.channels': 0}, 'channels is 0; it must be from 1'),
  ],
)
def test_what_needs_rgb_images_refuses_others(data, name, changes, message):
  if name == 'smoke_raisr':
    c = loader.load(
      smoke_runs.CONFIGS / 'smoke_raisr.py', [('pipeline.channels', '4')]
    )
    with pytest.raises(ValueError, match=message):
      stage.stage(c)
    return
  with pytest.raises(ValueError, match=message):
    program.assemble(config(name, data, **changes))


def test_scores_of_values_are_those_of_scikit_image():
  from skimage import metrics

  rng = np.random.default_rng(0)
  a = rng.uniform(-1, 1, (2, 16, 16, 5)).astype(np.float32)
  b = np.clip(a + 0.01 * rng.standard_normal(a.shape), -1, 1)
  b = b.astype(np.float32)
  low = a.reshape(2, 8, 2, 8, 2, 5).mean(axis=(2, 4))
  found = value_scores.of_pairs(b, a, low, method='area')
  for i in range(2):
    x, y = ((value[i].astype(float) + 1) / 2 for value in (a, b))
    psnr = metrics.peak_signal_noise_ratio(x, y, data_range=1)
    ssim = metrics.structural_similarity(x, y, channel_axis=-1, data_range=1)
    np.testing.assert_allclose(found['psnr'][i], psnr, rtol=1e-9)
    np.testing.assert_allclose(found['ssim'][i], ssim, rtol=1e-9)
  small = b.reshape(2, 8, 2, 8, 2, 5).mean(axis=(2, 4))
  expected = np.mean(((small - low) / 2.0) ** 2, axis=(1, 2, 3))
  np.testing.assert_allclose(found['consistency'], expected, rtol=1e-3)
