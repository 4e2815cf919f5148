"""Weights & Biases is optional, keeps one run, and never ends a training."""

import io
import json
import re
import sys
import time
import types

import numpy as np
import pytest

from cdm.data import shell_commands
from cdm.reporting import metric_writer, wandb_writer


def session(workdir, step, *, project='p', said=None):
  """A session that reports a scalar and a grid; -> what it wrote to stderr."""
  stream = io.StringIO()
  with metric_writer.Reporter(
    workdir, tensorboard=False, stream=stream
  ) as reporter:
    reporter.add_writer(
      wandb_writer.WandbWriter(
        workdir,
        project=project,
        name='smoke',
        config={'train': {'batch_size': 8}},
        say=reporter.say,
      )
    )
    reporter.resume(step)
    reporter.scalars(step, {'loss': step + 0.53125})
    reporter.grid(step, 'samples', np.zeros((4, 5, 3), np.uint8))
  return stream.getvalue()


@pytest.fixture
def offline(monkeypatch):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')


def records(workdir):
  """-> {name of the folder: content of its record} of the sessions."""
  return {
    path.parent.name: path.read_bytes()
    for path in (workdir / 'wandb').glob('offline-run-*/run-*.wandb')
  }


def test_sessions_of_one_work_directory_are_one_run(tmp_path, offline):
  """Recorded offline by the real client."""
  assert session(tmp_path, 1) == ''
  saved = json.loads((tmp_path / wandb_writer.RUN).read_text(encoding='utf-8'))
  (first,) = records(tmp_path)
  # The client names a session by the second in which it begins.
  time.sleep(1.1)
  assert session(tmp_path, 2) == ''
  assert (
    json.loads((tmp_path / wandb_writer.RUN).read_text(encoding='utf-8'))
    == saved
  )
  both = records(tmp_path)
  assert all(name.endswith(f'-{saved["id"]}') for name in both)
  contents = [both.pop(first), *both.values()]
  for number, content in zip((1, 2), contents, strict=True):
    assert f'{number + 0.53125}'.encode() in content
    assert b'samples' in content and b'batch_size' in content
  assert list((tmp_path / 'wandb').rglob('samples_*.png'))


def test_another_project_begins_another_run(tmp_path, offline):
  session(tmp_path, 1)
  before = json.loads((tmp_path / wandb_writer.RUN).read_text(encoding='utf-8'))
  session(tmp_path, 1, project='q')
  after = json.loads((tmp_path / wandb_writer.RUN).read_text(encoding='utf-8'))
  assert after['project'] == 'q' and after['id'] != before['id']


class Run:
  def __init__(self, fails):
    self.fails, self.logged, self.finished = fails, [], False

  def define_metric(self, *_, **__): ...

  def log(self, values):
    if self.fails:
      raise ConnectionError('the network is down\nat length')
    self.logged.append(values)

  def finish(self):
    self.finished = True


def stand_in(monkeypatch, run, *, logged_in=True):
  """Puts a stand-in for the client in its place; -> what `init` was given."""
  given = {}

  def init(**options):
    given.update(options)
    return run

  monkeypatch.delenv('WANDB_MODE', raising=False)
  client = types.SimpleNamespace(
    login=lambda prompt: logged_in,
    init=init,
    Settings=lambda **options: options,
    Image=lambda image: image.size,
  )
  monkeypatch.setitem(sys.modules, 'wandb', client)
  return given


def test_an_error_of_the_network_is_one_line_and_the_run_goes_on(
  tmp_path, monkeypatch
):
  run = Run(fails=True)
  stand_in(monkeypatch, run)
  assert session(tmp_path, 1) == (
    'Weights & Biases is off for this session: the network is down\n'
  )
  assert len(metric_writer.read_scalars(tmp_path / 'scalars.jsonl')) == 1


def test_a_service_that_hangs_does_not_keep_the_run(tmp_path, monkeypatch):
  run = Run(fails=False)
  stand_in(monkeypatch, run)
  monkeypatch.setattr(wandb_writer, '_CLOSING_SECONDS', 0.1)
  import threading

  monkeypatch.setattr(run, 'finish', threading.Event().wait)
  assert '`wandb sync` of the folders in' in session(tmp_path, 1)


@pytest.mark.parametrize('logged_in', [True, False])
def test_without_a_login_the_run_is_recorded_offline_and_never_asks(
  tmp_path, monkeypatch, logged_in
):
  run = Run(fails=False)
  given = stand_in(monkeypatch, run, logged_in=logged_in)
  said = session(tmp_path, 3)
  assert given['mode'] == (None if logged_in else 'offline')
  assert ('not logged in' in said) == (not logged_in)
  assert given['resume'] == 'allow' and given['dir'] == str(tmp_path)
  assert run.logged == [
    {'step': 3, 'loss': 3.53125},
    {'step': 3, 'samples': (5, 4)},
  ]
  assert run.finished


def test_a_missing_package_is_one_sentence_before_the_start(monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  wandb_writer.check_installed('')
  # By uv, where this environment has no pip.
  command = re.escape(shell_commands.install('cdm[wandb]'))
  with pytest.raises(ValueError, match=f"is 'p', but .*{command}"):
    wandb_writer.check_installed('p')
