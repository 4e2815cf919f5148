"""The launchers: what they would run, and the local one at work."""

import importlib.util
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import yaml

from cdm.config import loader
from cdm.data import pipeline

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / 'launch' / 'launch.py'
# Of the extra `dev`, installed beside this Python.
SHELLCHECK = pathlib.Path(sys.executable).with_name('shellcheck')

# What quoting has to survive.
NASTY = (
  """--config.train_data.path=/a b/it's "$HOME" `id` $(id) \\ & #@x@ ü%j"""
)
IMAGE = '--image=images.example/p/r/cdm:tpu'
GCS = '--storage=gs://lab-runs'
ON_GCS = '--workdir=/gcs/lab-runs/it is'
TARGETS = {
  'local': ['--processes=2', '--python=py thon'],
  'docker': ['--extra=cuda'],
  'slurm': ['--nodes=2', '--gpus_per_node=8', '--python=py thon'],
  'tpu-vm': [IMAGE, '--type=v5litepod-16', '--zone=z', '--spot', GCS],
  'gke': [IMAGE, '--tpu=tpu-v6e-slice', '--topology=4x4', '--queue=q', GCS],
  'gke-gpu': [IMAGE, '--gpu=nvidia-h100-80gb', '--nodes=2', '--spot', GCS],
  'xpk': [IMAGE, '--cluster=c', '--tpu_type=v5litepod-16'],
  'skypilot': ['--accelerators=H100:8', '--nodes=2', GCS],
  'vertex': [IMAGE, '--region=r', '--machine_type=m', '--nodes=3', GCS],
  'batch': [IMAGE, '--location=l', '--machine_type=m', GCS],
}


def launch(*arguments, path=None):
  """-> the finished launcher."""
  environment = dict(os.environ, NO_COLOR='1')
  if path:
    environment['PATH'] = f'{path}:{environment["PATH"]}'
  return subprocess.run(
    [sys.executable, str(LAUNCH), *arguments],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=60,
    encoding='utf-8',
  )


