"""The variables of a run arrive, whatever they hold, and secrets stay secret.

Each launcher is run with a stand-in for the platform's program, which keeps
what it was given; a shell, YAML's reader and Kubernetes' rules do the rest.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / 'launch' / 'launch.py'
COMMON = ['--config=configs/smoke.py', '--workdir=/gcs/lab-runs/r']
IMAGE = ['--image=images.example/cdm:1', '--storage=gs://lab-runs']
ON_TPU = [*IMAGE, '--tpu=tpu-v6e-slice', '--topology=4x4']
TARGETS = {
  'local': ['--processes=2'],
  'docker': ['--extra=cuda'],
  'slurm': ['--gpus_per_node=2', '--cpus_per_task=3'],
  'gke': ON_TPU,
  'gke-gpu': [*IMAGE, '--gpu=nvidia-l4', '--nodes=2'],
  'xpk': [IMAGE[0], '--cluster=c', '--tpu_type=v5litepod-16'],
  'xpk-gpu': [IMAGE[0], '--cluster=c', '--device_type=l4-1', '--nodes=2'],
}
# What a value may hold, and what shells, YAML, Docker, SLURM and Kubernetes
# would do something about.
VALUES = {
  'A1': '--xla_a=1 --xla_b=/x y',
  'A2': """it's "$HOME" `id` $(id) $(A1) $$ \\ & # %j @x@ {}: !""",
  'A3': ' ü \t\u2028\U0001f600 ',
  'A4': '',
  'A5': "'quoted'",
  'NO': '"',
  'A7': '\\',
  'A8': "$'\\x41'",
  'A9': '=',
}
SECRET = {'A_TOKEN': """hush "it's" $HOME \\ ü """}
# Stand-ins keep their words, environment and files there.
KEEPER = """#!{python} -S
import json, os, sys
here = {here!r}
number = len(os.listdir(here))
files = {{
  name: [open(name, encoding='utf-8').read(), os.stat(name).st_mode & 0o777]
  for name in os.listdir('.') if {files} and os.path.isfile(name)
}}
with open(os.path.join(here, f'{{number}}-{{os.getpid()}}'), 'w') as out:
  json.dump([sys.argv[1:], dict(os.environ), files], out)
"""


def kept(folder):
  """-> [(words, environment, files)] of a stand-in, in order of the calls."""
  paths = sorted(folder.iterdir(), key=lambda p: int(p.name.split('-')[0]))
  return [json.loads(path.read_text(encoding='utf-8')) for path in paths]


def run(case, tmp_path, variables, *more, here=None):
  """-> (what stand-ins kept, all that was printed) of a launch for real."""
  keep, bin_ = tmp_path / 'keep', tmp_path / 'bin'
  keep.mkdir()
  bin_.mkdir()
  words = list(TARGETS[case])
  for name in ('docker', 'sbatch', 'kubectl', 'xpk', 'python'):
    text = KEEPER.format(
      python=sys.executable, here=str(keep), files=name != 'python'
    )
    (bin_ / name).write_text(text, encoding='utf-8')
    (bin_ / name).chmod(0o755)
  (bin_ / 'mkdir').symlink_to('/bin/true')
  if case in ('local', 'slurm'):
    words.append(f'--python={bin_}/python')
  done = subprocess.run(
    [sys.executable, LAUNCH, case.removesuffix('-gpu'), *COMMON, *words, *more]
    + [f'--env={name}={value}' for name, value in variables.items()],
    cwd=ROOT,
    env={
      'PATH': f'{bin_}:{os.environ["PATH"]}',
      'HOME': '/home',
      **(here or {}),
    },
    capture_output=True,
    text=True,
    encoding='utf-8',
    timeout=60,
  )
  assert done.returncode == 0, done.stderr
  return kept(keep), done.stdout + done.stderr


def as_kubernetes(text):
  """-> what a container gets of a word or a value of its manifest."""
  return re.sub(
    r'\$\$|\$\(\w+\)', lambda m: '$' if m[0] == '$$' else 'REPLACED', text
  )


