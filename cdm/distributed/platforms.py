"""Says in a sentence why the devices that were asked for cannot be used.

JAX_PLATFORMS names the kinds of devices that JAX may use. Where such a kind is
misspelt, or its package or hardware is missing, JAX raises an error without a
remedy, or fails an assertion.
"""

import difflib
import importlib.util
import os
import traceback

from cdm.data import shell_commands
from cdm.distributed import exit_codes

VARIABLE = 'JAX_PLATFORMS'
# The kinds of devices that JAX itself or a package on PyPI provides.
KNOWN = ('cpu', 'cuda', 'gpu', 'rocm', 'tpu', 'metal')


class NoDevice(RuntimeError):
  """The devices that were asked for cannot be used."""

  ending = exit_codes.BAD_INPUT


def require() -> None:
  """Raises NoDevice unless JAX finds the devices that it may use.

  Must be called after the processes of a run have joined.
  """
  import jax

  try:
    jax.devices()
  except Exception as error:
    if not concerns_devices(error):
      raise
    raise NoDevice(sentence(error)) from error


def explain(error: BaseException) -> BaseException:
  """Returns a NoDevice for an error about devices; else the error itself.

  For commands that call JAX without having called `require`.
  """
  return NoDevice(sentence(error)) if concerns_devices(error) else error


def concerns_devices(error: BaseException) -> bool:
  """Returns whether JAX raised the error while it looked for its devices."""
  frames = traceback.extract_tb(error.__traceback__)
  return any(
    frame.filename.endswith(os.path.join('jax', '_src', 'xla_bridge.py'))
    and frame.name == 'backends'
    for frame in frames
  )


def sentence(error: BaseException) -> str:
  """Returns what is wrong with JAX_PLATFORMS or the devices, and the remedy."""
  given = os.environ.get(VARIABLE, '')
  names = [name for name in given.lower().split(',') if name]
  for name in names:
    if name not in KNOWN and f"'{name}'" in str(error):
      near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.5)
      hint = f' Did you mean {near[0]}?' if near else ''
      return (
        f'{VARIABLE}={given}: JAX knows no devices of the kind {name!r}.{hint} '
        'Kinds are cpu, cuda and tpu; without the variable JAX chooses by '
        'itself.'
      )
  # JAX's words name the kind that failed, except in a failed assertion.
  kind = next((name for name in names if f"'{name}'" in str(error)), None)
  kind = kind or next((name for name in names if name != 'cpu'), 'cpu')
  where = f'{VARIABLE}={given}' if given else f'{VARIABLE} is not set'
  why = (str(error).splitlines() or [''])[0].partition(' (set JAX_')[0]
  why = why.removeprefix(f'Unable to initialize backend {kind!r}: ').rstrip('.')
  if kind in ('cuda', 'gpu') and not _installed(
    'jax_cuda12_plugin', 'jax_cuda13_plugin'
  ):
    return (
      f"{where}: JAX's package for NVIDIA GPUs is not installed. Install it: "
      f'{_install("cuda")}; or compute on the CPU with {VARIABLE}=cpu.'
    )
  if kind == 'tpu' and not _installed('libtpu'):
    return (
      f"{where}: JAX's package for TPUs (libtpu) is not installed. Install it: "
      f'{_install("tpu")}; or compute on the CPU with {VARIABLE}=cpu.'
    )
  nvidia = 'Look at `nvidia-smi` and CUDA_VISIBLE_DEVICES'
  look = {
    'cuda': nvidia,
    'gpu': nvidia,
    'tpu': 'See that this machine has a TPU and that no other process holds it',
  }.get(kind, 'Name another kind')
  because = f' ({why})' if why else ''
  return (
    f'{where}: no device of the kind {kind!r} can be used{because}. {look}; or '
    f'compute on the CPU with {VARIABLE}=cpu.'
  )


def _install(extra: str) -> str:
  command = shell_commands.install(
    '--constraint', 'constraints.txt', f'.[{extra}]'
  )
  return f'from a checkout, {command}'


def _installed(*names: str) -> bool:
  return any(importlib.util.find_spec(name) is not None for name in names)
