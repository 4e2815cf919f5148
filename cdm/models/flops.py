"""What a network is and costs, without running it or allocating it.

Parameters are counted from abstract shapes. Forward FLOPs are counted from
the program that JAX traces, in multiply-adds of the two operations that hold
nearly all of the work of a U-Net, a multiply-add being two FLOPs:

  convolution   2 |output| |kernel window| C_in / groups
  matmul        2 |output| |contracted axes|

Padding counts as work; normalisations, activations, resampling without
weights and additions count nothing.
"""

import math

import jax
import jax.numpy as jnp

from cdm.models.resnet import ResNet50


def trace(net, image_size, has_lowres):
  """-> (abstract parameters in the order of work, forward FLOPs per image)."""
  given, named = _inputs(net, image_size, has_lowres)
  order = []

  def first_pass(key, given, named):
    made = net.init_with_output(key, *given, train=False, **named)
    order.extend(made[1]['params'])  # A tree that leaves JAX is sorted.
    return made

  # One trace gives both: initializers draw random numbers and multiply
  # nothing, so what this program multiplies is the forward pass alone.
  program, (_, variables) = jax.make_jaxpr(first_pass, return_shape=True)(
    jax.eval_shape(lambda: jax.random.key(0)), given, named
  )
  params = {name: variables['params'][name] for name in order}
  return params, flops_of(program)


def _inputs(net, image_size, has_lowres):
  """-> (arguments, keyword arguments) of one image, as shapes."""
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  if isinstance(net, ResNet50):
    return (image,), {}
  noise = jax.ShapeDtypeStruct((1,), jnp.float32)
  named = {}
  if net.num_classes is not None:
    named['label'] = jax.ShapeDtypeStruct((1,), jnp.int32)
  if has_lowres:
    named['lowres'] = image
  if net.lowres_level:
    named['lowres_level'] = noise
  return (image, noise), named


def count(tree):
  """-> int, the number of scalars in a tree of (abstract) arrays."""
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def flops_of(program):
  """-> int, FLOPs of the convolutions and matmuls in a jaxpr, nested ones too.

  Args:
    program: what `jax.make_jaxpr(f)(...)` returns.

  Raises:
    ValueError: it holds a loop whose number of turns is not in the program.
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
        'The program has a while loop, whose number of turns is not known '
        'before it runs; use jax.lax.scan, whose length is.'
      )
    elif kind == 'cond':  # The dearest branch: an upper bound.
      total += max(flops_of(branch) for branch in eqn.params['branches'])
    else:
      turns = eqn.params['length'] if kind == 'scan' else 1
      total += turns * sum(map(flops_of, inner_programs(eqn)))
  return total


def inner_programs(eqn):
  """-> the jaxprs that an equation calls: jit, scan, remat, custom_jvp, ..."""
  return [value for value in eqn.params.values() if hasattr(value, 'eqns')]


def convolution_flops(eqn):
  """FLOPs of one convolution; zeros of padding or dilation count as work."""
  kernel = eqn.invars[1].aval.shape
  out_features = kernel[eqn.params['dimension_numbers'].rhs_spec[0]]
  per_output = math.prod(kernel) // out_features  # window, C_in / groups
  return 2 * math.prod(eqn.outvars[0].aval.shape) * per_output


def matmul_flops(eqn):
  """FLOPs of one dot_general, batched or not."""
  (contracted, _), _ = eqn.params['dimension_numbers']
  lhs = eqn.invars[0].aval.shape
  per_output = math.prod(lhs[axis] for axis in contracted)
  return 2 * math.prod(eqn.outvars[0].aval.shape) * per_output
