"""The target vertex: its job, Google's own reading of it, and its machines."""

import json
import os
import signal
import subprocess
import sys

import pytest
import yaml
from support.launched import ROOT, planned, rendered

COMMON = (
  '--image=images.example/p/r/cdm:cuda',
  '--region=r',
  '--machine_type=a3-highgpu-8g',
)
GPUS = ('--accelerator_type=NVIDIA_H100_80GB', '--accelerator_count=8')
GCS = ('--storage=gs://lab-runs', '--workdir=/gcs/lab-runs/r')
NFS = ('--storage=10.0.0.2:/runs', '--workdir=/nfs/r', '--network=n')
JOIN = ROOT / 'launch' / 'vertex_join.py'


def job(*arguments):
  """-> the job as a value."""
  (text,) = rendered('vertex', *COMMON, *arguments)
  return yaml.safe_load(text)


def test_machines_of_vertex_find_each_other():
  spec = {
    'cluster': {
      'workerpool0': ['cmle-0:2222'],
      'workerpool1': ['cmle-1:2222', 'cmle-2:2222'],
    },
    'task': {'type': 'workerpool1', 'index': 1},
  }
  show = 'import os; print(*[os.environ.get(k) for k in os.sys.argv[1:]])'
  names = [
    'CDM_COORDINATOR_ADDRESS',
    'CDM_NUM_PROCESSES',
    'CDM_PROCESS_ID',
  ]
  for cluster, expected in (
    (json.dumps(spec), 'cmle-0:8476 3 2'),
    ('', 'None None None'),
  ):
    said = subprocess.run(
      [sys.executable, JOIN, sys.executable] + ['-c', show, *names],
      env={**os.environ, 'CLUSTER_SPEC': cluster},
      capture_output=True,
      text=True,
      check=True,
      encoding='utf-8',
    ).stdout
    assert said.strip() == expected


@pytest.mark.parametrize(
  'code, reported',
  [
    *((code, code) for code in (0, 2, 3, 4, 5, 76)),
    # Vertex AI starts a job again after these two alone.
    *((code, 134) for code in (1, 75, 77, 134, 137, 139)),
    (-9, 134),
  ],
)
def test_what_another_start_may_mend_ends_as_vertex_expects_it(code, reported):
  act = f'import os, sys; sys.exit({code}) if {code} >= 0 else os.kill('
  act += f'os.getpid(), {-code})'
  words = [sys.executable, JOIN, sys.executable, '-S', '-c', act]
  assert subprocess.run(words, stderr=subprocess.DEVNULL).returncode == reported


def test_a_machine_that_is_taken_away_lets_the_run_save():
  act = (
    'import signal, sys, time; '
    'signal.signal(signal.SIGTERM, lambda *_: sys.exit("saved")); '
    'print("ready", flush=True); time.sleep(600)'
  )
  process = subprocess.Popen(
    [sys.executable, JOIN, sys.executable, '-S', '-c', act],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=600)
  assert 'saved' in said
  assert process.returncode == 134


def test_variables_reach_every_machine_as_they_are():
  read = job(*GPUS, *GCS, '--nodes=3', '--env=A=$(B) $')
  for pool in read['workerPoolSpecs']:
    assert pool['containerSpec']['env'] == [
      {
        'name': 'JAX_COMPILATION_CACHE_DIR',
        'value': '/gcs/lab-runs/r/compilation_cache',
      },
      {'name': 'JAX_PLATFORMS', 'value': 'cuda,cpu'},
      {'name': 'CDM_JOIN_SECONDS', 'value': '1800'},  # They start apart.
      {'name': 'A', 'value': '$$(B) $$'},  # $$ is a $ there.
    ]


def test_one_machine_waits_for_nobody():
  (pool,) = job(*GPUS, *GCS)['workerPoolSpecs']
  names = {one['name'] for one in pool['containerSpec']['env']}
  assert names == {'JAX_COMPILATION_CACHE_DIR', 'JAX_PLATFORMS'}


def test_gpus_that_come_with_a_machine_are_never_left_idle():
  with pytest.raises(ValueError, match='a3-highgpu-8g has GPUs; name them'):
    planned('vertex', *COMMON, *GCS)
  cpus = [*COMMON[:-1], '--machine_type=n2-standard-8']
  (text,) = rendered('vertex', *cpus, *GCS)
  assert '{"name": "JAX_PLATFORMS", "value": "cpu"}' in text


def test_a_secret_is_refused():
  with pytest.raises(ValueError, match='would not stay secret') as caught:
    planned('vertex', *COMMON, *GPUS, *GCS, '--env=WANDB_API_KEY=abc')
  assert 'abc' not in str(caught.value)


@pytest.mark.parametrize('storage', [GCS, NFS], ids=['bucket', 'nfs'])
def test_google_reads_the_job(storage):
  """With fields that it does not know refused."""
  aiplatform = pytest.importorskip(
    'google.cloud.aiplatform_v1',
    reason='google-cloud-aiplatform is not installed',
  )
  text = json.dumps(job(*GPUS, *storage, '--nodes=3', '--spot', '--days=2'))
  read = aiplatform.CustomJobSpec.from_json(text, ignore_unknown_fields=False)
  assert [pool.replica_count for pool in read.worker_pool_specs] == [1, 2]
  scheduling = read.scheduling
  assert scheduling.strategy == aiplatform.Scheduling.Strategy.SPOT
  assert scheduling.restart_job_on_worker_restart
  assert not scheduling.disable_retries
  assert scheduling.timeout.total_seconds() == 2 * 24 * 3600
