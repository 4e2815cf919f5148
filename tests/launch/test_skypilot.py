"""The target skypilot: its task, its script, and SkyPilot's own reading."""

import os
import signal
import subprocess

import pytest
import yaml
from support.launched import planned, rendered, tool

GCS = ('--storage=gs://lab-runs', '--workdir=/gcs/lab-runs/r')
GPUS = ('--accelerators=H100:8', '--nodes=2', '--spot', *GCS)
SLICE = ('--accelerators=tpu-v5litepod-16', *GCS)


def task(*arguments):
  """-> the task as a value."""
  (text,) = rendered('skypilot', *arguments)
  return yaml.safe_load(text)


def ran(tmp_path, codes, *, restarts=50):
  """-> (exit code, starts) of the script, where cdm ends with these codes."""
  script = task(*GPUS, f'--restarts={restarts}')['run']
  (tmp_path / 'cdm-env' / 'bin').mkdir(parents=True)
  tool(
    tmp_path / 'cdm-env' / 'bin',
    'cdm',
    'echo "$*" >> calls; code=$(sed -n "$(wc -l < calls)p" codes); exit $code',
  )
  tool(tmp_path, 'sleep', '')
  (tmp_path / 'codes').write_text('\n'.join(map(str, codes)), encoding='utf-8')
  done = subprocess.run(
    ['bash', '-c', script],
    cwd=tmp_path,
    env={
      'HOME': str(tmp_path),
      'PATH': f'{tmp_path}:{os.environ["PATH"]}',
      'CDM_EXTRA': 'cuda',
      'SKYPILOT_NUM_NODES': '1',
    },
    stdout=subprocess.DEVNULL,
    timeout=600,
  )
  calls = (tmp_path / 'calls').read_text(encoding='utf-8').splitlines()
  return done.returncode, len(calls)


@pytest.mark.parametrize('code', [0, 2, 3, 4, 5, 75, 76])
def test_an_end_is_reported_as_it_is(tmp_path, code):
  assert ran(tmp_path, [code]) == (code, 1)


@pytest.mark.parametrize('code', [1, 77, 134, 135, 137, 139, 143])
def test_what_another_start_may_mend_starts_again_in_place(tmp_path, code):
  assert ran(tmp_path, [code, code, 75]) == (75, 3)


def test_starts_in_place_are_limited(tmp_path):
  assert ran(tmp_path, [1] * 9, restarts=2) == (1, 3)


def test_a_job_that_is_stopped_does_not_start_again(tmp_path):
  """SkyPilot sends SIGTERM to the shell and to its children."""
  script = task(*GPUS)['run']
  (tmp_path / 'cdm-env' / 'bin').mkdir(parents=True)
  tool(
    tmp_path / 'cdm-env' / 'bin',
    'cdm',
    'echo x >> calls; trap "exit 143" TERM; echo ready; sleep 60 & wait',
  )
  process = subprocess.Popen(
    ['bash', '-c', script],
    cwd=tmp_path,
    env={
      'HOME': str(tmp_path),
      'PATH': os.environ['PATH'],
      'CDM_EXTRA': 'cuda',
      'SKYPILOT_NUM_NODES': '1',
    },
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  while process.stdout.readline() != 'ready\n':
    assert process.poll() is None
  os.killpg(process.pid, signal.SIGTERM)
  assert process.wait(600) == 143
  process.stdout.close()
  assert (tmp_path / 'calls').read_text(encoding='utf-8') == 'x\n'


@pytest.mark.parametrize(
  'type_, version',
  [
    ('tpu-v2-8', 'tpu-ubuntu2204-base'),
    ('tpu-v3-32', 'tpu-ubuntu2204-base'),
    ('tpu-v4-8', 'tpu-ubuntu2204-base'),
    ('tpu-v5litepod-16', 'v2-alpha-tpuv5-lite'),
    ('tpu-v5p-8', 'v2-alpha-tpuv5'),
    ('tpu-v6e-8', 'v2-alpha-tpuv6e'),
  ],
)
def test_each_kind_of_slice_gets_its_own_software(type_, version):
  resources = task(f'--accelerators={type_}', *GCS)['resources']
  assert resources['accelerator_args'] == {'runtime_version': version}


@pytest.mark.parametrize('type_', ['H100:8', 'tpu-v5-lite-podslice:4'])
def test_what_is_no_slice_of_the_cloud_tpu_api_gets_none(type_):
  resources = task(f'--accelerators={type_}', *GCS)['resources']
  assert 'accelerator_args' not in resources


def test_a_slice_is_one_node():
  with pytest.raises(ValueError, match='a TPU slice is one node to SkyPilot'):
    planned('skypilot', *SLICE, '--nodes=2')


def test_variables_and_secrets_stand_where_skypilot_has_them():
  read = task(*SLICE, '--env=NO=a "$b"', '--env=WANDB_API_KEY=abc')
  assert read['envs'] == {
    'JAX_COMPILATION_CACHE_DIR': '/gcs/lab-runs/r/compilation_cache',
    'JAX_PLATFORMS': 'tpu,cpu',
    'NO': 'a "$b"',
    'CDM_EXTRA': 'tpu',
  }
  assert read['secrets'] == {'WANDB_API_KEY': '***'}
  assert (
    task(*GPUS, '--env=JAX_PLATFORMS=cpu')['envs']['JAX_PLATFORMS'] == 'cpu'
  )
  assert task(*GPUS)['envs']['JAX_PLATFORMS'] == 'cuda,cpu'


# SkyPilot's own code, where it is installed.


@pytest.fixture
def sky(monkeypatch, tmp_path):
  """-> the package, at home in a folder of its own."""
  monkeypatch.setenv('HOME', str(tmp_path))
  package = pytest.importorskip('sky', reason='SkyPilot is not installed')
  pytest.importorskip('sky.jobs.recovery_strategy')
  return package


@pytest.mark.parametrize('arguments', [GPUS, SLICE], ids=['gpus', 'slice'])
def test_skypilot_reads_the_task(sky, arguments):
  given = ('--env=NO=a "$b"', '--env=WANDB_API_KEY=abc')
  read = sky.Task.from_yaml_config(task(*arguments, *given))
  assert read.envs['NO'] == 'a "$b"'
  assert set(read.secrets) == {'WANDB_API_KEY'}
  (resources,) = read.resources
  assert read.num_nodes == (2 if arguments is GPUS else 1)
  if arguments is SLICE:
    args = resources.accelerator_args
    assert args['runtime_version'] == 'v2-alpha-tpuv5-lite'


@pytest.mark.parametrize(
  'codes, recovered',
  [
    ([75], True),
    ([75, 75], True),
    ([75, 137], True),  # the other one was killed by SkyPilot
    ([3], False),
    ([3, 137], False),
    ([3, 3], False),
    ([2, 137], False),
    ([76, 76], False),
    ([137, 1], False),
    (None, False),
  ],
)
def test_skypilot_recovers_a_preemption_alone(sky, codes, recovered):
  """However often: a listed code is not counted."""
  read = sky.Task.from_yaml_config(task(*GPUS))
  with sky.Dag() as dag:
    dag.add(read)
  sky.utils.dag_utils.fill_default_config_in_dag_for_job_launch(dag)
  backend = sky.backends.CloudVmRayBackend()
  executor = sky.jobs.recovery_strategy.StrategyExecutor.make(
    'cluster', backend, read, 1, 0, None, set(), None, None
  )
  for _ in range(3):
    assert executor.should_restart_on_failure(exit_codes=codes) is recovered
