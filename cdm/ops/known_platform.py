"""Tells a network which kind of device it is traced for."""

import jax


def platform() -> str | None:
  """Returns the platform of the mesh that JAX knows while it traces.

  None if it knows none. A compiled program may only be faster by this, and
  never give other numbers.
  """
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return None if device is None else device.platform