def dry_run(case, *more):
  """-> what a target would do, as shell text."""
  done = launch(
    case.removesuffix('-gpu'),
    '--config=configs/smoke.py',
    ON_GCS,
    *TARGETS[case],
    '--dry-run',
    *more,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def files(shell):
  """-> {name: text} of the files that the shell text writes."""
  pattern = r"^cat > (\S+) <<'END_OF_FILE'\n(.*?)\nEND_OF_FILE$"
  return dict(re.findall(pattern, shell, re.MULTILINE | re.DOTALL))


def as_kubernetes(word):
  """-> a word of a command as a container gets it."""

  def replaced(match):
    return '$' if match[0] == '$$' else 'REPLACED'

  return re.sub(r'\$\$|\$\(\w+\)', replaced, word)


def bash_words(text):
  """-> the words that bash reads in a line."""
  script = f"printf '%s\\0' {text}"
  said = subprocess.run(['bash', '-c', script], capture_output=True, check=True)
  return said.stdout.decode(errors='surrogateescape').split('\0')[:-1]


def words_said(case, shell):
  """-> the words of the cdm command, as whoever reads the text gets them."""
  written = files(shell)
  last = bash_words(shell.splitlines()[-1])
  if case == 'local':
    return last
  if case == 'docker':
    (image,) = [word for word in last if word.startswith('cdm:cuda')]
    return last[last.index(image) :]
  if case == 'xpk':
    (command,) = [w for w in last if w.startswith('--command=exec ')]
    return bash_words(as_kubernetes(command.partition('exec ')[2]))
  (name, text) = next(iter(written.items()))
  if case == 'skypilot':
    text = yaml.safe_load(text)['run']
  if case in ('slurm', 'tpu-vm', 'skypilot'):
    (line,) = [s for s in text.splitlines() if s.startswith('  ') and NAME in s]
    return bash_words(line)
  if case in ('gke', 'gke-gpu'):
    (job,) = yaml.safe_load(text)['spec']['replicatedJobs']
    (pod,) = job['template']['spec']['template']['spec']['containers']
    return [as_kubernetes(word) for word in pod['command']]
  if case == 'vertex':
    pools = yaml.safe_load(text)['workerPoolSpecs']
    commands = [pool['containerSpec']['command'] for pool in pools]
    assert commands[0] == commands[1]
    return commands[0]
  (group,) = json.loads(text)['taskGroups']
  return group['taskSpec']['runnables'][0]['container']['commands']


NAME = 'configs/smoke.py'


@pytest.mark.parametrize('case', TARGETS)
def test_the_command_arrives_word_for_word(case):
  words = words_said(case, dry_run(case, NASTY, '--', '--debug'))
  workdir = ON_GCS
  assert words.count(NASTY) == 1
  assert words.count('--config=configs/smoke.py') == 1
  assert words.count(workdir) == 1
  assert '--debug' in words
  if case == 'docker':
    assert '--command=train' in words
  else:
    assert 'train' in words


HOSTILE = (
  *('\n', '\r\n', '\t', '\x1b', '\x7f', '\x85', '\u2028', '\u2029', '\ufeff'),
  *('\U0001f600', '\U0010ffff', '\ue000', 'ü', '"', "'", "''", '\\', '\\n'),
  *('$', '$$', '$(id)', '$(HOME)', '`', '%j', '@', '@name@', '#', ' #', ': '),
  *('- ', '{', '}', '[', ']', '!', '&', '*', '|', '>', '~', ';', ' ', '0', 'a'),
  *('\nEND_OF_FILE\n', '\n  - x', '\n#SBATCH --nodes=9\n', "$'\\x41'"),
)


@pytest.mark.parametrize('case', TARGETS)
def test_any_value_comes_back_from_what_is_rendered(case):
  """From YAML, JSON and bash, each read by its own reader."""
  choose = random.Random(0)
  values = [
    *HOSTILE,
    *(''.join(choose.choices(HOSTILE, k=12)) for _ in range(40)),
  ]
  given = [f'--config.key{n}={value}' for n, value in enumerate(values)]
  workdir = f'{ON_GCS}/x"\n\u2028\'\U0001f600'
  rendered = dry_run(case, *given, workdir)
  words = words_said(case, rendered)
  assert [word for word in words if word.startswith('--config.key')] == given
  assert workdir in words
  for text in files(rendered).values():
    # No reader takes any of these for the end of a line.
    assert not re.search('[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]', text)
    assert '\n#SBATCH --nodes=9' not in text


def test_a_directive_of_slurm_holds_quotes_and_backslashes():
  """sbatch takes a backslash for an escape and groups by quotes."""
  given = 'it\'s "a" \\ b#c'
  (text,) = files(dry_run('slurm', f'--account={given}')).values()
  (line,) = [s for s in text.splitlines() if '--account' in s]
  (word,) = shlex.split(line.removeprefix('#SBATCH '))
  assert word == f'--account={given}'


@pytest.mark.parametrize('case', ['slurm', 'gke', 'batch'])
def test_a_name_that_is_not_utf_8_is_refused_where_it_cannot_pass(case):
  done = subprocess.run(
    [sys.executable, LAUNCH, case, *TARGETS[case], '--dry-run']
    + ['--config=configs/smoke.py', ON_GCS, b'--config.a=\xff'],
    cwd=ROOT,
    capture_output=True,
    timeout=60,
  )
  assert b'Traceback' not in done.stderr
  if case == 'slurm':
    words = words_said(case, done.stdout.decode())
    assert '--config.a=\udcff' in words
  else:
    assert done.returncode == 2
    assert b'holds bytes that are not UTF-8' in done.stderr


@pytest.mark.parametrize('case', TARGETS)
def test_no_placeholder_is_left(case):
  assert not re.search(r'@[a-z_]+@', dry_run(case))


needs_shellcheck = pytest.mark.skipif(
  not SHELLCHECK.exists(), reason='shellcheck has no wheel for this machine'
)


@needs_shellcheck
@pytest.mark.parametrize('case', ['slurm', 'tpu-vm', 'skypilot'])
def test_scripts_are_sound(case, tmp_path):
  for name, text in files(dry_run(case, NASTY)).items():
    if case == 'skypilot':
      task = yaml.safe_load(text)
      text = f'#!/bin/bash\n{task["setup"]}\n{task["run"]}'
    script = tmp_path / name
    script.write_text(text, encoding='utf-8')
    # 2016: quotes around a $ that is meant.
    subprocess.run([SHELLCHECK, '--exclude=2016', script], check=True)


@needs_shellcheck
def test_own_scripts_are_sound():
  scripts = sorted((ROOT / 'launch').glob('*.sh'))
  scripts += sorted((ROOT / 'benchmarks').glob('*.sh'))
  subprocess.run([SHELLCHECK, '--shell=bash', '-x', *scripts], check=True)


def environment_said(case, shell):
  """-> {name: value} that the cdm command gets, read as its target reads it."""
  last = bash_words(shell.splitlines()[-1])
  if case == 'docker':
    pairs = [w.removeprefix('--env=') for w in last if w.startswith('--env=')]
    return dict(pair.split('=', 1) for pair in pairs)
  if case == 'xpk':
    (command,) = [w for w in last if w.startswith('--command=exec ')]
    words = bash_words(as_kubernetes(command.partition('exec ')[2]))
    pairs = words[1 : words.index('cdm')]
    return dict(pair.split('=', 1) for pair in pairs)
  (name, text) = next(iter(files(shell).items()))
  if case in ('gke', 'gke-gpu'):
    (job,) = yaml.safe_load(text)['spec']['replicatedJobs']
    (pod,) = job['template']['spec']['template']['spec']['containers']
    found = pod['env']
  elif case == 'vertex':
    pools = yaml.safe_load(text)['workerPoolSpecs']
    found = pools[-1]['containerSpec']['env']
  elif case == 'batch':
    (group,) = json.loads(text)['taskGroups']
    return group['taskSpec']['runnables'][0]['environment']['variables']
  else:
    if case == 'skypilot':
      return yaml.safe_load(text)['envs']
    # The lines that set it, then what bash has.
    lines = [s for s in text.splitlines() if re.search('CACHE|--env=', s)]
    if case == 'tpu-vm':
      words = [word for line in lines for word in bash_words(line)]
      pairs = [w.removeprefix('--env=') for w in words if '--env=' in w]
      return dict(pair.split('=', 1) for pair in pairs)
    script = '\n'.join([*lines, 'printf "%s" "$JAX_COMPILATION_CACHE_DIR"'])
    said = subprocess.run(
      ['bash', '-uc', script],
      env={'PATH': os.environ['PATH']},
      capture_output=True,
      check=True,
    )
    return {'JAX_COMPILATION_CACHE_DIR': said.stdout.decode()}
  return {
    one['name']: as_kubernetes(one['value']) for one in found if 'value' in one
  }


@pytest.mark.parametrize('workdir', [ON_GCS, f"{ON_GCS}/a'$(HOME)\u2028$b"])
@pytest.mark.parametrize('case', TARGETS)
def test_compiled_programs_outlive_the_container(case, workdir):
  """In the work directory, which a restart finds again.

  The target `local` has no container: the user's own cache outlives it.
  """
  shell = dry_run(case, workdir)
  if case == 'local':
    assert 'JAX_COMPILATION_CACHE_DIR' not in shell and 'docker' not in shell
    return
  found = environment_said(case, shell)['JAX_COMPILATION_CACHE_DIR']
  given = workdir.removeprefix('--workdir=')
  assert found == f'{given}/compilation_cache'
  if case == 'docker':  # The folder is on the host.
    assert f'--volume={given}:{given}' in bash_words(shell.splitlines()[-1])


def test_a_command_without_a_work_directory_caches_on_the_storage():
  done = launch(
    'batch',
    '--config=configs/smoke.py',
    '--command=sample',
    *TARGETS['batch'],
    '--dry-run',
  )
  found = environment_said('batch', done.stdout)
  assert found == {
    'JAX_COMPILATION_CACHE_DIR': '/gcs/lab-runs/compilation_cache',
    'JAX_PLATFORMS': 'cpu',
  }


def test_containers_have_the_shared_memory_that_every_config_needs():
  """Docker's own 64 MB are too little, and a full one kills the workers."""
  needed = 0
  for path in sorted((ROOT / 'configs').glob('*.py')):
    c = loader.load(path)
    if 'pipeline' in c:
      # All images on one machine: more than any host of a slice reads.
      rows, size = c.train.batch_size, c.pipeline.image_size
      count = c.pipeline.worker_count
      needed = max(needed, pipeline.shared_memory_bytes(count, rows, size))
  assert 2**28 < needed < 2**30
  given = {
    case: re.search(r'--shm-size=(\d+)g\b', dry_run(case))
    for case in ('docker', 'tpu-vm', 'batch')
  }
  assert all(int(found[1]) * 2**30 > needed for found in given.values())
  for case in ('gke', 'gke-gpu'):
    (manifest,) = files(dry_run(case)).values()
    (job,) = yaml.safe_load(manifest)['spec']['replicatedJobs']
    pod = job['template']['spec']['template']['spec']
    (container,) = pod['containers']
    assert {'name': 'shm', 'mountPath': '/dev/shm'} in container['volumeMounts']
    assert {'name': 'shm', 'emptyDir': {'medium': 'Memory'}} in pod['volumes']


@pytest.mark.parametrize('case', ['docker', 'tpu-vm', 'batch'])
def test_containers_may_open_a_file_for_each_of_thousands_of_shards(case):
  limits = re.findall(r'--ulimit=nofile=(\d+):(\d+)\b', dry_run(case))
  assert limits == [('65536', '65536')]


def test_slurm_keeps_a_cache_that_the_user_has_chosen():
  (text,) = files(dry_run('slurm')).values()
  lines = [s for s in text.splitlines() if 'CACHE' in s and '#' not in s]
  said = subprocess.run(
    ['bash', '-uc', '\n'.join([*lines, 'echo "$JAX_COMPILATION_CACHE_DIR"'])],
    env={'PATH': os.environ['PATH'], 'JAX_COMPILATION_CACHE_DIR': '/own'},
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  )
  assert said.stdout == '/own\n'


def test_one_process_needs_no_coordinator():
  shell = launch(
    'local', '--config=configs/smoke.py', '--workdir=w', '--dry-run'
  ).stdout
  assert shell.endswith('-m cdm train --config=configs/smoke.py --workdir=w\n')


def test_gke_counts_hosts_and_restarts_preempted_ones():
  (text,) = files(dry_run('gke', '--slices=2', '--restarts=7')).values()
  spec = yaml.safe_load(text)['spec']
  (job,) = spec['replicatedJobs']
  pods = job['template']['spec']
  assert (job['replicas'], pods['parallelism'], pods['completions']) == (
    2,
    4,
    4,
  )
  assert spec['failurePolicy']['maxRestarts'] == 7
  (rule,) = pods['podFailurePolicy']['rules']
  assert rule['onExitCodes']['operator'] == 'In'
  assert {75, 77, 1, 137} & set(rule['onExitCodes']['values']) == set()
  assert {2, 3, 4, 5, 76} <= set(rule['onExitCodes']['values'])


def test_gke_without_spot_asks_for_no_spot_nodes():
  assert 'gke-spot' not in dry_run('gke')
  # Chosen, and tolerated.
  assert dry_run('gke-gpu').count('cloud.google.com/gke-spot') == 2


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['slrum'], "no target 'slrum'. Did you mean slurm?"),
    (['local'], '--config is missing: cdm train needs it'),
    (['local', '--config=configs/smoke.py'], '--workdir is missing'),
    (['local', '--config=no.py', '--workdir=w'], 'there is no such file'),
    (['slurm', '--node=2'], 'Did you mean --nodes?'),
    (['gke', '--gpu=g', GCS], 'required: --image'),
    (['local', '--', '--dry-run'], 'cdm would get it'),
    (['local', '--config.a.b', '3'], '--config.a.b needs its value'),
    (['local', '--name=Ab'], 'lowercase letters'),
    (['local', '--name=a\nb'], 'line break'),
    (['local', '--processes=0'], 'argument --processes'),
    (['local', '--restarts=-1'], '--restarts=-1: 0 or more'),
    (['docker', '--push', '--env=A=1'], '--push builds and pushes'),
    (['local', '--env=A'], '--env: A has no value here'),
    (
      ['xpk', IMAGE, '--cluster=c', '--tpu_type=v5litepod-8', '--nodes=2'],
      '--nodes=2 is for GPUs; TPUs have --slices',
    ),
    (
      ['gke', IMAGE, '--tpu=t', '--topology=4', GCS],
      'needs the shape of one slice',
    ),
    (
      ['gke', IMAGE, '--tpu=t', '--topology=3x3', GCS],
      'hosts of --chips_per_host=4 do not divide',
    ),
    (
      ['tpu-vm', IMAGE, '--type=v9-8', '--zone=z', GCS],
      "no software version is known for 'v9'",
    ),
    (
      ['batch', IMAGE, '--location=l', '--machine_type=m', '--storage=/x'],
      'expected gs://BUCKET or SERVER:/EXPORT',
    ),
    (
      ['batch', IMAGE, '--location=l', '--machine_type=m', '--storage=h:/x'],
      'would be lost with the machine. --storage=h:/x is seen as /nfs',
    ),
    (
      ['skypilot', '--accelerators=H100:8', '--storage=h:/x'],
      'mounts buckets alone',
    ),
  ],
)
def test_bad_input_is_named(arguments, message):
  if len(arguments) > 1 and not any('config' in word for word in arguments):
    target, *rest = arguments
    arguments = [target, '--config=configs/smoke.py', ON_GCS, *rest]
  done = launch(arguments[0], '--dry-run', *arguments[1:])
  assert done.returncode == 2
  assert message in done.stderr
  assert 'Traceback' not in done.stderr


