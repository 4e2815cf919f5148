import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from support.oracles import assert_matches, data, oracle

from cdm.evaluation.metrics import distortion
from cdm.evaluation.metrics.distortion import luma
from cdm.ops import resize
from cdm.ops.pair_scores import mse, psnr, ssim

STORED = {
  'mse_rgb': mse,
  'psnr_rgb': psnr,
  'psnr_y': lambda a, b: psnr(luma(a), luma(b)),
  'ssim_rgb_uniform7': ssim,
  'ssim_rgb_gauss': lambda a, b: ssim(a, b, window='gaussian11'),
  'ssim_y_uniform7': lambda a, b: ssim(luma(a), luma(b)),
  'ssim_y_gauss': lambda a, b: ssim(luma(a), luma(b), window='gaussian11'),
  # TensorFlow's own, to its float32.
  'psnr_tf': psnr,
  'ssim_tf': lambda a, b: ssim(a, b, window='gaussian11'),
  'ssim_pytorch_msssim': lambda a, b: ssim(a, b, window='gaussian11'),
}


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize('metric', STORED)
def test_scores_of_photographs_equal_the_peers(metric):
  description, stored = oracle('image_metrics')
  keys = [key for key in description['keys'] if key.endswith('/' + metric)]
  assert len(keys) == 16  # four photographs, degraded in four ways
  for key in keys:
    name, kind, _ = key.split('/')
    a, b = stored[f'img/{name}/{kind}'], stored[f'img/{name}/ref']
    tol = description['keys'][key]['tol']
    assert_matches(STORED[metric](a, b), stored[key], tol, key)


def test_ms_ssim_of_photographs_equals_the_peer():
  description, stored = oracle('image_metrics')
  keys = [
    k for k in description['keys'] if k.endswith('/msssim_pytorch_msssim')
  ]
  assert len(keys) == 12  # three photographs are large enough
  for key in keys:
    name, kind, _ = key.split('/')
    a, b = stored[f'img/{name}/{kind}'], stored[f'img/{name}/ref']
    tol = description['keys'][key]['tol']
    assert_matches(distortion.ms_ssim(a, b), stored[key], tol, key)


def test_ms_ssim_is_one_for_equal_images_and_takes_batches():
  a = noise(2, 161, 170, 3)
  assert distortion.ms_ssim(a, a) == pytest.approx([1.0, 1.0])
  mixed = distortion.ms_ssim(a, a[::-1])
  assert mixed[0] == pytest.approx(mixed[1]) and mixed[0] < 0.5


@pytest.mark.parametrize('scale', [2, 4])
def test_bicubic_on_set5_scores_what_was_published(scale):
  """PSNR and SSIM of MATLAB's bicubic, rounded luma, border shaved.

  The table of Huang et al. 2015 (SelfExSR), per image.
  """
  with zipfile.ZipFile(data('sr_core.zip')) as archive:

    def read(name):
      picture = Image.open(io.BytesIO(archive.read(f'sr_bench/{name}')))
      return np.asarray(picture.convert('RGB'))

    table = next(n for n in archive.namelist() if n.endswith('tables.json'))
    tables = json.loads(archive.read(table))['tables'][f'Set5_SRF_{scale}']
    for i in range(3):
      stem = f'Set5/x{scale}/img_{i + 1:03d}_SRF_{scale}'
      original, low = read(f'{stem}_HR.webp'), read(f'{stem}_LR.webp')
      grown = resize.resize_uint8(low, original.shape[:2])
      inside = slice(scale, -scale)
      a, b = (
        np.round(luma(x))[inside, inside] for x in (np.asarray(grown), original)
      )
      assert abs(psnr(a, b) - tables['PSNR'][i][0]) < 0.005
      error = ssim(a, b, window='gaussian11') - tables['SSIM'][i][0]
      assert abs(error) < 0.002


def test_psnr_of_one_grey_level_is_48_decibel():
  a = np.full((2, 8, 8, 3), 100, np.uint8)
  np.testing.assert_allclose(psnr(a, a + 1), 20 * np.log10(255.0))
  np.testing.assert_array_equal(mse(a, a + 1), [1.0, 1.0])


def test_bytes_do_not_wrap_around():
  a, b = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
  assert mse(a, b) == mse(b, a) == 255.0**2
  assert psnr(a, b) == 0.0


def test_an_equal_pair_has_infinite_psnr_and_ssim_one():
  a = noise(2, 16, 16, 3)
  b = a.copy()
  b[1] = noise(16, 16, 3, seed=1)
  assert np.isinf(psnr(a, b)[0]) and np.isfinite(psnr(a, b)[1])
  np.testing.assert_allclose(ssim(a, b)[0], 1.0)
  assert abs(ssim(a, b)[1]) < 0.1  # unrelated noise has no structure in common


def test_each_image_of_a_batch_has_its_own_score():
  a, b = noise(3, 12, 14, 3), noise(3, 12, 14, 3, seed=1)
  for metric in (mse, psnr, ssim):
    alone = [metric(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_array_equal(metric(a, b), alone)


def test_luma_spans_16_to_235():
  picture = np.array([[[0, 0, 0], [255, 255, 255], [0, 255, 0]]], np.uint8)
  np.testing.assert_allclose(
    luma(picture)[0, :, 0], [16.0, 235.0, 16 + 128.553]
  )


@pytest.mark.parametrize(
  'call, message',
  [
    (
      lambda: psnr(noise(8, 8, 3), noise(8, 9, 3)),
      r'one shape.*\(8, 8, 3\) and \(8, 9, 3\)',
    ),
    (
      lambda: psnr(np.full((8, 8, 3), 0.5), np.full((8, 8, 3), 0.25)),
      r'grey levels 0..255.*float64 in 0.5',
    ),
    (
      lambda: ssim(noise(6, 9, 3), noise(6, 9, 3)),
      r"'uniform7' needs images of at least 7x7.*9x6",
    ),
    (
      lambda: ssim(noise(9, 9, 3), noise(9, 9, 3), window='gaussian11'),
      'at least 11x11',
    ),
    (
      lambda: distortion.ms_ssim(noise(160, 200, 3), noise(160, 200, 3)),
      'at least 161x161 .* 200x160',
    ),
    (
      lambda: ssim(noise(9, 9, 3), noise(9, 9, 3), window='box'),
      "window is 'box'; known are",
    ),
  ],
)
def test_what_cannot_be_compared_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_every_score_has_its_convention():
  scores = {'psnr', 'psnr_y', 'ssim', 'ssim_gaussian', 'ms_ssim'}
  assert scores == set(distortion.CONVENTIONS)
