"""Which checkpoint is restored, and what manifests say of it."""

import json
import re
import shutil

import pytest
from support import smoke_runs

from cdm.config import loader
from cdm.data.files import damaged_file
from cdm.sampling import restore, stage_record

RECORD = stage_record.StageRecord('sr3', 400, 0.1, {'kind': 'ddim', 'eta': 0.0})
SAMPLER = '"sampler": {"kind": "ddim", "eta": 0.0}}'


@pytest.mark.parametrize(
  ('made', 'text'),
  [
    (
      RECORD.manifest('name', after_level={'downsample': 'area'}),
      '{"name": "sr3", "checkpoint": 400, "level": 0.1, "downsample": "area", ',
    ),
    (
      RECORD.manifest(after_checkpoint={'seed': 3}, after_level={'count': 8}),
      '{"experiment": "sr3", "checkpoint": 400, "seed": 3, "level": 0.1, '
      '"count": 8, ',
    ),
    (
      RECORD.cascade_entry({'name': 'sr', 'truncated': True}, 'sr'),
      '{"name": "sr", "truncated": true, "folder": "sr", "experiment": "sr3", '
      '"checkpoint": 400, ',
    ),
  ],
)
def test_manifests_are_those_that_folders_on_disk_hold(made, text):
  """An interrupted folder continues only if its manifest is the same."""
  assert json.dumps(made) == text + SAMPLER


def test_a_level_stands_in_a_cascade_where_its_config_has_it():
  section = {'name': 'sr', 'level': 0.1, 'sampler': None}
  entry = RECORD.cascade_entry(section, 'sr')
  assert list(entry)[:4] == ['name', 'level', 'sampler', 'folder']
  assert entry['sampler'] == RECORD.sampler


@pytest.fixture
def runs(tmp_path):
  """-> folder of a cascade, whose stages have checkpoints 2 and 4.

  No checkpoint is marked as the best.
  """
  shutil.copytree(smoke_runs.trained(), tmp_path / 'runs')
  for stage in ('base', 'sr'):
    (tmp_path / 'runs' / stage / 'checkpoints' / 'best').unlink()
  return tmp_path / 'runs'


def mark_best(workdir, step):
  best = {'step': step, 'metric': 'held_out/ema_loss', 'value': 0.5}
  (workdir / 'checkpoints' / 'best').write_text(
    json.dumps(best), encoding='utf-8'
  )


def test_the_best_of_a_cascade_is_the_best_of_each_stage(runs):
  mark_best(runs / 'base', 2)
  mark_best(runs / 'sr', 4)
  c = loader.load(smoke_runs.CONFIGS / 'smoke_cascade.py', ())

  def steps(at):
    _, notes = restore.restored_cascade(c, runs, at=at)
    return [note['checkpoint'] for note in notes]

  assert steps('best') == [2, 4]
  assert steps(None) == [4, 4]
  assert steps(2) == [2, 2]
  made, _ = restore.restored_upscaler(runs / 'sr', level=0.0, at=2)
  assert made.record.checkpoint == 2


@pytest.mark.parametrize('command', ['sample', 'upscale', 'evaluate'])
@pytest.mark.parametrize(
  ('at', 'code', 'message'),
  [
    (
      'best',
      2,
      r'No checkpoint of .*/sr is known as the best.*--config\.eval\.best=',
    ),
    ('3', 2, r'no checkpoint of step 3 in .*/sr; there are \[2, 4\]'),
    ('last', 2, r"--at=last: give 'best', or the step of a checkpoint"),
  ],
)
def test_a_checkpoint_that_is_not_there_is_told(
  runs, capsys, command, at, code, message
):
  config = smoke_runs.CONFIGS / 'smoke_cascade.py'
  mark_best(runs / 'base', 2)
  shutil.copytree(
    runs / 'base' / 'checkpoints' / '2', runs / 'base' / 'checkpoints' / '3'
  )
  words = {
    'sample': [f'--config={config}', f'--workdir={runs}'],
    'upscale': [f'--workdir={runs / "sr"}', '--held_out=1'],
    'evaluate': [f'--samples={runs / "sr"}@eval', '--metrics=psnr'],
  }[command]
  out = runs.parent / 'out'
  assert smoke_runs.cdm(command, *words, f'--at={at}', f'--out={out}') == code
  error = capsys.readouterr().err
  assert re.search(message, error) and error.count('cdm: error') == 1, error
  assert not out.exists()


def test_a_damaged_mark_of_the_best_is_a_data_error(runs):
  (runs / 'sr' / 'checkpoints' / 'best').write_text('{"step"', encoding='utf-8')
  with pytest.raises(damaged_file.DamagedFile, match='checkpoints/best'):
    restore.restored_upscaler(runs / 'sr', level=0.0, at='best')


def test_drawing_warns_of_a_sampler_that_starts_where_training_never_was(
  caplog,
):
  base = restore.Checkpoint(smoke_runs.trained() / 'base')
  restore.restored_stage(base, name='base')
  assert not caplog.records
  restore.restored_stage(
    base, name='base', overrides=[('sampler.grid.spacing', 'ddim4')]
  )
  [record] = caplog.records
  text = record.getMessage()
  assert text.startswith('warning: config.sampler.grid begins at alpha_bar')
