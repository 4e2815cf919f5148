"""Makes sure that a command computes on the devices that it was started for.

JAX_PLATFORMS names the kinds of devices that JAX may use, the first of them by
default; `mesh.device` of a config names a kind too. Where such a kind is
misspelt, or its package, driver or hardware is missing, JAX raises an error
without a remedy, fails an assertion, or goes on with CPUs: a run would then
train there for years. Here each of these becomes one sentence.
"""

import difflib
import glob
import importlib.util
import os
import traceback

from cdm.data import shell_commands
from cdm.distributed import cublas, exit_codes, plugin_messages

VARIABLE = 'JAX_PLATFORMS'
# {a kind of devices that JAX itself or a package on PyPI provides: the name
# that such devices have in JAX}.
KNOWN = {
  'cpu': 'cpu',
  'cuda': 'gpu',
  'gpu': 'gpu',
  'rocm': 'gpu',
  'tpu': 'tpu',
  'metal': 'METAL',
}
# What `mesh.device` may be; '' leaves the choice to JAX.
DEVICES = ('', 'gpu', 'tpu', 'cpu')
# Where GKE and Vertex AI mount the libraries of NVIDIA's driver. Their own
# images have the folder in LD_LIBRARY_PATH; other images must name it.
DRIVER_LIBRARIES = '/usr/local/nvidia/lib64'
# JAX looks for these files before it starts the CUDA backend.
_NVIDIA_FILES = ('/dev/nvidia0', '/dev/nvidiactl', '/dev/dxg')


class NoDevice(RuntimeError):
  """The devices that were asked for cannot be used."""

  ending = exit_codes.BAD_INPUT


def require() -> None:
  """Raises NoDevice unless JAX finds the devices that JAX_PLATFORMS names.

  Without the variable, it raises NoDevice if this machine has NVIDIA GPUs and
  their plugin failed. It also refuses a library that computes wrong values on
  the devices. Must be called after the processes of a run have joined.
  """
  import jax

  with plugin_messages.held():
    try:
      found = jax.devices()[0].platform
    except Exception as error:
      if not concerns_devices(error):
        raise
      raise NoDevice(sentence(error)) from error
    names = _names()
    failed = '' if names else plugin_messages.errors()
    if failed and found == 'cpu' and _has_nvidia_gpu():
      raise NoDevice(
        f'This machine has NVIDIA GPUs that JAX cannot use ({failed}). '
        f'{_remedy("cuda")}; or compute on the CPU with {VARIABLE}=cpu.'
      )
    if names and KNOWN.get(names[0], found) != found:
      raise NoDevice(_missing(f'{VARIABLE}={os.environ[VARIABLE]}', names[0]))
  wrong = cublas.wrong(jax.local_devices()) if found == 'gpu' else None
  if wrong:
    raise NoDevice(wrong)


def require_kind(kind: str) -> None:
  """Raises NoDevice unless JAX computes on devices of a kind.

  Args:
    kind: one of `DEVICES`, the value of `mesh.device`.

  Raises:
    NoDevice: JAX computes on devices of another kind.
  """
  import jax

  found = jax.devices()[0].platform
  if kind in ('', found):
    return
  where = f'config.mesh.device is {kind!r}'
  given = os.environ.get(VARIABLE, '')
  if kind == 'cpu' or given:
    was = f'{VARIABLE}={given}' if given else f'{VARIABLE} is not set'
    name = {'gpu': 'cuda'}.get(kind, kind)
    raise NoDevice(
      f'{where}, but JAX computes on a {found} ({was}). Set {VARIABLE}={name}, '
      f'or --config.mesh.device={found if found in DEVICES else ""}.'
    )
  raise NoDevice(_missing(where, {'gpu': 'cuda'}.get(kind, kind)))


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
  names = _names()
  for name in names:
    if name not in KNOWN and f"'{name}'" in str(error):
      near = difflib.get_close_matches(name, list(KNOWN), n=1, cutoff=0.5)
      hint = f' Did you mean {near[0]}?' if near else ''
      return (
        f'{VARIABLE}={given}: JAX knows no devices of the kind {name!r}.{hint} '
        'Kinds are cpu, cuda and tpu; without the variable JAX chooses by '
        'itself.'
      )
  where = f'{VARIABLE}={given}' if given else f'{VARIABLE} is not set'
  if 'gpu' in names and _is_of_another_maker(error):
    return (
      f"{where}: with 'gpu', JAX asks for the GPUs of every maker at once. "
      f'Name one kind: {VARIABLE}={given.replace("gpu", "cuda")}.'
    )
  # JAX's words name the kind that failed, except in a failed assertion.
  kind = next((name for name in names if f"'{name}'" in str(error)), None)
  kind = kind or next((name for name in names if name != 'cpu'), 'cpu')
  why = (str(error).splitlines() or [''])[0].partition(' (set JAX_')[0]
  why = why.removeprefix(f'Unable to initialize backend {kind!r}: ').rstrip('.')
  return _missing(where, kind, why)


