"""The target batch: its job, and Google's own reading of it."""

import json

import pytest
from support.launched import planned, rendered

IMAGE = '--image=images.example/p/r/cdm:cuda'
GCS = ('--storage=gs://lab-runs', '--workdir=/gcs/lab-runs/r')
NFS = ('--storage=10.0.0.2:/runs', '--workdir=/nfs/r')


def job(machine_type, *arguments, storage=GCS):
  """-> the job as a value."""
  (text,) = rendered(
    'batch',
    IMAGE,
    '--location=l',
    f'--machine_type={machine_type}',
    *storage,
    *arguments,
  )
  return json.loads(text)


def variables(read):
  """-> {name: value} of what the job runs."""
  (group,) = read['taskGroups']
  (runnable,) = group['taskSpec']['runnables']
  return runnable['environment']['variables']


@pytest.mark.parametrize(
  'machine_type, gpu_type, drivers',
  [
    ('a3-highgpu-8g', None, True),  # the GPUs come with the machine type
    ('a2-ultragpu-1g', None, True),
    ('a4-highgpu-8g', None, True),
    ('a4x-highgpu-4g', None, True),
    ('g2-standard-96', None, True),
    ('n1-standard-8', 'nvidia-tesla-t4', True),
    ('n1-standard-8', None, False),
    ('e2-standard-4', None, False),
    ('c3-standard-8', None, False),
  ],
)
def test_drivers_are_installed_where_there_are_gpus(
  machine_type, gpu_type, drivers
):
  more = [f'--gpu_type={gpu_type}', '--gpus=2'] if gpu_type else []
  read = job(machine_type, *more)
  (instance,) = read['allocationPolicy']['instances']
  assert instance['installGpuDrivers'] is drivers
  listed = [{'type': gpu_type, 'count': 2}] if gpu_type else []
  assert instance['policy']['accelerators'] == listed
  assert variables(read)['JAX_PLATFORMS'] == ('cuda,cpu' if drivers else 'cpu')


@pytest.mark.parametrize(
  'code, retried',
  [
    *((code, True) for code in (50001, 50002, 50003, 50004, 50006)),
    (50005, False),  # The time is over.
    *((code, True) for code in (1, 75, 77, 134, 137, 139)),
    *((code, False) for code in (2, 3, 4, 5, 76)),
  ],
)
def test_a_lost_machine_is_retried_and_a_final_end_is_not(code, retried):
  (group,) = job('a3-highgpu-8g', '--restarts=4')['taskGroups']
  (policy,) = group['taskSpec']['lifecyclePolicies']
  assert policy['action'] == 'RETRY_TASK'
  assert (code in policy['actionCondition']['exitCodes']) is retried
  assert group['taskSpec']['maxRetryCount'] == 4


def test_a_secret_is_a_reference_to_where_it_is_kept():
  given = '--env=WANDB_API_KEY=projects/p/secrets/w/versions/3'
  (group,) = job('a3-highgpu-8g', given, '--env=A=b')['taskGroups']
  environment = group['taskSpec']['runnables'][0]['environment']
  assert environment['secretVariables'] == {'WANDB_API_KEY': '***'}
  assert environment['variables']['A'] == 'b'
  arguments = [IMAGE, '--location=l', '--machine_type=m', *GCS]
  with pytest.raises(ValueError, match='gcloud secrets create') as caught:
    planned('batch', *arguments, '--env=WANDB_API_KEY=abc')
  assert 'abc' not in str(caught.value)


@pytest.mark.parametrize('storage', [GCS, NFS], ids=['bucket', 'nfs'])
def test_google_reads_the_job(storage):
  """With fields that it does not know refused."""
  batch_v1 = pytest.importorskip(
    'google.cloud.batch_v1', reason='google-cloud-batch is not installed'
  )
  given = '--env=WANDB_API_KEY=projects/p/secrets/w/versions/3'
  text = json.dumps(job('a3-highgpu-8g', '--spot', given, storage=storage))
  read = batch_v1.Job.from_json(text, ignore_unknown_fields=False)
  (instance,) = read.allocation_policy.instances
  assert instance.install_gpu_drivers
  spot = batch_v1.AllocationPolicy.ProvisioningModel.SPOT
  assert instance.policy.provisioning_model == spot
  spec = read.task_groups[0].task_spec
  assert spec.max_retry_count == 10
  retry = batch_v1.LifecyclePolicy.Action.RETRY_TASK
  assert spec.lifecycle_policies[0].action == retry
  assert 50006 in spec.lifecycle_policies[0].action_condition.exit_codes
