"""Chooses the options of XLA's compiler for programs that run on CPUs.

By default jaxlib's CPU compiler hands convolutions to the YNNPACK library,
whose weight gradients are several times slower than XLA's own code. With these
options only reductions go to the library, because XLA's own loops sum slowly
over pixels, for the statistics of GroupNorm, for softmax and for the gradients
of biases.

  jax.jit(f, compiler_options=compiler_options.for_devices(mesh.devices.flat))

`jax.jit` refuses compiler options inside another jitted function, so only the
outermost function takes them. Measured by `benchmarks/compiler_options.py`.
"""

import functools
import os
from collections.abc import Iterable

import jax

# Which groups of operations XLA's CPU compiler gives to the YNNPACK library.
OPTION = 'xla_cpu_experimental_ynn_fusion_type'
VALUE = 'LIBRARY_FUSION_TYPE_REDUCE'


def for_devices(devices: Iterable[jax.Device]) -> dict[str, str] | None:
  """Returns the options for a program, or None, which is none for `jax.jit`.

  It is None on every device but a CPU, and also if XLA_FLAGS already names the
  option or this jaxlib does not know it.

  Args:
    devices: iterable of the devices that the program runs on.
  """
  if next(iter(devices)).platform != 'cpu':
    return None
  if OPTION in os.environ.get('XLA_FLAGS', ''):
    return None  # The user has set the option in XLA_FLAGS.
  return {OPTION: VALUE} if _is_known() else None


@functools.cache
def _is_known() -> bool:
  """Returns whether this jaxlib knows the option, by compiling with it."""
  on_cpu = jax.device_put(0.0, jax.local_devices(backend='cpu')[0])
  program = jax.jit(lambda x: x).lower(on_cpu)
  try:
    program.compile(compiler_options={OPTION: VALUE})
  except jax.errors.JaxRuntimeError:  # The option is unknown.
    return False
  return True
