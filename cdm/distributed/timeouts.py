"""States how long the processes of a run wait for each other.

Each time-out has an environment variable that replaces it, because the
launchers set variables and the processes of a run must agree. What takes longer
with more processes has a default that grows with their number.
"""

from collections.abc import Mapping
from typing import NamedTuple

from cdm.data.files import seconds_variable

# The defaults are those of this many processes; each further group of as many
# adds a quarter of them.
GROUP = 64


class Timeout(NamedTuple):
  """A time-out of a run.

  Attributes:
    variable: the environment variable that replaces the default.
    default: seconds in a run of up to `GROUP` processes.
    meaning: what the seconds are, for the error about a wrong value.
    grows: whether the default grows with the number of processes.
  """

  variable: str
  default: float
  meaning: str
  grows: bool = True


JOIN = Timeout(
  'CDM_JOIN_SECONDS',
  300.0,
  'that the processes of a run wait for each other',
)
HEARTBEAT = Timeout(
  'CDM_HEARTBEAT_SECONDS',
  60.0,
  'after which a process without a heartbeat counts as lost',
  grows=False,
)
SAVE = Timeout(
  'CDM_SAVE_SECONDS',
  1200.0,
  'that a checkpoint may take to be written and read back',
)
CLOSE = Timeout(
  'CDM_CLOSE_SECONDS',
  3600.0,
  'that the processes of a run wait at its end for process 0, which may still '
  'assemble what all have written',
)
VISIBLE = Timeout(
  'CDM_VISIBLE_SECONDS',
  180.0,
  'that a process waits until the storage shows it a checkpoint that process 0 '
  'sees',
)
ALL = (JOIN, HEARTBEAT, SAVE, CLOSE, VISIBLE)


def seconds(
  timeout: Timeout,
  *,
  processes: int,
  environment: Mapping[str, str] | None = None,
) -> float:
  """Returns the seconds of a time-out.

  Args:
    timeout: one of `ALL`.
    processes: number of processes of the run.
    environment: environment variables; os.environ by default.

  Raises:
    ValueError: the variable is not a positive number.
  """
  given = seconds_variable.read(
    timeout.variable, timeout.default, timeout.meaning, environment
  )
  if given is not None:
    return given
  groups = (processes - 1) // GROUP if timeout.grows else 0
  return timeout.default * (1 + groups / 4)


def check(environment: Mapping[str, str]) -> None:
  """Raises ValueError unless every variable that is set is a number."""
  for timeout in ALL:
    seconds(timeout, processes=1, environment=environment)


def expected_processes(environment: Mapping[str, str]) -> int:
  """Returns how many processes a launcher says that the run has; 1 if none.

  For the time before the processes have found each other. A plain TPU host
  learns the number from its metadata only, so there it counts as 1.
  """

  def number(name: str) -> int:
    value = environment.get(name, '')
    return int(value) if value.isdecimal() else 1

  hosts = environment.get('TPU_WORKER_HOSTNAMES', '').count(',') + 1
  return max(
    number('SLURM_STEP_NUM_TASKS'),
    number('OMPI_COMM_WORLD_SIZE'),
    hosts * number('MEGASCALE_NUM_SLICES'),
  )
