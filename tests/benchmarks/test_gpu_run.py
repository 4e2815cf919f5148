"""A job on a GPU machine runs within its time and leaves nothing running."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from benchmarks.gpu import run, timed_training

WAITING = """
import pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
def save(*_):
  print('saved')
  raise SystemExit(75)
signal.signal(signal.SIGTERM, save if sys.argv[2] == 'saves' else lambda *_: 0)
print('running', flush=True)
while True: time.sleep(0.05)
"""


def arguments(*words):
  return run.parse(['1', 'out', *words])


def is_alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
    return file.read().rsplit(')', 1)[1].split()[0] != 'Z'


@pytest.mark.parametrize(
  ('kind', 'code'), [('saves', 75), ('deaf', -signal.SIGKILL)]
)
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_job_that_is_out_of_time_may_save_and_leaves_no_child(
  tmp_path, kind, code
):
  before = signal.getsignal(signal.SIGTERM)
  try:
    words = [sys.executable, '-c', WAITING, str(tmp_path / 'pid'), kind]
    args = arguments('--minutes=0.03', '--grace_seconds=1.5')
    log = tmp_path / 'log.txt'
    ended = run.run(words, dict(os.environ), log, args)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert ended == code
  text = log.read_text(encoding='utf-8')
  assert text.startswith('running')
  assert ('saved' in text) == (kind == 'saves')
  child = int((tmp_path / 'pid').read_text(encoding='utf-8'))
  for _ in range(100):
    if not is_alive(child):
      break
    time.sleep(0.05)
  assert not is_alive(child)


def test_a_job_that_ends_keeps_its_code_and_its_words(tmp_path, capsysbinary):
  before = signal.getsignal(signal.SIGTERM)
  try:
    words = [sys.executable, '-c', 'print("done"); raise SystemExit(3)']
    log = tmp_path / 'log.txt'
    assert run.run(words, dict(os.environ), log, arguments()) == 3
  finally:
    signal.signal(signal.SIGTERM, before)
  assert log.read_text(encoding='utf-8') == 'done\n'
  assert b'done\n' in capsysbinary.readouterr().out


def test_the_settings_are_set_and_the_caller_may_set_them(monkeypatch):
  for name in ('XLA_PYTHON_CLIENT_PREALLOCATE', 'PYTHONPATH'):
    monkeypatch.delenv(name, raising=False)
  alone = run.environment('faces', None, [])
  together = run.environment('step_speed', None, [])
  assert alone['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'true'
  assert together['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'
  monkeypatch.setenv('XLA_PYTHON_CLIENT_PREALLOCATE', 'mine')
  monkeypatch.setenv('PYTHONPATH', 'theirs')
  own = run.environment('faces', '/site', [])
  assert own['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'mine'
  assert own['PYTHONPATH'].split(os.pathsep) == [
    str(run.ROOT),
    '/site',
    'theirs',
  ]


def test_every_job_is_a_script_that_says_how_it_is_run():
  folder = run.ROOT / 'benchmarks' / 'gpu'
  shared = (folder / 'training_arguments.py').read_text(encoding='utf-8')
  for number, name in run.JOBS.items():
    text = (folder / f'{name}.py').read_text(encoding='utf-8')
    assert f'run.py {number} OUT' in text, name
    if 'training_arguments.parser(' in text:
      text += shared
    assert "'--smoke'" in text, name


def test_two_prepared_folders_become_one(tmp_path):
  for folder, name in (('a', 'wheels'), ('b', 'data'), ('b', 'weights')):
    path = tmp_path / folder / name / f'{name}.bin'
    path.parent.mkdir(parents=True)
    path.write_text(name, encoding='utf-8')
  merged = run.merge([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'merged')
  found = sorted(
    p.relative_to(merged).as_posix() for p in merged.rglob('*.bin')
  )
  assert found == ['data/data.bin', 'weights/weights.bin', 'wheels/wheels.bin']
  assert run.install(merged / 'nothing', tmp_path / 'site') is None


def test_wheels_of_packages_that_are_there_are_not_installed(tmp_path):
  for name in ('numpy-9.9.9-py3-none-any.whl', 'jax-9.9.9-py3-none-any.whl'):
    (tmp_path / name).write_bytes(b'no wheel')
  assert run.install(tmp_path, tmp_path / 'site') is None


def stand_in(tmp_path, body):
  """A Python that runs `body` in the place of `-m cdm train`."""
  script = tmp_path / 'stand_in.py'
  script.write_text(textwrap.dedent(body), encoding='utf-8')
  python = tmp_path / 'python'
  python.write_text(
    f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n', encoding='utf-8'
  )
  python.chmod(0o755)
  return str(python)


TRAINED = """
import json, pathlib, signal, sys, time
(word,) = [w for w in sys.argv if w.startswith('--workdir=')]
workdir = pathlib.Path(word.partition('=')[2])
def save(*_):
  (workdir / 'checkpoints' / '7').mkdir(parents=True)
  row = {'step': 7, 'loss': 0.5, 'images_per_second': 9.0}
  (workdir / 'scalars.jsonl').write_text(json.dumps(row) + '\\n')
  sys.exit(75)
