"""Grids are drawn in the steps that are asked for, always with one noise."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from support import smoke_runs

from cdm.config import loader
from cdm.methods.lowres_conditioning import Lowres
from cdm.training import program, run_config, sample_grid


def drawn(monkeypatch, *, steps=None, num=3, lowres=None, mesh_shape=8):
  """-> (grid of a stage that draws noise, number of steps that it took)."""
  from support import tiny_run

  taken = []

  def built(steps):
    def sample(params, *, keys, label, lowres=None, level=None):
      taken.append(steps)
      noise = jax.vmap(lambda key: jax.random.uniform(key, (8, 8, 3)))(keys)
      return params * noise

    return types.SimpleNamespace(
      sample_in_training=sample,
      net=types.SimpleNamespace(num_classes=None),
      lowres=lowres,
      schedule='schedule',
      boxes=lambda params: lambda params: params,
    )

  monkeypatch.setattr(
    sample_grid.sampler_section, 'grid', lambda *given: np.zeros(101)
  )
  monkeypatch.setattr(
    sample_grid.stage, 'stage', lambda c, sampler_steps: built(sampler_steps)
  )
  monkeypatch.setattr(
    sample_grid.evaluated_images,
    'read_held_out',
    lambda c, n: lambda numbers: (
      np.full((n, 8, 8, 3), 7, np.uint8), np.zeros(n, np.int32)
    ),
  )  # fmt: skip
  c = ConfigDict({
    'seed': 0,
    'pipeline': {'image_size': 8},
    'sampler': {'grid': {}},
    'train': {'num_samples': num, 'sample_every_steps': 4},
  })  # fmt: skip
  assembled = program_of(built(None), steps, tiny_run.mesh(mesh_shape))
  image = sample_grid.make_grid_sampler(c, assembled)(jnp.float32(1.0))
  return image, taken[-1]


def program_of(built, steps, mesh):
  schedule = run_config.Run(8, 1, 1, 1, num_samples=3, sample_every_steps=4)
  return types.SimpleNamespace(
    built=built,
    mesh=mesh,
    schedule=schedule._replace(sample_steps=steps),
    state=types.SimpleNamespace(ema_params=None),
    evaluation=types.SimpleNamespace(level=0.0),
  )


@pytest.mark.parametrize('steps', [None, 20])
def test_grids_take_the_steps_that_are_asked_for(monkeypatch, steps):
  first, taken = drawn(monkeypatch, steps=steps)
  assert taken == steps
  again, _ = drawn(monkeypatch, steps=steps)
  np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize('lowres', [None, Lowres(size=4, downsample='area')])
def test_a_grid_is_the_same_on_any_number_of_devices(monkeypatch, lowres):
  """More devices than images draw some in vain, which nobody sees."""
  one, _ = drawn(monkeypatch, lowres=lowres, mesh_shape=1)
  many, _ = drawn(monkeypatch, lowres=lowres, mesh_shape=8)
  np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize('steps', [0, 101])
def test_steps_that_the_sampler_has_not_are_refused(monkeypatch, steps):
  with pytest.raises(
    ValueError, match=f'config.train.sample_steps is {steps}; .* from 1 to 100'
  ):
    drawn(monkeypatch, steps=steps)


def test_the_log_says_how_grids_are_drawn():
  path, lines = smoke_runs.CONFIGS / 'smoke.py', []
  for overrides in ((('train.sample_steps', '2'),), ()):
    c = loader.load(path, overrides)
    lines.append(sample_grid.describe(c, program.assemble(c)))
  begin = 'sample grids: 4 images every 8 steps, in '
  assert lines == [
    f'{begin}2 of the 4 steps of the sampler (train.sample_steps)',
    f'{begin}all 4 steps of the sampler (train.sample_steps)',
  ]
