"""Which GPUs of its machine a process drives, under every kind of launcher."""

import jax
import pytest

from cdm.distributed import initialize, local_devices, peer_monitor, rendezvous


def slurm(index, tasks, node=0, **more):
  return {
    'SLURM_JOB_ID': '1',
    'SLURM_STEP_NUM_TASKS': '64',
    'SLURM_STEP_TASKS_PER_NODE': tasks,
    'SLURM_NODEID': str(node),
    'SLURM_LOCALID': str(index),
    **more,
  }


ALL = '0,1,2,3,4,5,6,7'


def shown(names):
  return {'CUDA_VISIBLE_DEVICES': names}


@pytest.mark.parametrize(
  ('environment', 'gpus', 'expected'),
  [
    # One task per node takes the whole node, whatever shows it.
    (slurm(0, '1(x8)', 5), 8, list(range(8))),
    (slurm(0, '1(x8)', 5, **shown(ALL)), 8, list(range(8))),
    # One GPU per task: all are shown to each, or each is shown its own.
    (slurm(3, '8(x8)'), 8, [3]),
    (slurm(3, '8(x8)', **shown(ALL)), 8, [3]),
    (slurm(3, '8(x8)', **shown('3')), 8, [0]),
    (slurm(3, '8(x8)', **shown('GPU-4f1a')), 8, [0]),
    # Two per task, shared out here or by SLURM.
    (slurm(1, '4(x2)'), 8, [2, 3]),
    (slurm(1, '4(x2)', **shown('2,3')), 8, [0, 1]),
    (slurm(1, '2', SLURM_GPUS_ON_NODE='4', **shown('0,1')), 2, [0, 1]),
    (slurm(1, '2', SLURM_GPUS_ON_NODE='2', **shown('0,1')), 2, [1]),
    # Nodes with different numbers of tasks.
    (slurm(0, '8(x2),1', 2), 8, list(range(8))),
    # The batch script of a job is one process.
    ({'SLURM_JOB_ID': '1', 'SLURM_LOCALID': '0'}, 8, list(range(8))),
    (
      {'OMPI_COMM_WORLD_LOCAL_RANK': '1', 'OMPI_COMM_WORLD_LOCAL_SIZE': '2'},
      8,
      [4, 5, 6, 7],
    ),
    # No launcher that counts: one process per machine.
    ({}, 8, list(range(8))),
    ({}, 0, []),
    (slurm(3, '8(x8)'), 0, []),
    (shown(''), 8, []),
    (shown('-1'), 8, []),
    (shown('0,-1,2'), 8, [0]),
    (slurm(3, '8(x8)', JAX_PLATFORMS='cpu'), 8, []),
    # The user's own choice counts most.
    (slurm(3, '8(x8)', JAX_LOCAL_DEVICE_IDS='5,6'), 8, [5, 6]),
  ],
)
def test_every_gpu_is_driven_by_one_process(environment, gpus, expected):
  assert local_devices.local_device_ids(environment, gpus=gpus) == expected


@pytest.mark.parametrize('gpus', [1, 2, 3, 4, 7, 8])
def test_no_two_tasks_of_a_node_share_a_gpu(gpus):
  for tasks in range(2, gpus + 1):
    taken = [
      number
      for index in range(tasks)
      for number in local_devices.local_device_ids(
        slurm(index, str(tasks)), gpus=gpus
      )
    ]
    assert len(taken) == len(set(taken)) == gpus // tasks * tasks


def test_more_processes_than_gpus_are_refused():
  with pytest.raises(ValueError, match='4 processes .* machine with 2 GPUs'):
    local_devices.local_device_ids(slurm(0, '4'), gpus=2)
  with pytest.raises(ValueError, match='JAX_LOCAL_DEVICE_IDS is .one.'):
    local_devices.local_device_ids({'JAX_LOCAL_DEVICE_IDS': 'one'}, gpus=2)


@pytest.mark.parametrize(
  ('given', 'environment', 'expected'),
  [
    (('10.0.0.1:8476', 2, 0), shown(ALL), list(range(8))),
    (('10.0.0.1:8476', 2, 0), shown('5'), [0]),
    ((), slurm(0, '1(x64)', **shown(ALL)), list(range(8))),
    ((), slurm(3, '8(x8)', **shown('3')), [0]),
  ],
)
def test_jax_is_told_the_devices(monkeypatch, given, environment, expected):
  told = {}
  monkeypatch.setattr(jax.distributed, 'initialize', told.update)
  monkeypatch.setattr(peer_monitor, 'start', lambda: None)
  environment = environment | {rendezvous.VARIABLE: '5'}
  assert initialize.join(*given, environment=environment) in ('flags', 'slurm')
  assert told['local_device_ids'] == expected
  # JAX aborts the process when its own patience ends.
  assert told['initialization_timeout'] > 3600
