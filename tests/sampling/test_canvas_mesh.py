"""Canvases of a real U-Net, from its config, on one device and on eight."""

import functools
import pathlib

import jax
import numpy as np
from support.canvas_stages import photo

from cdm.config import loader, placement
from cdm.config import stage as build
from cdm.sampling import cascade
from cdm.sampling.canvas_upscaler import CanvasUpscaler, Task
from cdm.sampling.enlarged_size import Asked, choose
from cdm.sampling.enlargement import Enlargement
from cdm.sampling.picture_rows import WholePictures

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'smoke_sr.py'


@functools.cache
def built():
  return build.stage(
    loader.load(
      CONFIG,
      [
        ('sampler.grid.spacing', '2'),
        ('sampler.guidance_weight', '0.5'),
        ('model.features', '8'),
        ('model.multipliers', '(1,)'),
        ('model.attention_resolutions', '(8,)'),
        ('mesh.fsdp', '4'),
        ('mesh.data', '2'),
      ],
    )
  )


@functools.cache
def params():
  made = jax.jit(built().method.init)(jax.random.key(0))
  # The last layers are zero at first, and the picture would not depend on them.
  return jax.tree.map(lambda x: np.asarray(x) + 0.02, made)


def draw(mesh):
  made = params()
  if mesh is not None:
    section = built().config.mesh
    places = placement.placed_params(built().method, section, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, places)
    assert any(not s.is_fully_replicated for s in jax.tree.leaves(shardings))
    made = jax.device_put(made, shardings)
  stage = cascade.Stage.of(built(), made, mesh, name='sr', level=0.1)
  upscaler = CanvasUpscaler.of(stage, batch_size=8)
  plan = upscaler.plan((26, 40))
  assert plan.block_windows == 6 and plan.at_once == (8 if mesh else 6)
  task = Task(WholePictures(photo(13, 20)), seed=3, label=2)
  return np.concatenate(list(upscaler.draw(task, plan)), axis=1)


def test_the_work_is_that_of_all_windows_guided():
  stage = cascade.Stage.of(built(), params(), None, name='sr')
  upscaler = CanvasUpscaler.of(stage, batch_size=8)
  made = Enlargement.of(upscaler, choose((13, 20), 2, Asked()))
  _, flops = built().trace()
  # Two rows of three windows, two steps, with the label and without.
  assert made.num_windows == 12 and made.flops == 24 * flops


def test_split_parameters_draw_the_same_canvas():
  mesh = placement.drawing_mesh(built().config.mesh)
  one, eight = draw(None), draw(mesh)
  assert one.shape == (1, 26, 40, 3) and one.std() > 0.1
  np.testing.assert_allclose(eight, one, atol=1e-4)
