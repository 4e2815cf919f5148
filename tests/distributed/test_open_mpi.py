"""Processes that Open MPI started find each other, version 4 or 5."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from cdm.distributed import initialize, local_devices, open_mpi

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


def of_5(index=0, count=4, local=2, host='node1', **more):
  """-> what mpirun of Open MPI 5.0.11 sets, but for what nobody reads."""
  return {
    'OMPI_COMM_WORLD_RANK': str(index),
    'OMPI_COMM_WORLD_SIZE': str(count),
    'OMPI_COMM_WORLD_LOCAL_RANK': str(index % local),
    'OMPI_COMM_WORLD_LOCAL_SIZE': str(local),
    'OMPI_VERSION': '5.0.11',
    'PMIX_HOSTNAME': host,
    'PMIX_NAMESPACE': 'prterun-node1-8086@1',
    'PMIX_RANK': str(index),
    'PMIX_SERVER_URI4': 'prterun-node1-8086@0.0;tcp4://127.0.0.1:40099',
    'PRTE_LAUNCHED': '1',
    **more,
  }


OF_PRTERUN = {
  'PMIX_NAMESPACE': 'prterun-node1-9151@1',
  'PMIX_RANK': '1',
  'PRTE_LAUNCHED': '1',
}
OF_4 = {
  'OMPI_COMM_WORLD_SIZE': '2',
  'OMPI_MCA_orte_hnp_uri': '1935736832.0;tcp://10.0.0.1:53633',
}


def test_all_processes_are_given_one_address_and_their_own_numbers():
  found = [
    open_mpi.settings(of_5(index, host=f'node{1 + index // 2}'))
    for index in range(4)
  ]
  assert [each.index for each in found] == [0, 1, 2, 3]
  assert {each.count for each in found} == {4}
  (address,) = {each.address for each in found}
  host, port = address.split(':')
  assert host == 'node1'
  assert 61440 <= int(port) < 65536
  given = open_mpi.settings(of_5(JAX_COORDINATOR_PORT='1234'))
  assert given.address == 'node1:1234'


def test_on_one_machine_no_name_has_to_be_known():
  alone = of_5(count=2, PMIX_NAMESPACE='of some kind')
  assert open_mpi.settings(alone).address.startswith('127.0.0.1:')


def test_two_runs_on_a_machine_take_two_ports():
  ports = {
    open_mpi.settings(of_5(PMIX_NAMESPACE=f'prterun-node1-{pid}@1')).address
    for pid in range(1000, 1010)
  }
  assert len(ports) == 10


@pytest.mark.parametrize('name', ['prterun-a-1.b.c-77@1', 'prte-a-1-77@12'])
def test_a_host_may_have_dashes_and_dots_in_its_name(name):
  environment = of_5(1, PMIX_NAMESPACE=name)
  host = open_mpi.settings(environment).address.partition(':')[0]
  assert host in ('a-1.b.c', 'a-1')


@pytest.mark.parametrize(
  ('environment', 'parts'),
  [
    (OF_PRTERUN, ('number 1', 'how many', '--num_processes')),
    (
      of_5(PMIX_NAMESPACE='4711'),
      ("PMIX_NAMESPACE is '4711'", 'CDM_COORDINATOR_ADDRESS=HOST:'),
    ),
    (
      of_5(PMIX_HOSTNAME='node2'),
      ('runs on node1, but process 0 is on node2', '=node2:', '_ID=$OMPI'),
    ),
  ],
)
def test_where_the_address_is_not_known_the_message_says_what_to_give(
  environment, parts
):
  with pytest.raises(ValueError) as caught:
    initialize.join(environment=environment)
  for part in parts:
    assert part in str(caught.value)
  assert '\n' not in str(caught.value)


def test_a_short_name_and_a_long_one_are_one_machine():
  environment = of_5(PMIX_HOSTNAME='node1.cluster.example')
  assert open_mpi.settings(environment).address.startswith('node1:')
  here = of_5(PMIX_NAMESPACE=f'prterun-{socket.gethostname()}-1@1', host='x')
  assert open_mpi.settings(here).index == 0


@pytest.mark.parametrize(
  ('environment', 'expected'),
  [
    (of_5(), 'mpi'),
    (OF_4, 'mpi'),
    (OF_PRTERUN, 'mpi'),
    (of_5(count=1, local=1), None),
    # What a process of mpirun inherits in a job of SLURM of two nodes.
    (
      {
        **of_5(),
        'SLURM_JOB_ID': '1',
        'SLURM_STEP_NUM_TASKS': '2',
        'SLURM_PROCID': '0',
      },
      'mpi',
    ),
  ],
)
def test_mpirun_is_told_from_srun_and_from_a_process_alone(
  environment, expected
):
  environment = {'JAX_PLATFORMS': 'cpu', **environment}
  assert initialize.detect(environment) == expected


def test_jax_finds_the_address_itself_under_open_mpi_4():
  assert not open_mpi.is_launcher(OF_4)
  assert open_mpi.is_launcher(of_5())


def test_the_gpus_are_shared_by_mpirun_also_in_a_job_of_slurm():
  environment = {
    **of_5(3),
    'SLURM_STEP_NUM_TASKS': '2',
    'SLURM_STEP_TASKS_PER_NODE': '1(x2)',
  }
  assert local_devices.local_device_ids(environment, gpus=8) == [4, 5, 6, 7]


JOIN = """
import jax
from cdm.distributed import initialize
print(initialize.join(), flush=True)
assert jax.process_count() == 2
"""


@pytest.mark.skipif(
  shutil.which('mpirun') is None, reason='Open MPI is not installed'
)
def test_the_processes_of_the_installed_mpirun_find_each_other():
  done = subprocess.run(
    ['mpirun', '--oversubscribe', '-n', '2', sys.executable, '-c', JOIN],
    cwd=ROOT,
    env={
      **os.environ,
      'OMPI_ALLOW_RUN_AS_ROOT': '1',
      'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': ROOT,
    },
    capture_output=True,
    text=True,
    timeout=120,
    encoding='utf-8',
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == 'mpi\n'  # of process 0