def environment_of_bash(script, *, environment):
  """-> environment of a stand-in for `cdm` or srun that the script ends in."""
  show = 'import json, os; print(json.dumps(dict(os.environ)))'
  word = shlex.join([sys.executable, '-S', '-c', show])
  said = subprocess.run(
    ['bash', '-c', script.replace('SHOW', word)],
    env=environment,
    capture_output=True,
    text=True,
    encoding='utf-8',
    check=True,
  )
  return json.loads(said.stdout.splitlines()[-1])


def environments(case, tmp_path, calls):
  """-> the environment of cdm, as the platform makes it of what it was given.

  A list, with one for each process that was started.
  """
  path = {'PATH': os.environ['PATH']}
  if case == 'local':
    return [environment for _, environment, _ in calls]
  words, environment, files = calls[-1]
  if case == 'docker':
    pairs = [w.removeprefix('--env=') for w in words if w.startswith('--env=')]
    pairs = [p if '=' in p else f'{p}={environment[p]}' for p in pairs]
    return [dict(pair.split('=', 1) for pair in pairs)]
  if case == 'slurm':
    # sbatch hands its own environment on.
    script = files['cdm-smoke.sbatch'][0]
    before = script[: script.index('\nsrun ')] + '\nSHOW'
    job = {'SLURM_JOB_ID': '1', 'SLURM_JOB_NODELIST': 'n'}
    return [environment_of_bash(before, environment={**environment, **job})]
  if case.startswith('xpk'):
    (command,) = [w for w in words if w.startswith('--command=')]
    command = command.removeprefix('--command=')
    # xpk writes it into a string of YAML, and into a block.
    assert yaml.safe_load(f'value: "{command}"')
    script = as_kubernetes(yaml.safe_load(f'a: |\n  ({command}) & wait')['a'])
    script = re.sub(r' cdm train .*\)', ' SHOW)', script)
    script = script.replace('/usr/local/', f'{tmp_path}/')
    pod = {
      'JAX_COORDINATOR_ADDRESS': 'pod-0',
      'JAX_COORDINATOR_PORT': '6002',
      'NNODES': '2',
      'NODE_RANK': '1',
    }
    return [environment_of_bash(script, environment={**path, **pod})]
  (job,) = yaml.safe_load(files['cdm-smoke.yaml'][0])['spec']['replicatedJobs']
  (pod,) = job['template']['spec']['template']['spec']['containers']
  found = {}
  for source in pod['envFrom']:
    secret = yaml.safe_load(files[f'{source["secretRef"]["name"]}.yaml'][0])
    assert secret['metadata']['name'] == source['secretRef']['name']
    found |= secret['stringData']
  names = [one['name'] for one in pod['env']]
  assert len(set(names)) == len(names)
  return [
    found
    | {o['name']: as_kubernetes(o['value']) for o in pod['env'] if 'value' in o}
  ]


@pytest.mark.parametrize('case', TARGETS)
def test_values_arrive_as_they_were_given(case, tmp_path):
  secret = {} if case.startswith('xpk') else SECRET
  calls, _ = run(case, tmp_path, {**VALUES, **secret})
  for found in environments(case, tmp_path, calls):
    assert {n: found.get(n) for n in VALUES} == VALUES
    assert {n: found.get(n) for n in secret} == secret


PLATFORM = {'gke': 'tpu,cpu', 'xpk': 'tpu,cpu'}


@pytest.mark.parametrize('case', [c for c in TARGETS if c != 'local'])
def test_jax_gets_the_kind_of_devices_that_was_asked_for(case, tmp_path):
  calls, _ = run(case, tmp_path, {})
  (found,) = environments(case, tmp_path, calls)
  assert found['JAX_PLATFORMS'] == PLATFORM.get(case, 'cuda,cpu')
  assert found['JAX_COMPILATION_CACHE_DIR'].startswith('/gcs/lab-runs/r/')


