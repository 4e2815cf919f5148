"""Sets compiler flags that suit the chip at hand, before JAX starts.

XLA's defaults are not those that its large users train with. This table holds,
for each kind of chip, flags of published recipes:

  [maxtext-gpu]  AI-Hypercomputer/maxtext, MaxText/configs/a3_plus/llama_2/7b/
                 16vm.sh at commit 5adac39: 16 machines of 8 H100, layers not
                 scanned (as in a U-Net), parameters split within a machine.
  [toolbox]      NVIDIA/JAX-Toolbox at commit 0f87cf9, its pages 'Environment
                 Variables', with the flag that NVIDIA's own image sets, and
                 'Tips for High-Performance LLMs with JAX and XLA', the section
                 on Blackwell.
  [maxtext-tpu]  AI-Hypercomputer/maxtext, MaxText/configs/v5e/16b.sh at commit
                 0777510.
  [sdxl]         AI-Hypercomputer/tpu-recipes, training/v5p/SDXL-MaxDiffusion/
                 cluster_toolkit/run_recipe.sh at commit 04c0228: the training
                 of a diffusion U-Net.
  [sdxl-v6e]     The same recipes, inference/trillium/MaxDiffusion/SDXL/
                 README.md, as in the fork sivanishwanthm/tpu-recipes: samples
                 of that network on v6e.

A flag of the user's own, in XLA_FLAGS or LIBTPU_INIT_ARGS, stays as it is. XLA
ends a process that gives it an unknown flag, so the table holds only what
`TRIED` versions of jaxlib (and the libtpu that JAX asks for) accept, and other
versions get none. CDM_CHIP_FLAGS=0 switches all of this off.

Left out of the recipes: what XLA has meanwhile made its default or removed
(asynchronous all-gather on GPUs), what rules out memory savings (that no pass
may recompute values), and what a program without loops or attention does not
use. None of the flags was measured on a chip by this project.
"""

import importlib.metadata
import os
import pathlib
import re
import subprocess
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

SWITCH = 'CDM_CHIP_FLAGS'
# First and last minor version of jaxlib whose XLA accepts every flag below.
TRIED = ((0, 10), (0, 12))
GPU, TPU = 'XLA_FLAGS', 'LIBTPU_INIT_ARGS'

_HIDE_LATENCY = {'xla_gpu_enable_latency_hiding_scheduler': 'true'}  # [toolbox]
# Bytes of gradients or parameters that one collective takes; XLA's default is
# 30 MiB. [maxtext-gpu]
_COMBINE = {
  'xla_gpu_all_reduce_combine_threshold_bytes': '134217728',
  'xla_gpu_all_gather_combine_threshold_bytes': '134217728',
  'xla_gpu_reduce_scatter_combine_threshold_bytes': '67108864',
}
_NVIDIA = _HIDE_LATENCY | _COMBINE
# CUDA graphs of fusions and custom calls only. [toolbox]
_BLACKWELL = {'xla_gpu_enable_command_buffer': 'FUSION,CUSTOM_CALL'}
# Gradients of data parallelism, and asynchronous all-gathers. [maxtext-tpu] and
# [sdxl]
_OVERLAP = {
  'xla_tpu_enable_data_parallel_all_reduce_opt': 'true',
  'xla_tpu_data_parallel_opt_different_sized_ops': 'true',
  'xla_enable_async_all_gather': 'true',
}
# Computation within collectives. [maxtext-tpu] The recipes set it for other
# chips too, but libtpu 0.0.50.1 refuses it there: it 'might lead to [...]
# incorrect results'.
_FUSED_COLLECTIVES = {
  'xla_tpu_enable_async_collective_fusion': 'true',
  'xla_tpu_enable_async_collective_fusion_fuse_all_gather': 'true',
  'xla_tpu_enable_async_collective_fusion_multiple_steps': 'true',
  'xla_tpu_overlap_compute_collective_tc': 'true',
}
# [sdxl]: for chips whose two cores work as one.
_MEGACORE = {
  'xla_tpu_megacore_fusion_allow_ags': 'false',
  'xla_enable_async_collective_permute': 'true',
  'xla_tpu_enable_ag_backward_pipelining': 'true',
}
# Fast memory that one operation may take; libtpu's default is less. [sdxl-v6e]
_VMEM = {'xla_tpu_scoped_vmem_limit_kib': '65536'}


class Flags(NamedTuple):
  """The flags of a kind of chip.

  Attributes:
    variable: environment variable that takes them, `GPU` or `TPU`.
    values: {name of the flag: its value}.
  """

  variable: str
  values: Mapping[str, str]


