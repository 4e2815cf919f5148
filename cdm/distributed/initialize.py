"""Joins the processes of a run: finds the others, or is told of them.

A run on several hosts is one program, started once on each. Where it can be
seen from the surroundings how many there are, they find each other:

  SLURM          a step of several tasks (srun)
  Open MPI       mpirun
  TPU            a pod, or several of them; also on GKE

Elsewhere three flags say it, or the variables of the same meaning. JAX and
NumPy are imported where they are used: the flags alone must cost nothing.
"""

import glob
import os
import re
import sys

from cdm.distributed import exit_codes, peer_monitor

FLAGS = ('coordinator_address', 'num_processes', 'process_id')
# The same three, for launchers that set variables rather than flags.
VARIABLES = (
  'CDM_COORDINATOR_ADDRESS',
  'CDM_NUM_PROCESSES',
  'CDM_PROCESS_ID',
)


class PeersNotFound(OSError):
  """The processes of a run did not find each other."""

  ending = exit_codes.LOST_PEERS  # another start may find them


def arguments(parser):
  """Adds the flags of a command that can run in several processes."""
  group = parser.add_argument_group(
    'several processes',
    'Found by themselves on TPU pods, in SLURM steps and under Open MPI.\n'
    'Elsewhere give all three, or set '
    + ',\n'.join([', '.join(VARIABLES[:2]), VARIABLES[2]])
    + '.',
  )
  group.add_argument(
    '--coordinator_address', metavar='HOST:PORT', help='of process 0'
  )
  group.add_argument(
    '--num_processes', type=int, metavar='P', help='how many there are'
  )
  group.add_argument(
    '--process_id', type=int, metavar='I', help='of this one, 0 to P - 1'
  )


def join(
  coordinator_address=None,
  num_processes=None,
  process_id=None,
  *,
  environment=None,
):
  """Makes this process part of its run; to be called before JAX is used.

  Args:
    coordinator_address: HOST:PORT of process 0, or None to find out.
    num_processes: how many there are, or None.
    process_id: number of this one, or None.
    environment: instead of os.environ.

  Returns:
    What was found: 'flags', 'slurm', 'mpi', 'tpu', 'before' if it has been
    called already, or None for a run of one process.

  Raises:
    ValueError: some of the three without the others, or impossible ones.
    Apart: the processes did not find each other.
  """
  import jax

  if jax.distributed.is_initialized():
    return 'before'
  environment = os.environ if environment is None else environment
  given = (coordinator_address, num_processes, process_id)
  if all(value is None for value in given):
    given = _from_variables(environment)
  if any(value is not None for value in given):
    check(*given)
    if given[1] == 1:
      return None
    _initialize(*given)
    return 'flags'
  found = detect(environment)
  if found is not None:
    _initialize()
  return found


def check(coordinator_address, num_processes, process_id):
  """Raises ValueError unless the three belong together."""
  given = (coordinator_address, num_processes, process_id)
  lacking = [f'--{f}' for f, v in zip(FLAGS, given, strict=True) if v is None]
  if lacking:
    raise ValueError(
      f'{" and ".join(lacking)} missing: a process needs '
      f'{", ".join(f"--{flag}" for flag in FLAGS)} together, or none of them.'
    )
  if not re.fullmatch(r'.+:\d+', coordinator_address):
    raise ValueError(
      f'--coordinator_address={coordinator_address}: expected HOST:PORT of '
      'process 0, e.g. 10.0.0.1:8476.'
    )
  if num_processes < 1 or not 0 <= process_id < num_processes:
    raise ValueError(
      f'--process_id={process_id} of --num_processes={num_processes}: '
      'processes are numbered 0 to P - 1.'
    )


def detect(environment):
  """-> 'slurm', 'mpi', 'tpu', or None where nothing tells of other processes.

  Args:
    environment: mapping as os.environ.
  """

  def number(name):
    value = environment.get(name, '')
    return int(value) if value.isdecimal() else 0

  # Of the step, not of the job: the batch script of a job of many tasks is
  # one process by itself.
  if 'SLURM_JOB_ID' in environment and number('SLURM_STEP_NUM_TASKS') > 1:
    return 'slurm'
  if number('OMPI_COMM_WORLD_SIZE') > 1:
    return 'mpi'
  platforms = environment.get('JAX_PLATFORMS', 'tpu')
  if 'tpu' not in platforms or environment.get('TPU_SKIP_MDS_QUERY'):
    return None
  hosts = environment.get('TPU_WORKER_HOSTNAMES', '')
  if ',' in hosts or 'MEGASCALE_COORDINATOR_ADDRESS' in environment:
    return 'tpu'
  # On a TPU host of its own these are not set; its metadata tells the rest.
  return 'tpu' if _has_tpu() and not hosts else None


def _has_tpu():
  if not glob.glob('/dev/accel*') and not glob.glob('/dev/vfio/[0-9]*'):
    return False
  import importlib.util

  return importlib.util.find_spec('libtpu') is not None


def _from_variables(environment):
  values = [environment.get(name) for name in VARIABLES]
  for name, value in zip(VARIABLES[1:], values[1:], strict=True):
    if value is not None and not value.isdecimal():
      raise ValueError(f'{name} is {value!r}; it is a whole number.')
  address, *counts = values
  return (address, *(None if v is None else int(v) for v in counts))


def _initialize(address=None, count=None, index=None):
  import jax

  try:
    jax.distributed.initialize(
      coordinator_address=address, num_processes=count, process_id=index
    )
  except RuntimeError as error:
    raise PeersNotFound(
      'The processes of this run did not find each other: '
      f'{str(error).splitlines()[0]}. Start one on every host within five '
      'minutes, and let the coordinator be reached from all of them.'
    ) from error
  peer_monitor.start()
  if jax.process_index():
    sys.stdout = open(os.devnull, 'w')  # the first one talks for all
