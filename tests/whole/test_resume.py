"""A run that is stopped and started again ends as if nothing had happened."""

import json
import shutil

import numpy as np
import pytest
from support import smoke_runs
from support.smoke_runs import record, state

EVALUATED = {'eval__every_steps': 4}


@pytest.fixture(scope='module')
def whole():
  return smoke_runs.trained() / 'base'


@pytest.fixture(scope='module')
def resumed(tmp_path_factory):
  """Two steps, an end, a start, and two more."""
  workdir = tmp_path_factory.mktemp('resumed') / 'run'
  smoke_runs.train('smoke', workdir, train__num_steps=2, **EVALUATED)
  smoke_runs.train('smoke', workdir, **EVALUATED)
  return workdir


def test_resuming_changes_no_bit_of_the_state(whole, resumed):
  expected, mine = state(whole, 4), state(resumed, 4)
  assert mine.keys() == expected.keys()
  fields = {name.split('/')[0] for name in expected}
  assert fields == {'step', 'params', 'ema_params', 'opt_state', 'key'}
  for name, value in expected.items():
    np.testing.assert_array_equal(mine[name], value, err_msg=name)


def test_four_steps_are_not_two(whole):
  """Else the test above would compare what never moved."""
  early, late = state(whole, 2), state(whole, 4)
  still = [k for k in late if np.array_equal(early[k], late[k])]
  assert still == ['key']


def test_resuming_changes_no_number_of_the_record(whole, resumed):
  """The line of step 3 averages steps on both sides of the stop.

  The lines of step 2 are the end of the first half, which the run that was not
  stopped did not have. The last line is the loss of held-out images.
  """
  expected, mine = record(whole), record(resumed)
  assert [row['step'] for row in expected] == [3, 4, 4]
  assert 'held_out/ema_loss' in expected[-1]
  assert [row for row in mine if row['step'] != 2] == expected


def test_resuming_changes_no_pixel_of_the_samples(whole, resumed):
  name = 'samples_00000004.png'
  assert (
    smoke_runs.snapshot(resumed / 'grids')[name]
    == (whole / 'grids' / name).read_bytes()
  )


def test_the_place_in_the_data_is_the_same(whole, resumed):
  def position(workdir):
    path = workdir / 'checkpoints' / '4' / 'data' / 'metadata'
    return json.loads(path.read_text(encoding='utf-8'))

  assert position(resumed) == position(whole)


def test_an_evaluation_that_a_kill_took_is_made_anew(whole, tmp_path, capsys):
  """Killed between the last checkpoint and its evaluation; no step is made."""
  workdir = tmp_path / 'run'
  shutil.copytree(whole, workdir)
  path = workdir / 'scalars.jsonl'
  lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
  path.write_text(''.join(lines[:-1]), encoding='utf-8')
  (workdir / 'checkpoints' / 'best').unlink()
  (workdir / 'grids' / 'samples_00000004.png').unlink()
  before = smoke_runs.snapshot(whole)
  smoke_runs.train('smoke', workdir, **EVALUATED)
  assert 'compiling' not in capsys.readouterr().err
  after = smoke_runs.snapshot(workdir)
  changed = {k for k in before if after.get(k) != before[k]}
  assert {k for k in changed if 'tensorboard' not in k} == {'sessions.jsonl'}


def test_a_complete_run_is_left_as_it_is(resumed, capsys):
  before = smoke_runs.snapshot(resumed)
  smoke_runs.train('smoke', resumed, **EVALUATED)
  assert 'the run is complete' in capsys.readouterr().err
  after = smoke_runs.snapshot(resumed)
  changed = {k for k in after if after[k] != before.get(k)}
  assert changed == {'sessions.jsonl'}


def test_classes_of_another_name_are_refused(resumed, tmp_path, capsys):
  """Last: it changes a copy of the run's record of its classes."""
  workdir = tmp_path / 'run'
  shutil.copytree(resumed, workdir)
  path = workdir / 'classes.json'
  names = json.loads(path.read_text(encoding='utf-8'))
  path.write_text(json.dumps([names[0], 'other', *names[2:]]), encoding='utf-8')
  config = smoke_runs.CONFIGS / 'smoke.py'
  words = [f'--config.{key}={value}' for key, value in smoke_runs.SMALL.items()]
  code = smoke_runs.cdm(
    'train', f'--config={config}', f'--workdir={workdir}', *words
  )
  assert code == 2
  assert "'other', but in the data it is 'grating 1'" in capsys.readouterr().err