signal.signal(signal.SIGTERM, save)
time.sleep(60)
"""


def test_a_training_ends_by_the_clock_with_its_figures(tmp_path, monkeypatch):
  monkeypatch.setattr(
    timed_training.sys, 'executable', stand_in(tmp_path, TRAINED)
  )
  with timed_training.Stopped() as stopped:
    figures = timed_training.train(
      [], tmp_path / 'run', minutes=1.5 / 60, stopped=stopped
    )
  assert not stopped.asked
  assert figures.pop('training_seconds') >= 1.5
  assert figures == {'steps': 7, 'loss': 0.5, 'images_per_second': 9.0}


def test_a_training_that_fails_ends_the_job(tmp_path, monkeypatch):
  python = stand_in(tmp_path, 'raise SystemExit(2)')
  monkeypatch.setattr(timed_training.sys, 'executable', python)
  with timed_training.Stopped() as stopped:
    with pytest.raises(SystemExit, match='ended with 2'):
      timed_training.train([], tmp_path, minutes=1, stopped=stopped)


def test_the_jobs_need_neither_tensorflow_nor_its_data_sets():
  """They are not carried: the modules of a job load where they are absent."""
  code = """
    import sys
    for name in ('tensorflow', 'tensorflow_datasets', 'wandb', 'pyarrow'):
      sys.modules[name] = None  # importing it is an ImportError
    from benchmarks import super_resolution
    from benchmarks.gpu import classes, faces, peer_scores, sampling_speed
    from cdm.cli.commands import sweep, train
    from cdm.evaluation import sweep as sweeps
    from cdm.training import trainer
    from cdm.config import datasets, loader
    print('loaded')
  """
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code)],
    cwd=run.ROOT,
    capture_output=True,
    encoding='utf-8',
  )
  assert done.stdout == 'loaded\n', done.stderr


def test_a_stop_of_the_job_stops_its_training(tmp_path):
  """The child is asked once; a second signal would not let it save."""
  code = """
    import sys
    from benchmarks.gpu import timed_training
    words = [sys.executable, '-c', 'import signal, time\\n'
             'asked = []\\n'
             'signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\\n'
             'print("ready", flush=True)\\n'
             'while not asked: time.sleep(0.02)\\n'
             'time.sleep(0.5)\\n'
             'raise SystemExit(70 + len(asked))']
    with timed_training.Stopped() as stopped:
      print(stopped.run(words, seconds=60), stopped.asked)
  """
  process = subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(code)],
    cwd=run.ROOT,
    stdout=subprocess.PIPE,
    encoding='utf-8',
  )
  assert process.stdout.readline() == 'ready\n'
  process.send_signal(signal.SIGTERM)
  assert process.stdout.read() == '71 True\n'
  process.wait()
