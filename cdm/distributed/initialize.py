"""Initializes `jax.distributed`, from the cluster's environment or from flags.

A run on several hosts is one program, started once on each host. In these
environments the processes are detected and find each other:

  Open MPI       mpirun, also within a job of SLURM
  SLURM          a step of several tasks (srun)
  TPU            a pod, or several of them; also on GKE

Elsewhere the user gives three flags, or sets three environment variables of the
same meaning. JAX and NumPy are imported inside the functions that use them, so
that a command which only parses its flags starts at once.
"""

import argparse
import glob
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from cdm.data.files import atomic_files
from cdm.distributed import (
  chip_flags,
  local_devices,
  open_mpi,
  peer_monitor,
  platforms,
  rendezvous,
  timeouts,
)
from cdm.distributed.exit_codes import ExitCode

FLAGS = ('coordinator_address', 'num_processes', 'process_id')
# The environment variables with the same meaning as the three flags, for
# launchers.
VARIABLES = (
  'CDM_COORDINATOR_ADDRESS',
  'CDM_NUM_PROCESSES',
  'CDM_PROCESS_ID',
)


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of a command that can run in several processes."""
  group = parser.add_argument_group(
    'several processes',
    'Detected on TPU pods, in SLURM steps and under Open MPI.\n'
    'Elsewhere give all three, or set '
    + ',\n'.join([', '.join(VARIABLES[:2]), VARIABLES[2]])
    + '.',
  )
  group.add_argument(
    '--coordinator_address', metavar='HOST:PORT', help='address of process 0'
  )
  group.add_argument(
    '--num_processes', type=int, metavar='P', help='number of processes'
  )
  group.add_argument(
    '--process_id',
    type=int,
    metavar='I',
    help='index of this process, 0 to P - 1',
  )


def join(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  environment: Mapping[str, str] | None = None,
  stopped: Callable[[], ExitCode | None] | None = None,
) -> str | None:
  """Connects this process with the others of its run, and finds its devices.

  Must be called before JAX is used. The flags come first, then `VARIABLES`,
  then what `detect` finds. Also sets the compiler's flags for the chip at hand,
  see `chip_flags`, starts the `peer_monitor`, and silences the standard output
  of every process but process 0.

  Args:
    coordinator_address: HOST:PORT of process 0, or None to detect it.
    num_processes: number of processes of the run, or None to detect it.
    process_id: index of this process, or None to detect it.
    environment: environment variables; os.environ by default.
    stopped: returns the exit code that a signal asked for, or None. A command
      that gives it handles SIGTERM together with JAX; in every other command
      SIGTERM ends the process, as it does in a run of one process.

  Returns:
    Where the settings came from: 'flags' (or `VARIABLES`), 'slurm', 'mpi' or
    'tpu'; 'before' if the processes are connected already; None for a run of
    one process.

  Raises:
    ValueError: if some of the three settings are given without the others, or
      they are impossible.
    rendezvous.PeersNotFound: if the processes did not find each other.
    rendezvous.StoppedWaiting: if `stopped` returned an exit code first.
    platforms.NoDevice: if JAX_PLATFORMS asks for devices that JAX cannot use.
  """
  import jax

  if jax.distributed.is_initialized():
    return 'before'
  line = chip_flags.apply()
  environment = os.environ if environment is None else environment
  cluster = _join(
    (coordinator_address, num_processes, process_id), environment, stopped
  )
  platforms.require()
  if line is not None and jax.process_index() == 0:
    print(line, file=sys.stderr, flush=True)
  if cluster is not None:
    atomic_files.set_process_index(jax.process_index())
    peer_monitor.start()
    if jax.process_index():
      # Process 0 prints for all.
      sys.stdout = open(os.devnull, 'w', encoding='utf-8')
  return cluster


def _join(
  settings: tuple[str | None, int | None, int | None],
  environment: Mapping[str, str],
  stopped: Callable[[], ExitCode | None] | None,
) -> str | None:
  if all(value is None for value in settings):
    settings = _from_variables(environment)
  if any(value is not None for value in settings):
    check(*settings)
    if settings[1] == 1:
      return None
    _initialize(*settings, environment=environment, stopped=stopped)
    return 'flags'
  cluster = detect(environment)
  if cluster == 'mpi' and open_mpi.is_launcher(environment):
    found = open_mpi.settings(environment)
    _initialize(*found, environment=environment, stopped=stopped)
  elif cluster is not None:
    _initialize(environment=environment, stopped=stopped)
  return cluster


def check(
  coordinator_address: str | None,
  num_processes: int | None,
  process_id: int | None,
) -> None:
  """Raises ValueError unless all three are given and fit each other."""
  given = (coordinator_address, num_processes, process_id)
  lacking = [f'--{f}' for f, v in zip(FLAGS, given, strict=True) if v is None]
  if lacking:
    raise ValueError(
      f'{" and ".join(lacking)} missing: give '
      f'{", ".join(f"--{flag}" for flag in FLAGS)} together, or none of them.'
    )
  assert coordinator_address is not None
  assert num_processes is not None and process_id is not None
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


def detect(environment: Mapping[str, str]) -> str | None:
  """Returns the kind of cluster that this process was started by.

  Args:
    environment: environment variables, such as os.environ.

  Returns:
    'slurm', 'mpi' or 'tpu'; None if there is no sign of other processes.
  """

  def number(name: str) -> int:
    value = environment.get(name, '')
    return int(value) if value.isdecimal() else 0

  # Before SLURM, as in JAX: in a job of SLURM, mpirun starts its daemons with
  # srun, and its processes inherit the variables of that step.
  if number(open_mpi.SIZE) > 1 or open_mpi.is_launcher(environment):
    return 'mpi'
  # The number of tasks of the step counts, not that of the job: the batch
  # script of a job of many tasks runs as a single process.
  if 'SLURM_JOB_ID' in environment and number('SLURM_STEP_NUM_TASKS') > 1:
    return 'slurm'
  platforms = environment.get('JAX_PLATFORMS', 'tpu')
  if 'tpu' not in platforms or environment.get('TPU_SKIP_MDS_QUERY'):
    return None
  hosts = environment.get('TPU_WORKER_HOSTNAMES', '')
  if ',' in hosts or 'MEGASCALE_COORDINATOR_ADDRESS' in environment:
    return 'tpu'
  # A plain TPU host sets neither variable; its metadata tells JAX about the
  # other processes.
  return 'tpu' if _has_tpu() and not hosts else None


def _has_tpu() -> bool:
  if not glob.glob('/dev/accel*') and not glob.glob('/dev/vfio/[0-9]*'):
    return False
  import importlib.util

  return importlib.util.find_spec('libtpu') is not None


def _from_variables(
  environment: Mapping[str, str],
) -> tuple[Any, ...]:
  values = [environment.get(name) for name in VARIABLES]
  for name, value in zip(VARIABLES[1:], values[1:], strict=True):
    if value is not None and not value.isdecimal():
      raise ValueError(f'{name} is {value!r}; it must be a whole number.')
  address, *counts = values
  return (address, *(None if v is None else int(v) for v in counts))


def _initialize(
  address: str | None = None,
  count: int | None = None,
  index: int | None = None,
  *,
  environment: Mapping[str, str],
  stopped: Callable[[], ExitCode | None] | None,
) -> None:
  """Runs `jax.distributed.initialize` under guard; for errors see `join`."""
  import jax

  # There is no public name for what JAX has detected.
  from jax._src import distributed

  timeouts.check(environment)
  seconds = rendezvous.patience(environment, count)
  heartbeat = timeouts.seconds(
    timeouts.HEARTBEAT, processes=1, environment=environment
  )
  devices = local_devices.local_device_ids(environment)
  before = signal.getsignal(signal.SIGTERM)

  def connect() -> None:
    jax.distributed.initialize(
      coordinator_address=address,
      num_processes=count,
      process_id=index,
      local_device_ids=devices,
      initialization_timeout=int(seconds + rendezvous.JAX_MARGIN_S),
      heartbeat_timeout_seconds=int(heartbeat + peer_monitor.JAX_MARGIN_S),
    )

  try:
    with rendezvous.without_proxies():
      rendezvous.wait(
        connect,
        seconds=seconds,
        address=lambda: address or distributed.global_state.coordinator_address,
        index=lambda: (
          distributed.global_state.process_id if index is None else index
        ),
        stopped=stopped,
      )
  except RuntimeError as error:
    raise rendezvous.PeersNotFound(_in_words(error, address)) from error
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      'JAX cannot tell from the environment how the processes of this run find '
      f'each other ({error}). Give --coordinator_address, --num_processes and '
      '--process_id.'
    ) from error
  main = threading.current_thread() is threading.main_thread()
  if stopped is None and main:
    # JAX has taken SIGTERM over, to tell the others of it at the next step.
    # This command makes no steps, so nobody would ever heed the signal.
    signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def share_sigterm() -> None:
  """Lets JAX take SIGTERM over again, to tell the other processes of it.

  For a command that makes steps in a part of its time only, which `join` has
  therefore given SIGTERM back to. Every process must call it, before the steps.
  Setting any handler of SIGTERM afterwards gives the signal back once more.
  """
  import jax

  # There is no public name for what hears the signal.
  from jax._src import distributed

  if jax.process_count() == 1:
    return
  state = distributed.global_state
  if state.preemption_sync_manager is not None:
    state.preemption_sync_manager.shutdown()
    state.preemption_sync_manager = None
  state.initialize_preemption_sync_manager()


def _in_words(error: RuntimeError, address: str | None) -> str:
  text = str(error).splitlines()[0]
  if 'RPC server' not in text:
    return f'{text}.'
  at = address or 'the address of process 0'
  return (
    f'Process 0 cannot listen at {at}, whose port another program holds or '
    'this user may not open. Choose another port, the same in all processes.'
  )
