"""Counts a network's parameters and forward FLOPs, without running it.

Parameters are counted from abstract shapes. Forward FLOPs are counted from
the program that JAX traces, as the multiply-adds of the two operations that do
nearly all of the work of a U-Net. A multiply-add is two FLOPs:

  convolution   2 |output| |kernel window| C_in / groups
  matmul        2 |output| |contracted axes|

Padding counts as work. Normalisations, activations, additions and resampling
without weights are not counted.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cdm.models.resnet import ResNet50


def trace(net: Any, image_size: int, has_lowres: bool) -> tuple[dict, int]:
  """Traces a network on one image, without allocating anything.

  Args:
    net: a `UNet` or a `ResNet50`.
    image_size: H = W of the image.
    has_lowres: True gives a U-Net a low-res image as well.

  Returns:
    (abstract parameters in the order in which the network uses its modules,
    forward FLOPs per image).
  """
  args, kwargs = _inputs(net, image_size, has_lowres)
  return trace_call(
    functools.partial(net.init_with_output, train=False), args, kwargs
  )


def trace_call(
  init_with_output: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[dict, int]:
  """Traces a network on one image, for any arguments of its `__call__`.

  Args:
    init_with_output: that of the network.
    args, kwargs: abstract arguments for one image.

  Returns:
    What `trace` returns.
  """
  order = []

  def first_pass(key, args, kwargs):
    result = init_with_output(key, *args, **kwargs)
    order.extend(result[1]['params'])  # JAX sorts the keys of a returned tree.
    return result

  # One trace gives both results. Initializers draw random numbers and multiply
  # nothing, so the products of this program are those of the forward pass.
  program, (_, variables) = jax.make_jaxpr(first_pass, return_shape=True)(
    jax.eval_shape(lambda: jax.random.key(0)), args, kwargs
  )
  params = {name: variables['params'][name] for name in order}
  return params, count_flops(program)


def _inputs(net: Any, image_size: int, has_lowres: bool) -> tuple[tuple, dict]:
  """Returns the network's (args, kwargs) for one image, as abstract arrays."""
  channels = getattr(net, 'out_channels', 3)
  image = jax.ShapeDtypeStruct(
    (1, image_size, image_size, channels), jnp.float32
  )
  if isinstance(net, ResNet50):
    return (image,), {}
  scalar = jax.ShapeDtypeStruct((1,), jnp.float32)
  noise = None if net.condition_on == 'nothing' else scalar
  kwargs = {}
  if net.num_classes is not None:
    kwargs['label'] = jax.ShapeDtypeStruct((1,), jnp.int32)
  if has_lowres and noise is not None:
    kwargs['lowres'] = image
  if net.lowres_level:
    kwargs['lowres_level'] = scalar
  return (image, noise), kwargs


def count_parameters(tree: Any) -> int:
  """Returns the number of scalars in a tree of (abstract) arrays."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def count_flops(program: Any) -> int:
  """Returns the FLOPs of all convolutions and matmuls in a jaxpr.

  Nested jaxprs count too. Of the branches of a cond, the most expensive counts.

  Args:
    program: the jaxpr that `jax.make_jaxpr(f)(...)` returns.

  Raises:
    ValueError: the program has a while loop, whose number of iterations it does
      not state.
  """
  total = 0
  for eqn in getattr(program, 'jaxpr', program).eqns:
    kind = eqn.primitive.name
    if kind == 'conv_general_dilated':
      total += convolution_flops(eqn)
    elif kind == 'dot_general':
      total += matmul_flops(eqn)
    elif kind == 'while':
      raise ValueError(
        'The program has a while loop, whose number of iterations is not known '
        'before it runs; use jax.lax.scan, whose length is known.'
      )
    elif kind == 'cond':  # The most expensive branch is an upper bound.
      total += max(count_flops(branch) for branch in eqn.params['branches'])
    else:
      turns = eqn.params['length'] if kind == 'scan' else 1
      total += turns * sum(map(count_flops, inner_programs(eqn)))
  return total


def inner_programs(eqn: Any) -> list:
  """Returns the jaxprs that an equation calls: jit, scan, remat, ..."""
  return [value for value in eqn.params.values() if hasattr(value, 'eqns')]


def convolution_flops(eqn: Any) -> int:
  """Returns the FLOPs of one convolution, including its padded zeros."""
  kernel = eqn.invars[1].aval.shape
  out_features = kernel[eqn.params['dimension_numbers'].rhs_spec[0]]
  per_output = math.prod(kernel) // out_features  # window, C_in / groups
  return 2 * math.prod(eqn.outvars[0].aval.shape) * per_output


def matmul_flops(eqn: Any) -> int:
  """Returns the FLOPs of one dot_general, batched or not."""
  (contracted, _), _ = eqn.params['dimension_numbers']
  lhs = eqn.invars[0].aval.shape
  per_output = math.prod(lhs[axis] for axis in contracted)
  return 2 * math.prod(eqn.outvars[0].aval.shape) * per_output