def test_a_config_outside_the_image_is_named(tmp_path):
  config = tmp_path / 'mine.py'
  config.write_text('', encoding='utf-8')
  done = launch(
    'xpk', *TARGETS['xpk'], f'--config={config}', ON_GCS, '--dry-run'
  )
  assert done.returncode == 2
  assert 'the image does not hold it' in done.stderr


def test_a_missing_tool_is_named(tmp_path):
  python = tmp_path / 'python'
  python.symlink_to(sys.executable)
  done = subprocess.run(
    [sys.executable, str(LAUNCH), 'slurm', '--config=configs/smoke.py']
    + ['--workdir=w'],
    cwd=ROOT,
    env={'PATH': str(tmp_path)},
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  assert done.returncode == 2
  assert 'slurm needs sbatch, which is not installed here' in done.stderr
  done = launch(
    'skypilot', '--config=configs/smoke.py', ON_GCS, *TARGETS['skypilot']
  )
  if not shutil.which('sky'):  # What installs it is this Python, not another.
    words = bash_words(done.stderr.partition('Install it: ')[2])
    own = [sys.executable, '-m', 'pip', 'install']
    if importlib.util.find_spec('pip') is None:  # As in an environment of uv.
      own = ['uv', 'pip', 'install', '--python', sys.executable]
    assert words[: len(own)] == own
    assert "'skypilot[gcp]'" in done.stderr


def test_docker_finds_the_work_directory_made_by_its_user(tmp_path):
  """The daemon would make it as root, and the run could not write into it."""
  tool, workdir = tmp_path / 'docker', tmp_path / 'runs of é' / 'base'
  log = tmp_path / 'log'
  tool.write_text(
    '#!/bin/sh\necho "$1 $(ls -d "$D")" >> "$LOG"\n', encoding='utf-8'
  )
  tool.chmod(0o755)
  done = subprocess.run(
    [sys.executable, str(LAUNCH), 'docker', '--config=configs/smoke.py']
    + [f'--workdir={workdir}'],
    cwd=ROOT,
    env={
      **os.environ,
      'PATH': f'{tmp_path}:/usr/bin:/bin',
      'D': str(workdir),
      'LOG': str(log),
    },
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  assert done.returncode == 0, done.stderr
  lines = log.read_text(encoding='utf-8').splitlines()
  assert lines == [f'build {workdir}', f'run {workdir}']
  log.unlink()
  unwritable = log / 'x'
  log.touch()  # A file is in the way.
  done = launch(
    'docker', '--config=configs/smoke.py', f'--workdir={unwritable}',
    path=tmp_path,
  )  # fmt: skip
  assert done.returncode == 1 and not log.read_text(encoding='utf-8')


@pytest.mark.parametrize('target', ['local', 'slurm'])
def test_a_program_that_the_system_cannot_start_is_named(
  tmp_path, target, monkeypatch
):
  """As the scripts of an environment whose Python was removed."""
  # The system would go on to the next program of that name, if there is one.
  monkeypatch.setenv('PATH', str(tmp_path))
  for name in ('sbatch', 'python'):
    (tmp_path / name).write_text('#!/nonexistent/python\n', encoding='utf-8')
    (tmp_path / name).chmod(0o755)
  words = ['--config=configs/smoke.py', '--workdir=w']
  if target == 'local':
    words += [f'--python={tmp_path}/python', '--processes=2']
  done = launch(target, *words, path=tmp_path)
  assert done.returncode == 2
  assert 'cannot be started (No such file' in done.stderr
  assert 'Traceback' not in done.stderr and '--python' in done.stderr


def test_the_environment_that_setup_made_elsewhere_is_used(tmp_path):
  python = tmp_path / 'my env' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.symlink_to(sys.executable)
  done = subprocess.run(
    [sys.executable, LAUNCH, 'local', '--config=configs/smoke.py']
    + ['--workdir=w', '--dry-run'],
    env={**os.environ, 'CDM_VENV': str(tmp_path / 'my env')},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  )
  assert bash_words(done.stdout.splitlines()[-1])[0] == str(python)


def test_the_tool_gets_the_file_that_was_shown(tmp_path):
  tool = tmp_path / 'sbatch'
  tool.write_text('#!/bin/sh\ncat "$1"\nexit 3\n', encoding='utf-8')
  tool.chmod(0o755)
  arguments = ['--config=configs/smoke.py', '--workdir=w']
  done = launch('slurm', *arguments, path=tmp_path)
  assert done.returncode == 3
  (text,) = files(launch('slurm', *arguments, '--dry-run').stdout).values()
  assert done.stdout.strip() == text


@pytest.mark.parametrize(
  'code, state, count, queued',
  [
    (75, 'RUNNING', 0, True),
    (77, 'RUNNING', 0, True),
    (76, 'RUNNING', 0, False),  # the tasks never found each other
    (137, 'RUNNING', 49, True),
    (134, 'RUNNING', 0, True),  # JAX without process 0
    (135, 'RUNNING', 0, True),  # SIGBUS
    (139, 'RUNNING', 0, True),  # SIGSEGV
    (4, 'RUNNING', 0, False),
    (75, 'RUNNING', 50, False),
    (75, 'COMPLETING', 0, False),  # cancelled, or queued again by others
    (1, 'RUNNING', 0, True),  # a GPU that failed; cdm counts what is in vain
    (1, 'RUNNING', 50, False),
    (0, 'RUNNING', 0, False),
  ],
)
def test_slurm_queues_again_what_was_preempted(
  tmp_path, code, state, count, queued
):
  tool(tmp_path, 'srun', f'exit {code}')
  tool(tmp_path, 'squeue', f'echo {state}')
  tool(tmp_path, 'scontrol', 'echo "$*" >> calls')
  tool(tmp_path, 'sleep', '')
  (script,) = files(dry_run('slurm')).values()
  done = subprocess.run(
    ['bash', '-c', script],
    cwd=tmp_path,
    env={
      'PATH': f'{tmp_path}:{os.environ["PATH"]}',
      'SLURM_JOB_ID': '7',
      'SLURM_JOB_NODELIST': 'n',
      'SLURM_RESTART_COUNT': str(count),
    },
    stdout=subprocess.DEVNULL,
  )
  assert done.returncode == code
  calls = tmp_path / 'calls'
  assert (calls.read_text(encoding='utf-8') if calls.exists() else '') == (
    'requeue 7\n' if queued else ''
  )


def tool(folder, name, text):
  """Puts a stand-in for a program into a folder."""
  path = folder / name
  path.write_text(f'#!/bin/bash\n{text}\n', encoding='utf-8')
  path.chmod(0o755)


# The local launcher at work. A stand-in for Python, given as --python, runs
# this instead of cdm: it finds its number and the start's, and does as told.
STAND_IN = """\
import os, re, signal, sys, time
here = {here!r}
text = ' '.join(sys.argv)
number = int((re.findall(r'--process_id=(\\d+)', text) or [0])[0])
starts = os.path.join(here, f'starts{{number}}')
open(starts, 'a').write('x')
start = os.path.getsize(starts)
def ask(signum, _):
  open(os.path.join(here, f'signals{{number}}'), 'a').write(f'{{signum}} ')
  sys.exit(130 if signum == signal.SIGINT else 75)
signal.signal(signal.SIGINT, ask)
signal.signal(signal.SIGTERM, ask)
print('start', start, flush=True)
{act}
"""


@pytest.fixture
def stand_in(tmp_path):
  def make(act):
    code = tmp_path / 'stand_in.py'
    code.write_text(
      STAND_IN.format(here=str(tmp_path), act=textwrap.dedent(act)),
      encoding='utf-8',
    )
    # Through a shell: the path in a #! line must not hold spaces.
    script = tmp_path / 'stand_in'
    words = shlex.join([sys.executable, '-S', str(code)])
    script.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding='utf-8')
    script.chmod(0o755)
    return [
      'local',
      '--config=configs/smoke.py',
      '--workdir=w',
      '--processes=2',
      f'--python={script}',
    ]

  return make


def test_local_marks_lines_and_ends_well(stand_in):
  done = launch(*stand_in('print("a\\nb ü")'))
  assert done.returncode == 0, done.stderr
  assert sorted(done.stdout.splitlines()) == sorted(
    f'[{i}] {text}' for i in (0, 1) for text in ('start 1', 'a', 'b ü')
  )


def test_local_starts_again_what_was_preempted(stand_in, tmp_path):
  done = launch(*stand_in('sys.exit([75, 77, 0][start - 1])'))
  assert done.returncode == 0
  assert 'the run was preempted; restart 1 of 50' in done.stderr
  assert 'the run lost a process; restart 2 of 50' in done.stderr
  assert (tmp_path / 'starts1').read_text(encoding='utf-8') == 'xxx'


@pytest.mark.parametrize('code', [1, 75, 77, 134, 135, 137, 139, 143])
@pytest.mark.parametrize('case', ['gke', 'gke-gpu', 'xpk', 'skypilot', 'batch'])
def test_losing_process_0_or_a_gpu_is_a_restart_in_every_cloud(case, code):
  """The launchers on machines of their own have tests of their scripts."""
  shell = dry_run(case)
  if case == 'xpk':
    # xpk restarts what a signal killed by itself.
    (word,) = [w for w in bash_words(shell) if w.startswith('--restart-on-ex')]
    listed = word.partition('=')[2].split(',')
    assert str(code) in listed or code > 128
    return
  (text,) = files(shell).values()
  if case in ('gke', 'gke-gpu'):
    (job,) = yaml.safe_load(text)['spec']['replicatedJobs']
    (rule,) = job['template']['spec']['podFailurePolicy']['rules']
    assert code not in rule['onExitCodes']['values']
  elif case == 'skypilot':
    read = yaml.safe_load(text)
    recovery = read['resources']['job_recovery']
    (ends,) = re.findall(r'case \$code in ([0-9|]+)\) break', read['run'])
    assert (code == 75) == (code in recovery['recover_on_exit_codes'])
    assert (code == 75) == (str(code) in ends.split('|'))  # starts in place
  else:
    (policy,) = json.loads(text)['taskGroups'][0]['taskSpec'][
      'lifecyclePolicies'
    ]
    assert code in policy['actionCondition']['exitCodes']


def test_local_gives_up_on_a_fault_that_comes_each_time(stand_in, tmp_path):
  done = launch(*stand_in('sys.exit(1)'))
  assert done.returncode == 1
  assert 'the run ended with a fault; restart 3 of 50' in done.stderr
  assert (tmp_path / 'starts0').read_text(encoding='utf-8') == 'xxxx'


def test_local_gives_up_after_so_many_restarts(stand_in, tmp_path):
  done = launch(*stand_in('sys.exit(75)'), '--restarts=1')
  assert done.returncode == 75
  assert (tmp_path / 'starts0').read_text(encoding='utf-8') == 'xx'


def test_local_ends_the_others_and_starts_again_after_a_kill(
  stand_in, tmp_path
):
  done = launch(
    *stand_in("""\
      if start == 1 and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
      if start == 1:
        time.sleep(3600)
    """),
    '--restarts=1',
  )
  assert done.returncode == 0, done.stderr
  assert 'the run died of signal 9; restart 1 of 1' in done.stderr
  assert (tmp_path / 'signals0').read_text(encoding='utf-8').split() == ['15']


def test_local_knows_the_killed_one_from_who_outlives_it(stand_in, tmp_path):
  done = launch(
    *stand_in("""\
      if start == 1 and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
      sys.exit(1 if start == 1 else 0)
    """)
  )
  assert done.returncode == 0, done.stderr
  assert 'the run died of signal 9' in done.stderr


@pytest.mark.parametrize('code', [2, 76])
def test_local_does_not_repeat_what_would_end_so_again(
  stand_in, tmp_path, code
):
  """2: bad input. 76: the processes never found each other."""
  done = launch(*stand_in(f'sys.exit({code})'))
  assert done.returncode == code
  assert (tmp_path / 'starts0').read_text(encoding='utf-8') == 'x'


@pytest.mark.parametrize(
  'number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_local_hands_a_signal_to_all_once(stand_in, tmp_path, number, code):
  # Out of the terminal's group, or a Ctrl-C would come twice.
  act = 'print(os.getpgrp() == os.getpid(), flush=True); time.sleep(3600)'
  process = subprocess.Popen(
    [sys.executable, LAUNCH, *stand_in(act)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
    encoding='utf-8',
  )
  said = {process.stdout.readline() for _ in range(4)}
  assert said == {f'[{i}] {s}\n' for i in (0, 1) for s in ('start 1', 'True')}
  os.killpg(process.pid, number)
  assert process.wait(30) == code
  process.stdout.close()
  for i in (0, 1):
    assert (tmp_path / f'signals{i}').read_text(
      encoding='utf-8'
    ) == f'{int(number)} '
    assert (tmp_path / f'starts{i}').read_text(encoding='utf-8') == 'x'
