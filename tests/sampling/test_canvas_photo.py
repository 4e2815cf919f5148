"""The photo model on a picture of any size is its network on the whole."""

import jax
import numpy as np
from support import smoke_runs

from cdm.config import loader, stage
from cdm.data import low_res_inputs
from cdm.methods import degraded_regression
from cdm.ops import pixels, resize
from cdm.sampling import canvas_upscaler, cascade, picture_rows

CONFIG = smoke_runs.CONFIGS / 'photo_faithful.py'


def test_a_picture_in_windows_is_that_of_the_network_on_the_whole():
  """Away from the picture's own border, where windows see its mirror image."""
  overrides = [
    ('model.features', '4'), ('model.num_blocks', '1'),
    ('model.patch_size', '2'), ('pipeline.image_size', '64'),
    ('lowres.size', '16'),
  ]  # fmt: skip
  built = stage.stage(loader.load(CONFIG, overrides))
  assert built.margin == 3  # 2 * 4 + 1 pixels of the result, at 4 times
  params = built.method.init(jax.random.key(0))
  params = jax.tree.map(
    lambda x, k: x + 0.1 * jax.random.normal(k, x.shape),
    params,
    jax.tree.unflatten(
      jax.tree.structure(params),
      list(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))),
    ),
  )
  made = cascade.Stage.of(built, params, None, name='photo')
  upscaler = canvas_upscaler.CanvasUpscaler.of(made, batch_size=4)
  image = np.random.default_rng(0).integers(0, 256, (1, 37, 50, 3), np.uint8)
  plan = upscaler.plan(image.shape[1:3])
  assert plan.is_exact and plan.cut.reach
  rows = picture_rows.WholePictures(image)
  bands = upscaler.draw(canvas_upscaler.Task(rows), plan)
  found = np.concatenate(list(bands), axis=1)
  up = resize.resize(pixels.to_float(image), (4 * 37, 4 * 50), method='bicubic')
  levels = degraded_regression.clean_levels(1, 4, len(low_res_inputs.LEVELS))
  net = built.net.apply({'params': params}, up, levels, train=False).image
  expected = np.clip(net, -1, 1)
  assert np.abs(expected - np.asarray(up)).max() > 0.05
  inner = slice(12, -12)
  np.testing.assert_allclose(
    found[:, inner, inner], expected[:, inner, inner], atol=2e-5
  )
