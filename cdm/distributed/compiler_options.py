"""Chooses the options of XLA's compiler for programs that run on CPUs.

By default jaxlib's CPU compiler hands convolutions to a library whose weight
gradients are several times slower than XLA's own code. These functions return
options that keep convolutions out of that library. They return None, which
`jax.jit` takes for no options, on every other device, and also if XLA_FLAGS
already names the option or this jaxlib does not know it.

  jax.jit(f, compiler_options=compiler_options.forward(mesh.devices.flat))

`jax.jit` refuses compiler options inside another jitted function, so only the
outermost function takes them. Measured by `benchmarks/compiler_options.py`.
"""

import functools
import os
from collections.abc import Iterable

import jax

# Which groups of operations XLA's CPU compiler gives to the YNNPACK library.
OPTION = 'xla_cpu_experimental_ynn_fusion_type'


def forward(devices: Iterable[jax.Device]) -> dict[str, str] | None:
  """Returns the options for a program without gradients, or None.

  With these options, no operation goes to the library.

  Args:
    devices: iterable of the devices that the program runs on.
  """
  return _options(devices, '')


def training_step(devices: Iterable[jax.Device]) -> dict[str, str] | None:
  """Returns the options for a program with gradients, or None.

  With these options, only reductions go to the library, because XLA's own loops
  sum slowly over pixels, for bias gradients and the statistics of GroupNorm.

  Args:
    devices: iterable of the devices that the program runs on.
  """
  return _options(devices, 'LIBRARY_FUSION_TYPE_REDUCE')


def _options(
  devices: Iterable[jax.Device], value: str
) -> dict[str, str] | None:
  if next(iter(devices)).platform != 'cpu':
    return None
  if OPTION in os.environ.get('XLA_FLAGS', ''):
    return None  # The user has set the option in XLA_FLAGS.
  return {OPTION: value} if _is_known(value) else None


@functools.cache
def _is_known(value: str) -> bool:
  """Returns whether this jaxlib knows the option, by compiling with it."""
  on_cpu = jax.device_put(0.0, jax.local_devices(backend='cpu')[0])
  program = jax.jit(lambda x: x).lower(on_cpu)
  try:
    program.compile(compiler_options={OPTION: value})
  except jax.errors.JaxRuntimeError:  # The option is unknown.
    return False
  return True
