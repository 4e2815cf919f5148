"""A config of one stage becomes a network and a method, or one sentence."""

import pathlib

import jax
import numpy as np
import pytest

from cdm.config import loader, stage
from cdm.methods.base import Method

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def config(name):
  return loader.load(CONFIGS / f'{name}.py')


@pytest.mark.parametrize('section', ['schedule', 'sampler'])
def test_a_section_that_a_method_has_no_use_for_is_refused(section):
  """It would be an option that does nothing."""
  c = config('smoke_regression')
  with c.unlocked():
    c[section] = config('smoke_sr')[section]
  with pytest.raises(ValueError) as error:
    stage.stage(c)
  assert str(error.value).startswith(
    f"config.{section} is given, but method.kind='regression' has no use for it"
  )


def test_a_cascade_cannot_give_a_sampler_to_what_has_none():
  section = config('smoke_sr').sampler
  with pytest.raises(ValueError, match=r'config\.stages\.sr\.sampler is given'):
    stage.stage(
      config('smoke_regression'), section, sampler_key='stages.sr.sampler'
    )


@pytest.mark.parametrize(
  'name, evaluations',
  [('smoke', 8), ('smoke_sr', 4), ('smoke_regression', 1)],
)
def test_a_stage_knows_how_often_its_network_runs(name, evaluations):
  c = config(name)
  built = stage.stage(c)
  steps = c.sampler.grid.get('spacing') if 'sampler' in c else None
  assert built.evaluations == (evaluations if steps is None else int(steps))
  if 'sampler' in c:
    assert stage.stage(c, sampler_steps=2).evaluations == 2


def test_a_guided_sampler_runs_it_twice_a_step():
  c = config('smoke')
  c.sampler.guidance_weight = 1.0
  built = stage.stage(c)
  assert built.evaluations == 2 * built.turns


def test_what_is_prepared_is_what_images_are_drawn_with():
  """Once from a checkpoint, and in every drawing of a training run."""
  method = Method(
    init=lambda key: {'sums': jax.numpy.arange(3.0)},
    loss=None,
    sample=lambda params, *, keys: params['filters'] + keys,
    prepare=lambda params: {'filters': 2 * params['sums']},
  )
  built = stage.stage(config('smoke_regression'))._replace(method=method)
  mesh = jax.make_mesh((1, 1), ('data', 'fsdp'), devices=jax.devices()[:1])
  params = method.init(jax.random.key(0))
  prepared = built.prepared(params, mesh)
  np.testing.assert_array_equal(prepared['filters'], [0, 2, 4])
  shapes = built.prepared(jax.eval_shape(lambda: params), mesh)
  assert shapes['filters'].shape == (3,)
  assert shapes['filters'].sharding.is_fully_replicated
  drawn = method.sample(prepared, keys=1.0)
  np.testing.assert_array_equal(
    built.sample_in_training(params, keys=1.0), drawn
  )
