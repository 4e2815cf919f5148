"""Refuses versions of cuBLAS that are known to compute wrong values.

  120800 to 130199 on compute capability 10.0 to 11.x (B200, B300, GB200, Thor):
  many kernels free Tensor Memory several times, and one that runs beside
  another kernel may corrupt data without an error. JAX only warns of it: its
  file jax_plugins/xla_cuda13/__init__.py, in the package jax-cuda13-pjrt of
  versions 0.10.2 and 0.12.0.1.

The number of a version is 10000 times the major version plus 100 times the
minor version plus the patch, as cublasGetVersion returns it.
"""

import contextlib
import importlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from cdm.data import shell_commands

FIRST_WRONG, FIRST_RIGHT = 120800, 130200
# JAX's own variable; it skips JAX's checks of these libraries.
SKIP = 'JAX_SKIP_CUDA_CONSTRAINTS_CHECK'
# In the order in which JAX looks for them.
_PACKAGES = ('jax_cuda13_plugin', 'jax_cuda12_plugin')


def wrong(
  devices: Iterable[Any], environment: Mapping[str, str] = os.environ
) -> str | None:
  """Returns why cuBLAS must not be used on these devices, or None.

  Args:
    devices: JAX's devices, of any kind.
    environment: environment variables, in which `SKIP` turns the check off.
  """
  of_concern = [each for each in devices if 100 <= _capability(each) < 120]
  if not of_concern or environment.get(SKIP):
    return None
  version = _version()
  if version is None or not FIRST_WRONG <= version < FIRST_RIGHT:
    return None
  shown = f'{version // 10000}.{version // 100 % 100}.{version % 100}'
  install = shell_commands.install(
    '--upgrade', '--constraint', 'constraints.txt', '.[cuda]'
  )
  return (
    f'cuBLAS {shown} silently corrupts data on {of_concern[0].device_kind} '
    '(it frees Tensor Memory several times; mended in 13.2). Install CUDA 13 '
    f'with cuBLAS 13.2 or newer: from a checkout, {install}; CUDA 12 has no '
    f'version without the fault. {SKIP}=1 takes the risk.'
  )


def _capability(device: Any) -> int:
  """Returns 90 for compute capability 9.0, and 0 for what is no NVIDIA GPU."""
  text = str(getattr(device, 'compute_capability', ''))
  major, _, minor = text.partition('.')
  if not (major.isdecimal() and minor.isdecimal()):
    return 0
  return 10 * int(major) + int(minor)


def _version() -> int | None:
  for package in _PACKAGES:
    with contextlib.suppress(ImportError):
      versions = importlib.import_module(f'{package}._versions')
      return int(versions.cublas_get_version())
  return None
