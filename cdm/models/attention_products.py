"""Computes the two products of attention, softmax(q k^T / sqrt(d)) v.

All forms give the same numbers, up to the rounding of their dtype. They differ
in the memory that N pixels need:

  plain    keeps the weights of all pairs of pixels, N^2 float32 per head
  few      keeps the weights of a few images, and computes them again for the
           gradient
  blocked  keeps the weights of one block of queries, and computes them again
           for the gradient
  kernel   one of `attention_kernels`, which keeps no weights

and logits and softmax are float32 in each of them.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cdm.models import attention_kernels, precision
from cdm.ops import known_platform

# 'auto' is 'plain' (on CPUs `few_images`) if one head has no more weights for
# an image than this, that is for 512 pixels or fewer, else 'fused'. They are
# 1 MiB of float32, as many bytes as q, k, v and the result of a wide head (256)
# in bfloat16: below, there is little to save. Every config of cdm attends over
# 16 x 16 at most, but edm_imagenet64 over 32 x 32.
PLAIN_WEIGHTS = 2**18
# A block of queries has as many weights, but no fewer queries than this, which
# fill the rows of a TPU's matrix unit.
LEAST_QUERIES = 128
# A few images have no more weights than this. They are 4 MiB of float32, which
# the caches of a CPU hold, so a gradient takes half the time that it takes with
# all at once.
CACHED_WEIGHTS = 2**20
# 'fused' is a kernel of the device where there is one, and else 'blocked'.
FORMS = ('auto', 'plain', 'blocked', 'fused')


def attend(q: jax.Array, k: jax.Array, v: jax.Array, form: str) -> jax.Array:
  """Returns softmax(q k^T / sqrt(d)) v in the given form.

  Args:
    q, k, v: [B, N, heads, d], of one dtype.
    form: one of `FORMS`.

  Returns:
    [B, N, heads, d] in their dtype.
  """
  return _chosen(q, form)(q, k, v)


def _chosen(q: jax.Array, form: str) -> Callable[..., jax.Array]:
  """Returns the function that computes a form for such queries."""
  is_small = q.shape[1] ** 2 <= PLAIN_WEIGHTS
  if form == 'plain':
    return plain
  if form == 'auto' and is_small:
    mesh = attention_kernels.mesh_for(q)
    if mesh is None or known_platform.platform() != 'cpu':
      return plain
    return attention_kernels.on_each_device(few_images, mesh)
  kernel = None if form == 'blocked' else attention_kernels.kernel_for(q)
  return kernel or blocked


def plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes all weights at once; see `attend`.

  q may have fewer pixels than k and v.
  """
  logits = _logits(q, k)
  if v.dtype != logits.dtype:
    # Divided afterwards, the product would be rounded to v's dtype twice.
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return _product('bhqk,bkhd->bqhd', weights, v)
  # A softmax does not change if the same number is taken from all its logits.
  largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
  weights = jnp.exp(logits - largest)
  # The result is smaller than the weights, so it is what the sums divide.
  out = _product('bhqk,bkhd->bhqd', weights, v)
  out /= weights.sum(axis=-1, keepdims=True)
  return out.swapaxes(1, 2)


