"""Averages of any width, through the front door: trained, made, drawn from."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from support import smoke_runs

from cdm.checkpointing import snapshot_reader

CONFIG = f'--config={smoke_runs.CONFIGS / "smoke.py"}'
EMA = {
  'ema__power_stds': '(0.05, 0.10)',
  'ema__snapshot_every_steps': 1,
  'ema__tracks': "('half_life_images=40',)",
  'train__sample_every_steps': 0,
}


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Six steps, a kill that took the last checkpoint, and twelve in all."""
  folder = tmp_path_factory.mktemp('averages') / 'run'
  smoke_runs.train('smoke', folder, train__num_steps=6, **EMA)
  shutil.rmtree(folder / 'checkpoints' / '6')
  smoke_runs.train('smoke', folder, train__num_steps=12, **EMA)
  return folder


@pytest.fixture(scope='module')
def wide(workdir, tmp_path_factory):
  """-> (folder of an average, what the command that made it told)."""
  out, told = tmp_path_factory.mktemp('averages') / 'wide', io.StringIO()
  with contextlib.redirect_stdout(told):
    assert smoke_runs.cdm('ema', workdir, '--std=0.15', f'--out={out}') == 0
  return out, told.getvalue()


def sample(workdir, out, *words):
  """-> the images that `cdm sample` draws, and its manifest."""
  with smoke_runs.on(1):
    code = smoke_runs.cdm(
      *('sample', CONFIG, f'--workdir={workdir}', '--num=2', f'--out={out}'),
      *words,
    )
  assert code == 0
  manifest = json.loads((out / 'sampling.json').read_text(encoding='utf-8'))
  return np.load(out / 'samples.npz')['arr_0'], manifest['stages'][0]


def test_a_run_that_was_killed_has_each_snapshot_once(workdir):
  assert snapshot_reader.steps(workdir) == [*range(1, 13)]
  names = {path.name for path in (workdir / 'ema_snapshots').iterdir()}
  assert names == {str(step) for step in range(1, 13)}


def test_the_command_tells_what_the_snapshots_express(workdir, capsys):
  assert smoke_runs.cdm('ema', workdir) == 0
  told = capsys.readouterr().out
  assert told.startswith('12 snapshots of the widths 0.05 and 0.1 in float16')
  assert 'widths that they express: 0.03' in told
  assert smoke_runs.cdm('ema', workdir, '--std=0.01', '--out=x') == 2
  assert 'do not express this width' in capsys.readouterr().err
  assert smoke_runs.cdm('ema', workdir, '--std=0.05') == 2
  assert 'takes --std and --out together' in capsys.readouterr().err
  assert smoke_runs.cdm('ema', workdir, '--std=0.4', '--out=x') == 2
  assert "'0.4' is no width; give numbers" in capsys.readouterr().err


def test_an_average_is_drawn_from_on_the_way_and_from_a_folder_of_its_own(
  workdir, wide, tmp_path, capsys
):
  out, told = wide
  assert 'std=0.15 of step 12, from 12 snapshots' in told
  origin = json.loads((out / 'average.json').read_text(encoding='utf-8'))
  assert (origin['std'], origin['step'], origin['snapshots']) == (0.15, 12, 12)
  own, stage = sample(out, tmp_path / 'own')
  assert 'ema' not in stage and stage['checkpoint'] == 12
  drawn, stage = sample(workdir, tmp_path / 'drawn', '--ema=0.15')
  assert stage['ema'] == 'std=0.15' and stage['checkpoint'] == 12
  np.testing.assert_array_equal(own, drawn)
  main, stage = sample(workdir, tmp_path / 'main')
  assert 'ema' not in stage and (main != drawn).any()
  # Other averages than those of a manifest are not mixed in.
  words = ('sample', CONFIG, f'--workdir={workdir}', '--num=2')
  out = f'--out={tmp_path / "drawn"}'
  assert smoke_runs.cdm(*words, out, '--ema=half_life_images=40') == 2
  capsys.readouterr()
  assert smoke_runs.cdm(*words, '--ema=decay=0.3') == 2
  kept = 'main, half_life_images=40, std=0.05, std=0.1; give one of them'
  assert kept in capsys.readouterr().err


def test_an_average_guides(workdir, wide, tmp_path, capsys):
  """The best guides of [Autoguidance] have an average of their own."""
  out, _ = wide
  images = []
  for i, guide in enumerate((f'{workdir}@std=0.15', str(out), str(workdir))):
    weight = '--guidance_weight=3'
    capsys.readouterr()
    drawn, stage = sample(
      workdir, tmp_path / str(i), f'--guide={guide}', weight
    )
    images.append(drawn)
    note = stage['sampler']['guide']
    assert note.get('ema') == ('std=0.15' if i == 0 else None)
    told = capsys.readouterr().out
    assert ('step 12, std=0.15' in told) == (i == 0)
  np.testing.assert_array_equal(images[0], images[1])
  assert (images[0] != images[2]).any()
  words = ('sample', CONFIG, f'--workdir={workdir}', '--num=2', weight)
  absent = f'--guide={workdir}@decay=0.3'
  assert smoke_runs.cdm(*words, f'--out={tmp_path / "no"}', absent) == 2
  assert 'give one of them' in capsys.readouterr().err


def test_no_run_goes_on_from_an_average_or_with_other_ones(
  workdir, wide, capsys
):
  out, _ = wide
  words = [f'--config.{k}={v}' for k, v in smoke_runs.SMALL.items()]
  capsys.readouterr()
  with smoke_runs.on(1):
    assert smoke_runs.cdm('train', CONFIG, f'--workdir={out}', *words) == 2
    assert 'as `cdm ema` writes it' in capsys.readouterr().err
    other = f'--workdir={workdir}'
    assert smoke_runs.cdm('train', CONFIG, other, *words) == 2
  assert 'half_life_images=40, std=0.05, std=0.1 beside the main' in (
    capsys.readouterr().err
  )