# {a name of `chip_at_hand`: its flags}. TPUs before v4 and GPUs before the A100
# have no recipe.
FLAGS = {
  'A100': Flags(GPU, _NVIDIA),
  'H100': Flags(GPU, _NVIDIA),
  'H200': Flags(GPU, _NVIDIA),
  'B200': Flags(GPU, _NVIDIA | _BLACKWELL),
  'NVIDIA GPU': Flags(GPU, _HIDE_LATENCY),
  'TPU v4': Flags(TPU, _OVERLAP | _MEGACORE),
  'TPU v5e': Flags(TPU, _OVERLAP | _FUSED_COLLECTIVES),
  'TPU v5p': Flags(TPU, _OVERLAP | _MEGACORE),
  'TPU v6e': Flags(TPU, _OVERLAP | _VMEM),
}


def apply(environment: MutableMapping[str, str] = os.environ) -> str | None:
  """Sets the flags of the chip at hand, where the user has not set them.

  Must be called before JAX has started a backend.

  Args:
    environment: environment variables, changed in place.

  Returns:
    One line that says what was set, or why nothing was; None if there is no
    chip with flags.

  Raises:
    ValueError: `SWITCH` is neither 0 nor 1.
  """
  switch = environment.get(SWITCH, '1')
  if switch not in ('0', '1'):
    raise ValueError(
      f'{SWITCH} is {switch!r}; 0 leaves the compiler flags as they are, and 1 '
      'sets those of the chip.'
    )
  if switch == '0':
    return None
  chip = chip_at_hand(environment)
  if chip not in FLAGS:
    return None
  version = importlib.metadata.version('jaxlib')
  minor = tuple(int(part) for part in version.split('.')[:2])
  if not TRIED[0] <= minor <= TRIED[1]:
    return (
      f'compiler flags: none for {chip}, because jaxlib {version} is not among '
      'the versions that they were tried with'
    )
  variable, values = FLAGS[chip]
  given = environment.get(variable, '')
  own = set(re.findall(r'--(\w+)', given))
  added = [f'--{k}={v}' for k, v in values.items() if k not in own]
  if not added:
    return None
  environment[variable] = ' '.join([given, *added]).strip()
  return (
    f'compiler flags of {chip}, added to {variable} ({SWITCH}=0 leaves them '
    f'out): {" ".join(added)}'
  )


def chip_at_hand(environment: Mapping[str, str]) -> str | None:
  """Returns the kind of chip that JAX will compute on, as `FLAGS` names it.

  Nothing is asked but this machine, and JAX is not started.

  Args:
    environment: environment variables, such as os.environ.

  Returns:
    The name of a TPU or GPU; None for CPUs and for what is not known.
  """
  asked = environment.get('JAX_PLATFORMS', '').lower().split(',')[0]
  if asked in ('', 'tpu'):
    chip = _tpu(environment)
    if chip is not None:
      return chip
  if asked in ('', 'cuda', 'gpu'):
    return _nvidia_gpu()
  return None


# {PCI device of Google: TPU}, as jax/_src/hardware_utils.py of JAX 0.10.2 has
# them.
_PCI = {
  '0x005e': 'TPU v4',
  '0x0062': 'TPU v5p',
  '0x0063': 'TPU v5e',
  '0x006f': 'TPU v6e',
}
_GOOGLE = '0x1ae0'
# {what TPU_ACCELERATOR_TYPE begins with: TPU}; a TPU VM and GKE set it.
_TYPES = {
  'v4': 'TPU v4',
  'v5litepod': 'TPU v5e',
  'v5p': 'TPU v5p',
  'v6e': 'TPU v6e',
}
_SYSTEM = pathlib.Path('/')


def _tpu(environment: Mapping[str, str]) -> str | None:
  for vendor in _SYSTEM.glob('sys/bus/pci/devices/*/vendor'):
    if _text(vendor) == _GOOGLE:
      chip = _PCI.get(_text(vendor.with_name('device')))
      if chip is not None:
        return chip
  kind = environment.get('TPU_ACCELERATOR_TYPE', '').partition('-')[0]
  return _TYPES.get(kind)


def _nvidia_gpu() -> str | None:
  """Returns the kind of the first GPU, from the files of its driver."""
  names = [
    _text(path)
    for path in sorted(_SYSTEM.glob('proc/driver/nvidia/gpus/*/information'))
  ]
  if not names and any(_SYSTEM.glob('dev/nvidia[0-9]*')):
    names = [_asked_of_nvidia_smi()]
  if not names:
    return None
  found = re.search(r'(A100|H100|H200|B200)(?!\d)', names[0])
  return found[1] if found else 'NVIDIA GPU'


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text(encoding='utf-8', errors='replace').strip()
  except OSError:
    return ''


def _asked_of_nvidia_smi() -> str:
  """Returns the names of the GPUs, or '' where the program does not tell."""
  command = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
  try:
    done = subprocess.run(
      command,
      capture_output=True,
      text=True,
      timeout=20,
      encoding='utf-8',
      check=False,
    )
  except (OSError, subprocess.TimeoutExpired):
    return ''
  return done.stdout
