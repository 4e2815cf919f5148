"""Split parameters reach a network in boxes that it opens layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from support import tiny_run

from cdm.distributed import device_mesh, parameter_gather, partitioning
from cdm.models.unet import UNet

NET = UNet(
  features=8,
  multipliers=(1, 2),
  num_blocks=1,
  norm_groups=4,
  num_classes=3,
  resample='conv',
  dtype='bfloat16',
)


def inputs():
  x = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
  label = jnp.array([0, 2])
  return (x, jnp.array([0.2, 0.7])), {'label': label, 'train': False}


def random_params():
  """Values that bfloat16 cannot hold, and no zeros."""
  args, kwargs = inputs()
  shapes = jax.eval_shape(
    lambda key: NET.init(key, *args, **kwargs)['params'], jax.random.key(0)
  )
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), jnp.float32), shapes
  )


def name_of(path):
  return partitioning.parameter_name(path)


def test_the_dtype_of_a_parameter_is_the_one_in_which_the_network_uses_it():
  """Casting before the network changes nothing, to the last bit."""
  args, kwargs = inputs()
  params = random_params()
  cast = jax.tree_util.tree_map_with_path(
    lambda path, x: x.astype(NET.parameter_dtype(name_of(path))), params
  )
  kernels = {
    name_of(path): leaf.dtype
    for path, leaf in jax.tree_util.tree_leaves_with_path(cast)
    if leaf.ndim == 4
  }
  assert kernels.pop('conv_out/kernel') == jnp.float32
  assert set(kernels.values()) == {jnp.dtype(jnp.bfloat16)}
  # Operation by operation: a compiled program may keep more digits.
  expected = NET.apply({'params': params}, *args, **kwargs)
  np.testing.assert_array_equal(
    NET.apply({'params': cast}, *args, **kwargs), expected
  )


@pytest.mark.parametrize(
  'spec', [(None, 'fsdp'), ('data', 'fsdp'), (('data', 'fsdp'),)]
)
def test_an_opened_box_is_the_parameter_and_its_gradient_the_sum(spec):
  """On 2 x 4 devices, each with a factor of its own, which scales its loss."""
  mesh = tiny_run.mesh(2, 4)
  place = NamedSharding(mesh, PartitionSpec(*spec))
  x = jax.random.normal(jax.random.key(0), (8, 16))
  factors = jnp.arange(1.0, 9.0)
  given = jax.device_put(x, place)

  def on_a_device(x, factor):
    def loss(x):
      box = parameter_gather.box(
        {'x': x}, {'x': place}, lambda _: jnp.bfloat16, is_manual=True
      )['x']
      assert box.shape == (8, 16)
      whole = parameter_gather.gather(box)
      return (factor[0] * whole.astype(jnp.float32)).sum(), whole

    (_, whole), grad = jax.value_and_grad(loss, has_aux=True)(x)
    # Devices that hold the same part have only their own share of the sum.
    rest = set(device_mesh.BATCH_AXES) - set(jax.tree.leaves(tuple(spec)))
    return whole, jax.lax.psum(grad, tuple(rest)) if rest else grad

  parts = parameter_gather.batch_spec(place)
  whole, grad = jax.jit(
    jax.shard_map(
      on_a_device,
      mesh=mesh,
      in_specs=(parts, PartitionSpec(device_mesh.BATCH_AXES)),
      out_specs=(PartitionSpec(), parts),
      axis_names=set(device_mesh.BATCH_AXES),
      check_vma=False,
    )
  )(given, factors)
  np.testing.assert_array_equal(whole, x.astype(jnp.bfloat16))
  assert grad.dtype == jnp.float32
  np.testing.assert_array_equal(grad, np.full((8, 16), factors.sum()))


def test_the_compiler_is_told_to_cast_a_part_before_it_gathers():
  """Outside of a shard_map, by constraints; what is not split stays bare."""
  mesh = tiny_run.mesh(1, 8)
  place = NamedSharding(mesh, PartitionSpec(None, 'fsdp'))
  bare = device_mesh.replicated(mesh)
  x = jax.random.normal(jax.random.key(0), (8, 16))

  def opened(tree):
    boxes = parameter_gather.box(
      tree, {'x': place, 'y': bare}, lambda _: jnp.bfloat16
    )
    assert isinstance(boxes['x'], parameter_gather.Box)
    assert boxes['y'] is tree['y']
    return parameter_gather.gather(boxes)

  run = jax.jit(opened, in_shardings=({'x': place, 'y': bare},))
  found = run({'x': x, 'y': x})
  assert found['x'].sharding.is_fully_replicated
  np.testing.assert_array_equal(found['x'], x.astype(jnp.bfloat16))
  assert found['y'].dtype == jnp.float32
  cast, *constraints = [
    eqn for eqn in jax.make_jaxpr(opened)({'x': x, 'y': x}).jaxpr.eqns[0]
    .params['call_jaxpr'].eqns
  ]  # fmt: skip
  assert cast.primitive.name == 'convert_element_type'
  assert [c.params['sharding'].spec for c in constraints] == [
    PartitionSpec(None, 'fsdp'),
    PartitionSpec(None, None),
  ]
