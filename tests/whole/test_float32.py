"""What is called float32 multiplies all digits of float32, on every device.

XLA's default would round the factors of a product of float32 to bfloat16 on
TPUs and to TF32 on GPUs, without a word and without a change of dtype. So the
programs that are trained and drawn with are searched for such a product.
"""

import jax
import numpy as np
import pytest
from support import smoke_runs

from cdm.config import loader, placement
from cdm.config import stage as build

HIGHEST = jax.lax.Precision.HIGHEST
# One config of every kind of network, all of them float32.
NAMES = (
  'smoke',
  'smoke_sr',
  'smoke_regression',
  'smoke_prsr',
  'smoke_fsrgan',
  'smoke_cas',
  'faces_small_pulse16to64',
)


@pytest.fixture(autouse=True)
def the_default_of_a_user():
  """Here the tests' own default is the highest precision."""
  with jax.default_matmul_precision(None):
    yield


def built(name, **overrides):
  values = [(k.replace('__', '.'), v) for k, v in overrides.items()]
  return build.stage(loader.load(smoke_runs.CONFIGS / f'{name}.py', values))


def inner(value):
  """Yields the jaxprs in a parameter of an equation."""
  if isinstance(value, tuple | list):
    for part in value:
      yield from inner(part)
  elif hasattr(value, 'eqns'):
    yield value


def products(jaxpr):
  """Yields every convolution and matrix product of a program."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in ('dot_general', 'conv_general_dilated'):
      yield eqn
    for value in eqn.params.values():
      for program in inner(value):
        yield from products(program)


def is_highest(eqn):
  given = eqn.params['precision']
  return given == HIGHEST or given == (HIGHEST, HIGHEST)


def dtypes(eqn):
  return {var.aval.dtype.name for var in eqn.invars}


def training(stage):
  """-> the products of a stage's loss and of its gradient."""
  size = stage.config.pipeline.image_size
  batch = {
    'image': jax.ShapeDtypeStruct((2, size, size, 3), np.uint8),
    'label': jax.ShapeDtypeStruct((2,), np.int32),
  }
  params = placement.abstract_params(stage.method)
  key = jax.eval_shape(lambda: jax.random.key(0))

  def mean(params, batch, key):
    return stage.method.loss(params, batch, key=key, train=True)[0].mean()

  return [*products(jax.make_jaxpr(jax.grad(mean))(params, batch, key))]


def drawing(stage):
  """-> the products of drawing images."""
  given = {'label': None}
  if stage.net.num_classes is not None:
    given['label'] = jax.ShapeDtypeStruct((2,), np.int32)
  if stage.lowres is not None:
    low = stage.lowres.size
    given['lowres'] = jax.ShapeDtypeStruct((2, low, low, 3), np.float32)
    given['level'] = jax.ShapeDtypeStruct((2,), np.float32)
  params = placement.abstract_params(stage.method)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))

  def draw(params, keys, given):
    return stage.sample_in_training(params, keys=keys, **given)

  return [*products(jax.make_jaxpr(draw)(params, keys, given))]


@pytest.mark.parametrize('name', NAMES)
def test_every_product_of_float32_is_float32(name):
  stage = built(name)
  found = training(stage)
  if stage.method.sample is not None:
    found += drawing(stage)
  assert len(found) > 10
  assert [eqn for eqn in found if not is_highest(eqn)] == []


def test_a_network_in_bfloat16_keeps_float32_where_it_says_so():
  """Its embeddings and its last convolution; the rest has the default."""
  found = training(built('smoke_sr', model__dtype='bfloat16'))
  exact = [eqn for eqn in found if dtypes(eqn) == {'float32'}]
  fast = [eqn for eqn in found if 'bfloat16' in dtypes(eqn)]
  # Two embeddings of two layers, and one convolution, each with the gradient
  # of its kernel.
  kinds = [eqn.primitive.name for eqn in exact]
  assert kinds.count('dot_general') >= 8
  assert kinds.count('conv_general_dilated') >= 2
  assert all(map(is_highest, exact))
  assert len(fast) > len(exact) and not any(map(is_highest, fast))
