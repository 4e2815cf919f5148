"""Computes a JAX program in float64 on the host's CPU, as a reference.

`in_float64(f)(*args)` traces f as it is, in float32 or bfloat16, and then
computes every operation of that program in float64: the same random numbers,
the same order, no other code. What remains is the rounding of the program that
is compared with it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

NARROW = (jnp.float16, jnp.bfloat16, jnp.float32)


def in_float64(function):
  """Returns a function that computes in float64 what another one computes.

  Args:
    function: (*args) -> tree of arrays, without callbacks and custom kernels.
  """

  def reference(*args):
    cpu = jax.local_devices(backend='cpu')[0]
    # Typed keys stay as they are; all else goes through the host.
    args = jax.device_put(args, cpu)
    with jax.default_device(cpu):
      closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
      with jax.enable_x64(True):
        flat = [widen(x) for x in jax.tree.leaves(args)]
        consts = [widen(x) for x in closed.consts]
        run = jax.jit(functools.partial(_evaluate, closed.jaxpr))
        results = run(consts, flat)
        results = [np.asarray(x) for x in results]
    return jax.tree.unflatten(jax.tree.structure(shape), results)

  return reference


def widen(x):
  """Returns an array in float64 if it is of a narrower floating type."""
  dtype = getattr(x, 'dtype', None)
  if dtype is not None and dtype in NARROW:
    return jnp.asarray(x, jnp.float64)
  return x


def _wide(dtype):
  return jnp.dtype(jnp.float64) if dtype in NARROW else dtype


def _evaluate(jaxpr, consts, args):
  """Evaluates a jaxpr whose floating values are all float64."""
  values = dict(zip(jaxpr.constvars, consts, strict=True))
  values |= dict(zip(jaxpr.invars, args, strict=True))

  def read(atom):
    if isinstance(atom, core.Literal):
      return widen(np.asarray(atom.val, atom.aval.dtype))
    return values[atom]

  for eqn in jaxpr.eqns:
    inputs = [read(atom) for atom in eqn.invars]
    outputs = _apply(eqn, inputs)
    values |= dict(zip(eqn.outvars, outputs, strict=True))
  return [read(atom) for atom in jaxpr.outvars]


def _closed(inner, inputs):
  """Evaluates a closed or open jaxpr of an equation."""
  if hasattr(inner, 'jaxpr'):
    return _evaluate(inner.jaxpr, [widen(c) for c in inner.consts], inputs)
  return _evaluate(inner, [], inputs)


def _apply(eqn, inputs):
  """Returns the results of one equation, a list."""
  name, params = eqn.primitive.name, eqn.params
  if name == 'scan':
    return _scan(params, inputs)
  if name == 'while':
    return _while(params, inputs)
  if name == 'cond':
    index, *rest = inputs
    branches = [
      functools.partial(lambda b, *xs: _closed(b, list(xs)), branch)
      for branch in params['branches']
    ]
    return jax.lax.switch(index, branches, *rest)
  for key in ('jaxpr', 'call_jaxpr', 'fun_jaxpr'):  # jit, remat, custom rules
    if hasattr(params.get(key), 'eqns') or hasattr(params.get(key), 'jaxpr'):
      return _closed(params[key], inputs)
  if name == 'bitcast_convert_type':  # of random bits, which have 32 of them
    return [widen(eqn.primitive.bind(*inputs, **params))]
  if name == 'reduce_precision':
    return inputs
  if name == 'scatter-add':  # Its parameters hold the addition, in float32.
    kept = ('dimension_numbers', 'indices_are_sorted', 'unique_indices', 'mode')
    return [jax.lax.scatter_add(*inputs, **{key: params[key] for key in kept})]
  params = dict(params)
  for key in ('new_dtype', 'preferred_element_type', 'dtype'):
    if params.get(key) is not None:
      params[key] = _wide(params[key])
  if 'precision' in params:
    params['precision'] = None
  results = eqn.primitive.bind(*inputs, **params)
  return results if eqn.primitive.multiple_results else [results]


def _scan(params, inputs):
  """Evaluates a scan with a body in float64."""
  num_consts, num_carry = params['num_consts'], params['num_carry']
  consts = inputs[:num_consts]
  carry = inputs[num_consts : num_consts + num_carry]
  rows = inputs[num_consts + num_carry :]

  def body(carry, row):
    results = _closed(params['jaxpr'], [*consts, *carry, *row])
    return results[:num_carry], results[num_carry:]

  carry, stacked = jax.lax.scan(
    body, carry, rows, length=params['length'], reverse=params['reverse']
  )
  return [*carry, *stacked]


def _while(params, inputs):
  """Evaluates a while loop with a body in float64."""
  a, b = params['cond_nconsts'], params['body_nconsts']
  cond, body, carry = inputs[:a], inputs[a : a + b], inputs[a + b :]
  return jax.lax.while_loop(
    lambda xs: _closed(params['cond_jaxpr'], [*cond, *xs])[0],
    lambda xs: _closed(params['body_jaxpr'], [*body, *xs]),
    list(carry),
  )