@pytest.mark.parametrize('case', TARGETS)
def test_what_the_user_sets_wins_over_the_launcher(case, tmp_path):
  given = {'JAX_PLATFORMS': 'rocm', 'JAX_COMPILATION_CACHE_DIR': 'gs://b/c'}
  calls, _ = run(case, tmp_path, given)
  for found in environments(case, tmp_path, calls):
    assert {name: found[name] for name in given} == given


def test_slurm_overrides_what_the_login_node_computes_on(tmp_path):
  calls, _ = run('slurm', tmp_path, {}, here={'JAX_PLATFORMS': 'cpu'})
  (found,) = environments('slurm', tmp_path, calls)
  assert found['JAX_PLATFORMS'] == 'cuda,cpu'


@pytest.mark.parametrize(
  'case', [c for c in TARGETS if not c.startswith('xpk')]
)
def test_a_secret_is_neither_printed_nor_a_word_of_a_command(case, tmp_path):
  calls, printed = run(case, tmp_path, {}, '--env=A_TOKEN', here=SECRET)
  assert 'hush' not in printed
  for words, _, files in calls:
    assert 'hush' not in ' '.join(words)
    for name, (text, mode) in files.items():
      assert mode == 0o600
      # In Kubernetes an object of its own, which not all may read.
      assert ('hush' in text) == (name == 'cdm-smoke-env.yaml')
  (found, *_) = environments(case, tmp_path, calls)
  assert found['A_TOKEN'] == SECRET['A_TOKEN']


@pytest.mark.parametrize('case', TARGETS)
def test_a_dry_run_shows_variables_but_no_secret(case, tmp_path):
  calls, printed = run(
    case,
    tmp_path,
    {'NCCL_DEBUG': 'INFO'} | ({} if 'xpk' in case else SECRET),
    '--dry-run',
  )
  assert not calls and 'hush' not in printed
  assert re.search('NCCL_DEBUG.{0,16}INFO', printed)
  if 'xpk' not in case:
    assert ('A_TOKEN' in printed) and ('***' in printed or case == 'docker')


def test_xpk_takes_no_secret():
  done = subprocess.run(
    [sys.executable, LAUNCH, 'xpk', *COMMON, *TARGETS['xpk']]
    + ['--dry-run', '--env=A_TOKEN=hush'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  assert done.returncode == 2 and 'hush' not in done.stderr
  assert 'A_TOKEN would not stay secret' in done.stderr


def test_the_pods_of_a_gpu_workload_of_xpk_are_told_of_each_other(tmp_path):
  """By the names of variables that xpk 1.16.0 sets in them."""
  calls, _ = run('xpk-gpu', tmp_path, {})
  assert '--num-nodes=2' in calls[0][0]
  (found,) = environments('xpk-gpu', tmp_path, calls)
  assert found['CDM_COORDINATOR_ADDRESS'] == 'pod-0:6002'
  assert (found['CDM_NUM_PROCESSES'], found['CDM_PROCESS_ID']) == ('2', '1')


def test_the_own_settings_of_nccl_are_read_where_a_node_has_them(tmp_path):
  """And what the user sets wins over them."""
  calls, _ = run('xpk-gpu', tmp_path, {'NCCL_B': 'user'})
  (before,) = environments('xpk-gpu', tmp_path, calls)
  assert 'NCCL_A' not in before and before['NCCL_B'] == 'user'
  scripts = tmp_path / 'gib' / 'scripts'
  scripts.mkdir(parents=True)
  (scripts / 'set_nccl_env.sh').write_text(
    'export NCCL_A=$NCCL_LIB_DIR NCCL_B=script\n', encoding='utf-8'
  )
  (found,) = environments('xpk-gpu', tmp_path, calls)
  assert found['NCCL_A'] == f'{tmp_path}/nvidia/lib64'
  assert found['NCCL_B'] == 'user'
