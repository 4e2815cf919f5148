"""The photo model as ONNX, run by onnxruntime where it is installed."""

import pathlib

import jax
import numpy as np
import pytest
from support import random_params, smoke_runs

from cdm.config import loader
from cdm.config import stage as stages
from cdm.ops import pixels, resize
from cdm.sampling import exported_onnx, exported_stage

ROOT = pathlib.Path(__file__).resolve().parents[2]
PHOTO = ROOT / 'benchmarks' / 'weights' / 'photo_faithful.safetensors'
NEEDS = 'of the extra cdm[onnx]'


def run(model, lowres, damage):
  """-> [image, values], of onnxruntime."""
  runtime = pytest.importorskip('onnxruntime', reason=NEEDS)
  session = runtime.InferenceSession(model, providers=['CPUExecutionProvider'])
  return session.run(None, {'lowres': lowres, 'damage': damage})


def ours(net, params, lowres, damage):
  """-> values of cdm's own network, float32 in [-1, 1]."""
  size = tuple(4 * side for side in lowres.shape[1:3])
  levels = np.concatenate([np.full((len(damage), 1), 2.0), damage], axis=1)
  enlarged = resize.resize(pixels.to_float(lowres), size, method='bicubic')
  return jax.jit(
    lambda p, x: net.apply({'params': p}, x, levels, train=False).image.clip(
      -1, 1
    )
  )(params, enlarged)


def test_the_shipped_photo_model_is_that_of_onnxruntime(tmp_path, capfd):
  """A picture that is no square, at its border too, clean and damaged."""
  pytest.importorskip('onnx', reason=NEEDS)
  out = tmp_path / 'photo.onnx'
  words = f'export --to=onnx --workdir={PHOTO} --out={out}'.split()
  assert smoke_runs.cdm(*words) == 0
  assert 'opset 17, 2.' in capfd.readouterr().out
  lowres = np.random.default_rng(2).integers(0, 256, (2, 9, 13, 3), np.uint8)
  damage = np.array([[0, 0, 0], [0.8, 0.4, 0.3]], np.float32)
  image, values = run(out, lowres, damage)
  read = exported_stage.read_stage(PHOTO)
  expected = ours(stages.stage(read.config).net, read.params, lowres, damage)
  assert values.shape == (2, 36, 52, 3) and image.dtype == np.uint8
  np.testing.assert_allclose(values, expected, atol=1e-5)
  np.testing.assert_array_equal(image, pixels.to_uint8(values))
  assert smoke_runs.cdm(*words, '--overwrite', '--dtype=float16') == 0
  assert ', 1.2 MB' in capfd.readouterr().out
  half, _ = run(out, lowres, damage)  # The file in the package is of float16.
  np.testing.assert_array_equal(half, image)


@pytest.mark.parametrize('quiet_level', ['0.0', '40.0'])
def test_every_parameter_is_read_where_it_belongs(quiet_level):
  """Those of the shipped model are small; these are not, nor is one zero."""
  pytest.importorskip('onnx', reason=NEEDS)
  c = loader.load(
    smoke_runs.CONFIGS / 'photo_faithful.py',
    [
      ('model.features', '6'),
      ('model.num_blocks', '1'),
      ('model.quiet_level', quiet_level),
    ],
  )
  built = stages.stage(c)
  shapes = jax.eval_shape(built.method.init, jax.random.key(0))
  zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
  params = random_params.moved(zeros, by=0.15)
  read = exported_stage.Read(c, '', params, 1)
  model = exported_onnx.build_model(read).SerializeToString()
  lowres = np.random.default_rng(3).integers(96, 160, (1, 5, 4, 3), np.uint8)
  damage = np.array([[0.5, 0.3, 0.9]], np.float32)
  _, values = run(model, lowres, damage)
  expected = ours(built.net, params, lowres, damage)
  assert 0.1 < np.abs(expected).mean() < 0.8
  np.testing.assert_allclose(values, expected, atol=1e-5)


def test_another_network_is_refused_by_its_name(tmp_path, monkeypatch):
  c = loader.load(smoke_runs.CONFIGS / 'smoke.py', [])
  monkeypatch.setattr(exported_onnx, '_import_onnx', lambda: None)
  with pytest.raises(ValueError, match="'smoke' has method.kind='diffusion'"):
    exported_onnx.build_model(exported_stage.Read(c, '', {}, 0))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch, capfd):
  monkeypatch.setitem(__import__('sys').modules, 'onnx', None)
  words = f'export --to=onnx --workdir={PHOTO} --out=no.onnx'.split()
  assert smoke_runs.cdm(*words) == 2
  assert 'needs the package onnx' in capfd.readouterr().err
