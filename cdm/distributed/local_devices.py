"""Chooses which GPUs of its machine a process of a run drives.

JAX gives the i-th process of a machine the i-th GPU as soon as it sees SLURM or
Open MPI. That is wrong where one process drives a whole machine, and where the
launcher shows each process its own GPU alone, which then has number 0. TPUs are
shared out by their own runtime.
"""

import glob
import re
from collections.abc import Mapping
from typing import NamedTuple

from cdm.distributed import open_mpi

VARIABLE = 'JAX_LOCAL_DEVICE_IDS'


class Share(NamedTuple):
  """This process among those of the run on its machine."""

  index: int
  count: int


def local_device_ids(
  environment: Mapping[str, str], *, gpus: int | None = None
) -> list[int]:
  """Returns the numbers of the GPUs that this process drives.

  Args:
    environment: environment variables, such as os.environ.
    gpus: number of GPUs in this machine; by default they are counted.

  Returns:
    Numbers among the GPUs that this process sees, for
    `jax.distributed.initialize`; [] for all devices that it sees, of any kind.

  Raises:
    ValueError: this machine has fewer GPUs than processes, or the user's own
      numbers are not numbers.
  """
  if environment.get(VARIABLE):
    return _given(environment[VARIABLE])
  if environment.get('JAX_PLATFORMS') in ('cpu', 'tpu'):
    return []
  gpus = _count_gpus() if gpus is None else gpus
  share, visible = _share(environment), _visible(environment, gpus)
  on_node = environment.get('SLURM_GPUS_ON_NODE', '')
  total = max(gpus, int(on_node) if on_node.isdecimal() else 0)
  # A process alone on its machine takes everything. So does one whose launcher
  # shows it a part of the GPUs, of which the others see other parts.
  if share.count == 1 or visible == 1 or 0 < visible * share.count <= total:
    return list(range(visible))
  if visible == 0:
    return []
  each = visible // share.count
  if not each:
    raise ValueError(
      f'{share.count} processes of this run are on a machine with {visible} '
      'GPUs. Start at most one process per GPU, or one for all of them.'
    )
  return list(range(share.index * each, (share.index + 1) * each))


def _given(text: str) -> list[int]:
  if not re.fullmatch(r'\d+(,\d+)*', text):
    raise ValueError(
      f'{VARIABLE} is {text!r}; it lists numbers of devices, e.g. 0,1.'
    )
  return [int(number) for number in text.split(',')]


def _share(environment: Mapping[str, str]) -> Share:
  """Returns what Open MPI or SLURM say; otherwise (0, 1)."""

  def number(name: str, otherwise: int) -> int:
    value = environment.get(name, '')
    return int(value) if value.isdecimal() else otherwise

  # Open MPI comes first, see `initialize.detect`.
  if number(open_mpi.SIZE, 1) == 1 and number('SLURM_STEP_NUM_TASKS', 1) > 1:
    text = environment.get('SLURM_STEP_TASKS_PER_NODE', '')
    counts = tasks_per_node(text)
    node = number('SLURM_NODEID', 0)
    count = counts[node] if node < len(counts) else 1
    return Share(number('SLURM_LOCALID', 0), count)
  return Share(
    number('OMPI_COMM_WORLD_LOCAL_RANK', 0),
    number('OMPI_COMM_WORLD_LOCAL_SIZE', 1),
  )


def tasks_per_node(text: str) -> list[int]:
  """Reads SLURM's list of the tasks of each node: '8(x2),4' is [8, 8, 4]."""
  counts = []
  for count, times in re.findall(r'(\d+)(?:\(x(\d+)\))?', text):
    counts += [int(count)] * int(times or 1)
  return counts


def _visible(environment: Mapping[str, str], gpus: int) -> int:
  """Returns how many GPUs CUDA shows this process."""
  chosen = environment.get('CUDA_VISIBLE_DEVICES')
  if chosen is None:
    return gpus
  names = [name.strip() for name in chosen.split(',')]
  # CUDA ignores everything from the first name that is none.
  known = [bool(re.match(r'\d+$|GPU-|MIG-', name)) for name in names]
  return [*known, False].index(False)


def _count_gpus() -> int:
  return len(glob.glob('/dev/nvidia[0-9]*'))
