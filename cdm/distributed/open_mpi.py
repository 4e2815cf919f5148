"""Finds the other processes of a run that Open MPI 5 or PRRTE has started.

Open MPI 4 gives its processes the address of mpirun, from which JAX makes that
of process 0. Open MPI 5 starts its processes through PRRTE, which gives them no
address that another machine could use (github.com/jax-ml/jax, issue 14576; JAX
0.12 asks mpi4py for it, pull request 40512). These variables remain, as Open
MPI 5.0.11 sets them:

  OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_SIZE   by mpirun, but not by prterun
  PMIX_RANK, PMIX_HOSTNAME                   by both
  PMIX_NAMESPACE                             prterun-HOST-PID@JOB, by both; HOST
                                             is the machine that mpirun runs on
  PRTE_LAUNCHED                              by both
"""

import re
import socket
import zlib
from collections.abc import Mapping
from typing import NamedTuple

SIZE = 'OMPI_COMM_WORLD_SIZE'
# Open MPI 4 sets it; JAX reads the address of process 0 from it.
ADDRESS_OF_4 = 'OMPI_MCA_orte_hnp_uri'
# JAX takes ports from the same range, for Open MPI 4 and for SLURM.
_FIRST_PORT, _PORTS = 61440, 4096


class Settings(NamedTuple):
  """What `jax.distributed.initialize` needs to know.

  Attributes:
    address: HOST:PORT of process 0.
    count: number of processes of the run.
    index: index of this process.
  """

  address: str
  count: int
  index: int


def is_launcher(environment: Mapping[str, str]) -> bool:
  """Returns whether Open MPI 5 or PRRTE started this process among others.

  Args:
    environment: environment variables, such as os.environ.
  """
  if SIZE in environment:
    several = _number(environment, SIZE) > 1
    return several and ADDRESS_OF_4 not in environment
  return 'PRTE_LAUNCHED' in environment


def settings(environment: Mapping[str, str]) -> Settings:
  """Returns where the processes find each other, and which one this is.

  Process 0 listens on the machine that mpirun runs on, if it runs there too.
  JAX_COORDINATOR_PORT chooses its port, as with other launchers.

  Args:
    environment: variables of a process for which `is_launcher` is true.

  Raises:
    ValueError: the variables do not tell; the message says what to give.
  """
  count = _number(environment, SIZE)
  index = _number(environment, 'OMPI_COMM_WORLD_RANK')
  if not count:
    raise ValueError(
      'prterun started this process as number '
      f'{environment.get("PMIX_RANK", "?")} and does not tell how many there '
      'are. Start it with mpirun, or give --coordinator_address=HOST:PORT, '
      '--num_processes and --process_id (which PMIX_RANK holds).'
    )
  namespace = environment.get('PMIX_NAMESPACE', '')
  port = environment.get('JAX_COORDINATOR_PORT') or str(
    _FIRST_PORT + zlib.crc32(namespace.encode()) % _PORTS
  )
  if _number(environment, 'OMPI_COMM_WORLD_LOCAL_SIZE') == count:
    return Settings(f'127.0.0.1:{port}', count, index)
  launcher = re.fullmatch(r'[^-]+-(.+)-\d+@\d+', namespace)
  if launcher is None:
    raise ValueError(
      'Open MPI 5 does not tell where process 0 of this run is '
      f'(PMIX_NAMESPACE is {namespace!r}). {_remedy("HOST", port)}'
    )
  host = launcher[1]
  here = environment.get('PMIX_HOSTNAME') or socket.gethostname()
  names = {_short(here), _short(socket.gethostname())}
  if index == 0 and _short(host) not in names:
    raise ValueError(
      f'Open MPI 5 tells the other processes only that mpirun runs on {host}, '
      f'but process 0 is on {here}. Start mpirun on the machine of process 0, '
      f'or do this: {_remedy(here, port)}'
    )
  return Settings(f'{host}:{port}', count, index)


def _remedy(host: str, port: str) -> str:
  return (
    f'Give all processes CDM_COORDINATOR_ADDRESS={host}:{port}, '
    'CDM_NUM_PROCESSES=$OMPI_COMM_WORLD_SIZE and '
    'CDM_PROCESS_ID=$OMPI_COMM_WORLD_RANK, or the flags of the same meaning.'
  )


def _short(host: str) -> str:
  return host.partition('.')[0]


def _number(environment: Mapping[str, str], name: str) -> int:
  value = environment.get(name, '')
  return int(value) if value.isdecimal() else 0