def _is_of_another_maker(error: BaseException) -> bool:
  """Returns whether JAX found one kind of GPUs and failed at the next one."""
  text = str(error)
  return any(f"'{name}' is not in the list" in text for name in ('rocm',))


def _missing(where: str, kind: str, why: str = '') -> str:
  """Returns that no device of a kind can be used, why, and the remedy.

  Args:
    where: what asked for the kind.
    kind: a key of `KNOWN`.
    why: what JAX raised, if it did.
  """
  failed = '' if kind == 'tpu' else plugin_messages.errors()
  if not failed and kind in ('cuda', 'gpu') and not _has_cuda_package():
    return (
      f"{where}: JAX's package for NVIDIA GPUs is not installed. Install it: "
      f'{_install("cuda")}; or compute on the CPU with {VARIABLE}=cpu.'
    )
  if kind == 'tpu' and not _installed('libtpu'):
    return (
      f"{where}: JAX's package for TPUs (libtpu) is not installed. Install it: "
      f'{_install("tpu")}; or compute on the CPU with {VARIABLE}=cpu.'
    )
  why = failed or why or plugin_messages.backend_error(kind)
  if not why and kind in ('cuda', 'gpu') and not _has_nvidia_gpu():
    why = f'there is no {_NVIDIA_FILES[0]}'
  because = f' ({why})' if why else ''
  return (
    f'{where}: no device of the kind {kind!r} can be used{because}. '
    f'{_remedy(kind)}; or compute on the CPU with {VARIABLE}=cpu.'
  )


def _remedy(kind: str) -> str:
  if kind == 'tpu':
    return 'See that this machine has a TPU and that no other process holds it'
  if kind not in ('cuda', 'gpu'):
    return 'Name another kind'
  folders = os.environ.get('LD_LIBRARY_PATH', '').split(':')
  if os.path.isdir(DRIVER_LIBRARIES) and DRIVER_LIBRARIES not in folders:
    return (
      f'Set LD_LIBRARY_PATH={DRIVER_LIBRARIES}, where this machine has the '
      'libraries of its driver'
    )
  return (
    'Look at `nvidia-smi`, at CUDA_VISIBLE_DEVICES, and whether '
    "LD_LIBRARY_PATH names the folder of the driver's libraries (on GKE and "
    f'Vertex AI {DRIVER_LIBRARIES}). If JAX found wrong versions, install its '
    f'package anew: {_install("cuda")} (a driver before 580 needs cuda12)'
  )


def _names() -> list[str]:
  """Returns the kinds that JAX_PLATFORMS names, in their order."""
  given = os.environ.get(VARIABLE, '')
  return [name for name in given.lower().split(',') if name]


def _has_nvidia_gpu() -> bool:
  return any(glob.glob(path) for path in _NVIDIA_FILES)


def _has_cuda_package() -> bool:
  return _installed('jax_cuda12_plugin', 'jax_cuda13_plugin')


def _install(extra: str) -> str:
  command = shell_commands.install(
    '--constraint', 'constraints.txt', f'.[{extra}]'
  )
  return f'from a checkout, {command}'


def _installed(*names: str) -> bool:
  return any(importlib.util.find_spec(name) is not None for name in names)
