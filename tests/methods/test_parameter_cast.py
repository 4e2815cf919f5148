"""A sampler's loop takes parameters in the dtype in which layers use them.

That a cast before the network changes nothing, to the last bit, is proved in
tests/distributed/test_parameter_gather.py.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cdm.diffusion import grids, samplers, schedules
from cdm.distributed import device_mesh, parameter_gather
from cdm.methods import parameter_cast
from cdm.methods.diffusion import Objective, Sampling, diffusion
from cdm.methods.lowres_conditioning import Lowres
from cdm.models.unet import UNet
from cdm.ops.keys import image_keys

SCHEDULE = schedules.cosine(100)
# Widths that no feature map has, so that a shape tells what is a parameter.
NET = UNet(
  features=12,
  multipliers=(1,),
  num_blocks=1,
  norm_groups=4,
  num_classes=5,
  null_class=True,
  dtype='bfloat16',
)


def method(guidance):
  return diffusion(
    NET,
    SCHEDULE,
    Objective(label_dropout=0.1),
    Sampling(
      run=functools.partial(samplers.ddim, eta=0.0),
      grid=grids.respaced(SCHEDULE, spacing='3'),
      clip='static',
      guidance_weight=guidance,
    ),
    image_size=8,
    lowres=Lowres(size=4),
  )


def bodies(jaxpr, inside=False):
  """Yields (equation, whether it is in a loop) of a program, calls opened."""
  for eqn in jaxpr.eqns:
    yield eqn, inside
    is_loop = eqn.primitive.name in ('scan', 'while')
    for value in jax.tree.leaves(
      eqn.params, is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from bodies(inner, inside or is_loop)


def casts(program, shapes):
  """-> {whether in a loop: number of casts of what has a kernel's shape}."""
  found = collections.Counter()
  for eqn, inside in bodies(program):
    if eqn.primitive.name == 'convert_element_type':
      source, target = eqn.invars[0].aval, eqn.outvars[0].aval
      if (source.dtype, target.dtype) == (jnp.float32, jnp.bfloat16):
        found[inside] += source.shape in shapes
  return found


@pytest.mark.parametrize('guidance', [0.0, 2.0])
@pytest.mark.parametrize('is_split', [False, True])
def test_no_step_of_a_sampler_casts_a_kernel(is_split, guidance):
  t = method(guidance)
  params = jax.eval_shape(t.init, jax.random.key(0))
  kernels = [x for x in jax.tree.leaves(params) if x.ndim in (2, 4)]
  mesh = device_mesh.make_mesh(fsdp=2, devices=jax.devices()[:2])

  def sample(params, label, lowres):
    if is_split:
      places = jax.tree.map(
        lambda x: NamedSharding(
          mesh,
          PartitionSpec('fsdp' if x.shape[0] % 2 == 0 else None),
        ),
        params,
      )
      params = parameter_gather.box(params, places, NET.parameter_dtype)
    return t.sample(
      params, keys=image_keys(0, np.arange(2)), label=label, lowres=lowres
    )

  low = jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32)
  label = jax.ShapeDtypeStruct((2,), jnp.int32)
  program = jax.make_jaxpr(sample)(params, label, low).jaxpr
  found = casts(program, {x.shape for x in kernels})
  assert found[True] == 0 and found[False] > 10


def test_values_of_boxes_are_cast_and_the_boxes_stay():
  mesh = device_mesh.make_mesh(fsdp=2, devices=jax.devices()[:2])
  places = {
    'a': {'kernel': NamedSharding(mesh, PartitionSpec('fsdp'))},
    'b': {'kernel': NamedSharding(mesh, PartitionSpec())},
  }
  params = jax.tree.map(lambda _: jnp.full(4, 1 + 2**-12), places)

  def dtype_of(name):
    return {'a/kernel': jnp.bfloat16, 'b/kernel': jnp.float32}[name]

  boxed = parameter_gather.box(params, places, dtype_of)
  cast = parameter_cast.cast(boxed, dtype_of)
  assert cast['a']['kernel'].layout == boxed['a']['kernel'].layout
  assert cast['a']['kernel'].value.dtype == jnp.bfloat16
  np.testing.assert_array_equal(cast['a']['kernel'].value, np.ones(4))
  np.testing.assert_array_equal(cast['b']['kernel'], params['b']['kernel'])
