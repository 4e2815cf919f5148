"""RAISR through the front door: fitted, continued, and used on pictures."""

import functools
import pathlib
import tempfile

import jax
import numpy as np
from PIL import Image
from support import smoke_runs, tiny_run

from cdm.config import loader, placement, stage
from cdm.ops import pixels
from cdm.sampling import restore
from cdm.sampling.restored_parameters import RestoredParameters

CONFIG = smoke_runs.CONFIGS / 'smoke_raisr.py'
# The work directories of all tests, which are removed with it.
HOME = tempfile.TemporaryDirectory(prefix='cdm-tests-raisr-')


@functools.cache
def fitted(devices=1, stops=(8,)):
  """-> the work directory of a run that was stopped at some steps."""
  name = f'{devices}-{"-".join(map(str, stops))}'
  workdir = pathlib.Path(HOME.name) / name
  for steps in stops:
    with smoke_runs.on(devices):
      code = smoke_runs.cdm(
        'train',
        f'--config={CONFIG}',
        f'--workdir={workdir}',
        f'--config.train.num_steps={steps}',
        '--config.train.sample_every_steps=0',
        '--config.eval.every_steps=0',
      )
    assert code == 0
  return workdir


def parameters(workdir):
  """-> the sums of the newest checkpoint, on one device."""
  c = loader.load(CONFIG)
  mesh = placement.mesh(c.mesh, jax.devices()[:1])
  method = stage.stage(c).method
  abstract = placement.placed_params(method, c.mesh, mesh)
  return RestoredParameters().restore(workdir, abstract, 8)[0]


def test_a_run_that_was_stopped_continues_bit_for_bit():
  tiny_run.assert_same(
    parameters(fitted(stops=(4, 8))), parameters(fitted(stops=(8,)))
  )


def test_the_mesh_changes_the_speed_and_not_the_filters():
  method = stage.stage(loader.load(CONFIG)).method
  one, eight = (
    method.prepare(parameters(fitted(devices)))['filters'] for devices in (1, 8)
  )
  assert np.abs(one).max() > 0.05
  np.testing.assert_allclose(eight, one, atol=1e-4)


def test_a_picture_of_any_size_is_that_of_the_filters_without_seams(tmp_path):
  """The filters do not depend on the size of a tile, which is set here."""
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (43, 61, 3), np.uint8)
  Image.fromarray(image).save(tmp_path / 'picture.png')
  out, workdir = tmp_path / 'out', fitted()
  sizes = [('lowres.size', '24'), ('pipeline.image_size', '48')]
  words = [f'--config.{key}={value}' for key, value in sizes]
  words += [f'--workdir={workdir}', f'--out={out}', tmp_path / 'picture.png']
  assert smoke_runs.cdm('upscale', *words) == 0
  made, saved = restore.restored_upscaler(workdir, level=0.0, overrides=sizes)
  assert made.margin == 3  # A tile overlaps its neighbours by 6 pixels.
  method = stage.stage(saved).method
  whole = method.sample(
    method.prepare(parameters(workdir)), lowres=pixels.to_float(image[None])
  )
  np.testing.assert_array_equal(
    np.asarray(Image.open(out / 'picture.png')),
    np.asarray(pixels.to_uint8(whole))[0],
  )
