"""Adam whose two moments are kept in bfloat16, at half the memory.

  m <- round(b1 m + (1 - b1) g);  v <- round(b2 v + (1 - b2) g^2)

computed in float32; the update uses the moments before they are rounded.

The first moment is rounded to the nearest bfloat16: it changes by a tenth of
itself in a step. The second changes by 1 - b2, a thousandth of itself, while
neighbouring bfloat16 numbers lie 1/128 to 1/256 apart. Rounded to the nearest,
it would stay where it is for good once the gradients shrink. It is therefore
rounded up or down at random, with the probabilities that keep its mean, so it
follows its float32 course within a few per cent.
"""

import jax
import jax.numpy as jnp
import optax


def scale_by_bfloat16_adam(
  *, b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
  """Builds `optax.scale_by_adam` with moments in bfloat16.

  The random numbers depend on the number of updates made and on the place of an
  array in the tree, so the same state and gradient give the same next state,
  on any mesh.

  Args:
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
  """

  def init(params):
    def zeros():
      return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.bfloat16), params)

    return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros(), zeros())

  def update(updates, state, params=None):
    del params
    count = state.count + 1
    step_seed = _scrambled(count.astype(jnp.uint32))
    grad_leaves, tree = jax.tree.flatten(updates)
    mu_leaves, nu_leaves = jax.tree.leaves(state.mu), jax.tree.leaves(state.nu)
    steps, first, second = [], [], []
    for index, (g, m, v) in enumerate(
      zip(grad_leaves, mu_leaves, nu_leaves, strict=True)
    ):
      g = g.astype(jnp.float32)
      m = b1 * m.astype(jnp.float32) + (1 - b1) * g
      v = b2 * v.astype(jnp.float32) + (1 - b2) * g * g
      m_hat, v_hat = m / (1 - b1**count), v / (1 - b2**count)
      steps.append(m_hat / (jnp.sqrt(v_hat) + eps))
      first.append(m.astype(jnp.bfloat16))
      second.append(
        stochastic_round(v, seed=_scrambled(step_seed + jnp.uint32(index)))
      )
    return tree.unflatten(steps), optax.ScaleByAdamState(
      count, tree.unflatten(first), tree.unflatten(second)
    )

  return optax.GradientTransformation(init, update)


def stochastic_round(x: jax.Array, *, seed: jax.Array | int) -> jax.Array:
  """Rounds to one of the two nearest bfloat16, at random, keeping the mean.

  Args:
    x: float32 of any shape. Infinities and NaN stay what they are.
    seed: [] uint32, another one for every array and step.

  Returns:
    bfloat16 of the same shape.
  """
  # A bfloat16 is the upper half of a float32. Random bits added to the lower
  # half carry over with the probability that the lower half stands for.
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  upper = ((bits + _noise(x.shape, seed)) >> 16).astype(jnp.uint16)
  rounded = jax.lax.bitcast_convert_type(upper, jnp.bfloat16)
  return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))


def _noise(shape, seed):
  """Returns 16 random bits per element, as uint32.

  A hash of the element's index: it fuses with the update, splits over any mesh
  and compiles at once. `jax.random.bits` of every array more than doubled the
  time that a training step takes to compile.
  """
  index = jnp.zeros(shape, jnp.uint32)
  for axis, size in enumerate(shape):
    place = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    index = index * jnp.uint32(size) + place
  return _scrambled(index * jnp.uint32(0x9E3779B9) + jnp.uint32(seed)) >> 16


def _scrambled(x):
  """Mixes the bits of uint32 numbers: the last step of MurmurHash3."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
