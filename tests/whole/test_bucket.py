"""A run whose work directory is in a bucket, through the front door."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import gcs_server, smoke_runs

from cdm.checkpointing import reader
from cdm.cli import bucket_arguments, main
from cdm.distributed import bucket_folders, lock_owner

# The same devices and flags as in this process, so that the numbers are.
START = """
import sys
import conftest
from support import smoke_runs
with smoke_runs.on(1):
  sys.exit(smoke_runs.cdm(*sys.argv[1:]))
"""
URL = 'gs://bucket/runs/a'
CONFIG = smoke_runs.CONFIGS / 'smoke.py'
COMMITTED = f'runs/a/checkpoints/2/{reader.COMMITTED}'


@pytest.fixture(scope='module')
def cloud(tmp_path_factory):
  with gcs_server.used(tmp_path_factory.mktemp('cache')) as server:
    yield server


def train():
  values = smoke_runs.SMALL | {'train.log_every_steps': 1}
  words = [f'--config.{k}={v}' for k, v in values.items()]
  return ['train', f'--config={CONFIG}', f'--workdir={URL}', *words]


def download(cloud, folder):
  """Copies the run from the bucket to a folder."""
  for name in cloud.names('bucket', 'runs/a/'):
    path = folder / name.removeprefix('runs/a/')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cloud.read('bucket', name))


@pytest.fixture(scope='module')
def copy(cloud, tmp_path_factory):
  """-> a copy of a run that was killed, and continued on another machine.

  It was killed when its first checkpoint was committed, and the service was
  busy now and then. While it ran, another start was refused.
  """
  cache = tmp_path_factory.mktemp('first')
  root = smoke_runs.CONFIGS.parent
  environment = os.environ | {
    'XDG_CACHE_HOME': str(cache),
    'PYTHONPATH': f'{root}:{root / "tests"}',
  }
  first = subprocess.Popen(
    [sys.executable, '-c', START, *train()],
    cwd=root,
    env=environment,
    stderr=subprocess.PIPE,
    text=True,
    encoding='utf-8',
  )
  cloud.on_write = lambda bucket, name: (
    first.send_signal(signal.SIGKILL) if name == COMMITTED else None
  )
  try:
    while f'runs/a/{lock_owner.LOCK}' not in cloud.names('bucket'):
      assert first.poll() is None, first.stderr.read()
      time.sleep(0.05)
    with pytest.MonkeyPatch.context() as patch:
      said = []
      patch.setattr(main, 'report_error', lambda e, *_: said.append(str(e)))
      smoke_runs.cdm(*train())
    assert first.wait(timeout=300) == -signal.SIGKILL, first.stderr.read()
  finally:
    first.kill()
    first.communicate()
    cloud.on_write = lambda bucket, name: None
  assert f'--workdir={URL} is in use by `cdm train` on ' in said[0]
  assert f'(process {first.pid}, ' in said[0]
  assert cloud.names('bucket', COMMITTED)
  # The records are never older than the newest checkpoint.
  scalars = cloud.read('bucket', 'runs/a/scalars.jsonl').decode()
  steps = [json.loads(line)['step'] for line in scalars.splitlines()]
  assert {1, 2} <= set(steps)

  cloud.fail_every = 150
  with smoke_runs.on(1):
    assert smoke_runs.cdm(*train()) == 0
  cloud.fail_every = 0
  folder = tmp_path_factory.mktemp('copy')
  download(cloud, folder)
  return folder


@pytest.fixture(scope='module')
def local(tmp_path_factory):
  """-> the same run on this machine, never killed."""
  folder = tmp_path_factory.mktemp('local') / 'run'
  smoke_runs.train('smoke', folder, train__log_every_steps=1)
  return folder


def test_a_killed_run_continues_elsewhere_bit_for_bit(copy, local):
  assert smoke_runs.record(copy) == smoke_runs.record(local)
  here, there = smoke_runs.state(local, 4), smoke_runs.state(copy, 4)
  assert here.keys() == there.keys()
  for name in here:
    np.testing.assert_array_equal(there[name], here[name], err_msg=name)
  grid = 'grids/samples_00000004.png'
  assert (copy / grid).read_bytes() == (local / grid).read_bytes()
  assert len(list((copy / 'tensorboard').iterdir())) >= 1
  assert not (copy / lock_owner.LOCK).exists()
  assert (copy / 'sessions.jsonl').read_text(encoding='utf-8').count(
    'complete'
  ) == 1


def test_samples_of_a_run_in_a_bucket_are_those_of_the_same_run_here(
  copy, local, tmp_path, capsys
):
  for name, workdir in (('here', local), ('there', URL)):
    with smoke_runs.on(1):
      code = smoke_runs.cdm(
        *('sample', f'--config={CONFIG}', f'--workdir={workdir}'),
        *('--num=2', f'--out={tmp_path / name}'),
      )
    assert code == 0
  for name in ('samples.npz', 'classes.json'):
    here, there = (tmp_path / where / name for where in ('here', 'there'))
    assert here.read_bytes() == there.read_bytes()
  capsys.readouterr()
  code = smoke_runs.cdm('report', f'--run={URL}', f'--out={tmp_path / "page"}')
  assert code == 0
  assert '4/4' in capsys.readouterr().out


def test_a_folder_without_a_run_is_named_by_its_url(cloud, tmp_path, capsys):
  code = smoke_runs.cdm(
    *('sample', f'--config={CONFIG}', '--workdir=gs://bucket/none'),
    f'--out={tmp_path / "out"}',
  )
  assert code == 2
  last = capsys.readouterr().err.splitlines()[-1]
  assert last.startswith(
    'cdm: error: There is no checkpoint in gs://bucket/none; train there'
  )
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (
      ['train', f'--config={CONFIG}', '--workdir=gs://another/run'],
      "--workdir=gs://another/run: there is no bucket 'another'.",
    ),
    (
      ['sample', f'--config={CONFIG}', f'--workdir={URL}'],
      'Give a folder of this machine: --out=DIR.',
    ),
    (
      ['evaluate', '--samples=x', '--reference=gs://bucket/none.npz'],
      '--reference=gs://bucket/none.npz: there is no such object',
    ),
    (
      ['evaluate', '--samples=x', '--reference=gs://bucket/images'],
      '--reference=gs://bucket/images is a URL',
    ),
    (
      ['sample', f'--config={CONFIG}', f'--workdir={URL}', '--out=gs://b/o'],
      '--out=gs://b/o is a URL',
    ),
  ],
)
def test_what_cannot_be_in_a_bucket_is_one_sentence(
  cloud, words, message, capsys, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  assert smoke_runs.cdm(*words) == 2
  assert message in capsys.readouterr().err.splitlines()[-1]
  assert not list(tmp_path.iterdir())


def test_every_form_of_a_trained_model_may_be_in_a_bucket(cloud):
  cloud.put('bucket', 'stats.npz', b'statistics')
  args = main.parse([
    *('evaluate', f'--samples=configs/smoke.py@{URL}'),
    '--reference=gs://bucket/stats.npz',
  ])  # fmt: skip
  bucket_arguments.replace_urls(args)
  path, _, folder = args.samples.partition('@')
  assert path == 'configs/smoke.py'
  assert bucket_folders.url_of(folder) == URL
  with open(args.reference, 'rb') as file:
    assert file.read() == b'statistics'
  args = main.parse(['sweep', f'--samples={URL}@eval', '--reference=r.npz']
    + ['--try=level=0', '--out=o'])  # fmt: skip
  bucket_arguments.replace_urls(args)
  folder, _, split = args.samples.rpartition('@')
  assert (bucket_folders.url_of(folder), split) == (URL, 'eval')


def test_a_run_may_start_from_the_weights_of_one_in_a_bucket(copy, tmp_path):
  smoke_runs.train('smoke', tmp_path / 'run', train__init_from=URL)
  config = json.loads(
    (tmp_path / 'run' / 'config.json').read_text(encoding='utf-8')
  )
  assert config['train']['init_from'] == f'{URL}@4'
