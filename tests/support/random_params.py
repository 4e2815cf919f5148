"""Parameters of which none is zero, as a new network has some."""

import jax


def moved(params, seed=1, by=0.1):
  """-> the parameters, each moved by normal noise of that deviation."""
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return jax.tree.unflatten(
    structure,
    [
      x + by * jax.random.normal(k, x.shape)
      for x, k in zip(leaves, keys, strict=True)
    ],
  )