def few_images(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes the weights of a few images after those of others; see `attend`.

  It is for CPUs, whose cache then holds the weights.
  """
  b, n, heads, _ = q.shape
  fit = [i for i in range(1, b + 1) if i * heads * n**2 <= CACHED_WEIGHTS]
  size = max((i for i in fit if b % i == 0), default=1)
  if size == b:
    return plain(q, k, v)
  few = [x.reshape(b // size, size, *x.shape[1:]) for x in (q, k, v)]
  # In a loop nothing can be merged with what is computed again.
  again = jax.checkpoint(plain, prevent_cse=False)
  out = jax.lax.map(lambda qkv: again(*qkv), few)
  return out.reshape(q.shape)


@jax.custom_vjp
def blocked(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes the weights of one block of queries after the other; see `attend`.

  A softmax is over all keys of a query, so a block is `plain`.
  """
  _, out = _over_blocks(lambda _, q: (None, plain(q, k, v)), None, q)
  return out


def _blocked_forward(q, k, v):
  return blocked(q, k, v), (q, k, v)


def _blocked_backward(kept, gradient):
  """Adds the gradients of k and v over the blocks, in float32.

  With p = softmax(s), s = q k^T / sqrt(d) and the gradient g of the result:

    dp = g v^T,  ds = p (dp - sum_k p dp),  dv = p^T g
    dq = ds k / sqrt(d),  dk = ds^T q / sqrt(d)
  """
  q, k, v = kept
  precise = _precise(q.dtype)

  def one_block(carry, q, g):
    p = jax.nn.softmax(_logits(q, k), axis=-1)  # [B, heads, queries, N]
    dp = _product('bqhd,bkhd->bhqk', g, v, precise)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True))
    ds /= math.sqrt(q.shape[-1])
    dk = _product('bhqk,bqhd->bkhd', ds, q, precise)
    dv = _product('bhqk,bqhd->bkhd', p.astype(g.dtype), g, precise)
    dq = _product('bhqk,bkhd->bqhd', ds, k, precise)
    return (carry[0] + dk, carry[1] + dv), dq.astype(q.dtype)

  zeros = jnp.zeros(k.shape, precise)
  (dk, dv), dq = _over_blocks(one_block, (zeros, zeros), q, gradient)
  return dq, dk.astype(k.dtype), dv.astype(v.dtype)


blocked.defvjp(_blocked_forward, _blocked_backward)


def block_size(n: int) -> int:
  """Returns the number of queries of a block of `blocked`, for n pixels."""
  return min(n, max(LEAST_QUERIES, PLAIN_WEIGHTS // n))


def _over_blocks(
  function: Callable[..., tuple[Any, jax.Array]], carry: Any, *arrays: jax.Array
) -> tuple[Any, jax.Array]:
  """Calls a function for one block of pixels after the other.

  Args:
    function: (carry, *blocks [B, size, heads, d]) -> (carry, result of the
      block [B, size, heads, d]).
    carry: its first argument at the first block.
    *arrays: [B, N, heads, d]. A last block may be smaller than the others.

  Returns:
    (carry of the last block, results [B, N, heads, d]).
  """
  b, n, *rest = arrays[0].shape
  size = block_size(n)
  count = n // size
  whole = [
    x[:, : count * size].reshape(b, count, size, *rest).swapaxes(0, 1)
    for x in arrays
  ]
  carry, out = jax.lax.scan(lambda c, xs: function(c, *xs), carry, whole)
  out = out.swapaxes(0, 1).reshape(b, count * size, *rest)
  if count * size == n:
    return carry, out
  carry, last = function(carry, *(x[:, count * size :] for x in arrays))
  return carry, jnp.concatenate([out, last], axis=1)


def _logits(q: jax.Array, k: jax.Array) -> jax.Array:
  """Returns q k^T / sqrt(d), [B, heads, queries, N] float32."""
  logits = _product('bqhd,bkhd->bhqk', q, k, _precise(q.dtype))
  # The scale is the square root of a head's width, not of all channels.
  return logits / math.sqrt(q.shape[-1])


def _product(
  axes: str, a: jax.Array, b: jax.Array, dtype: Any = None
) -> jax.Array:
  """Returns an einsum in the precision of b's dtype.

  Args:
    axes: the axes of a, b and the result.
    a, b: the factors; a may be float32 where b is not.
    dtype: of the result; None is that of a and b.
  """
  return jnp.einsum(
    axes, a, b, precision=precision.of(b.dtype), preferred_element_type=dtype
  )


def _precise(dtype: Any) -> Any:
  """Returns the dtype of logits and sums: float32, or float64 for itself."""
  return jnp.promote_types(dtype, jnp.float32)
