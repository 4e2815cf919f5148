"""--sampler and --steps of the commands that draw, on trained stages."""

import json

import numpy as np
import pytest
from support import smoke_runs

from cdm.config import loader, stage
from cdm.sampling import restore

CASCADE = smoke_runs.CONFIGS / 'smoke_cascade.py'
BASE = smoke_runs.CONFIGS / 'smoke.py'


def sample(out, *words, config=CASCADE, stage='.', num=2):
  workdir = smoke_runs.trained() / stage
  return smoke_runs.cdm(
    'sample',
    *(f'--config={config}', f'--workdir={workdir}', f'--out={out}'),
    *(f'--num={num}', *words),
  )


def samplers(out):
  manifest = json.loads((out / 'sampling.json').read_text(encoding='utf-8'))
  return [stage['sampler'] for stage in manifest['stages']]


def test_each_stage_draws_with_what_its_flags_say(tmp_path, capsys):
  own = [loader.load(smoke_runs.CONFIGS / f'smoke{s}.py') for s in ('', '_sr')]
  base, sr = (loader.plain(c.sampler) for c in own)
  assert sample(tmp_path / 'own') == 0
  assert samplers(tmp_path / 'own') == [base, sr]
  capsys.readouterr()
  flags = ('--sampler=base:heun,sr:dpm_solver_pp_2m', '--steps=base:3,sr:1')
  assert sample(tmp_path / 'flags', *flags) == 0
  told = capsys.readouterr().err.splitlines()[:2]
  assert told == [
    "base: heun, 3 steps on the grid 'respaced', 5 network evaluations per "
    'image',
    "sr: dpm_solver_pp_2m, 1 step on the grid 'respaced', 1 network evaluation "
    'per image',
  ]
  drawn = samplers(tmp_path / 'flags')
  for before, after, kind, steps in zip(
    (base, sr), drawn, ('heun', 'dpm_solver_pp_2m'), ('3', '1'), strict=True
  ):
    assert after['kind'] == kind
    assert after['grid'] == {'kind': 'respaced', 'spacing': steps}
    assert after['clip'] == before['clip']
  images = [
    smoke_runs.snapshot(tmp_path / name, 'sr/*.png')
    for name in ('own', 'flags')
  ]
  assert len(images[0]) == 2 and images[0] != images[1]
  # The same command continues the folder; another one does not.
  assert sample(tmp_path / 'flags', *flags, num=3) == 0
  assert sample(tmp_path / 'flags', '--sampler=heun', num=3) == 2
  assert 'sampler' in capsys.readouterr().err


def test_flags_draw_what_the_same_config_draws(tmp_path):
  """Byte for byte; `kind` alone of the config would empty the section."""
  own = loader.load(BASE).sampler
  one = sample(
    tmp_path / 'a', '--sampler=heun', '--steps=2', config=BASE, stage='base'
  )
  two = sample(
    tmp_path / 'b',
    '--config.sampler.kind=heun',
    f'--config.sampler.clip={own.clip}',
    '--config.sampler.grid.kind=respaced',
    '--config.sampler.grid.spacing=2',
    config=BASE,
    stage='base',
  )
  assert (one, two) == (0, 0)
  images = [smoke_runs.snapshot(tmp_path / n, '**/*.png') for n in 'ab']
  assert images[0] == images[1] and images[0]


@pytest.mark.parametrize(
  ('command', 'words', 'message'),
  [
    ('sample', ['--sampler=fast'], 'known samplers are ancestral, ddim, '),
    ('sample', ['--sampler=top:heun'], "'top'; there are base, sr"),
    ('sample', ['--steps=base:2,base:3'], "names 'base' twice"),
    ('upscale', ['--sampler=sr:heun'], r'a single stage draws here'),
    (
      'upscale',
      ['--steps=2', '--config.sampler.grid.spacing=3'],
      r'--steps=2 and --config\.sampler\.grid\.spacing=3 choose the same',
    ),
    ('upscale', ['--steps=2000'], r'config\.sampler\.grid\.spacing'),
    ('bicubic', ['--sampler=heun'], '--sampler=heun: bicubic has no sampler'),
    ('evaluate', ['--steps=2'], r'--steps=2 is for images that are drawn now'),
    ('compare', ['--steps=4'], r'for methods with a sampler, and --methods'),
  ],
)
def test_flags_that_cannot_be_met_are_refused(
  tmp_path, capsys, command, words, message
):
  runs, out = smoke_runs.trained(), tmp_path / 'out'
  sr = smoke_runs.CONFIGS / 'smoke_sr.py'
  given = {
    'sample': ['sample', f'--config={CASCADE}', f'--workdir={runs}'],
    'upscale': ['upscale', f'--workdir={runs / "sr"}', '--held_out=1'],
    'bicubic': ['upscale', f'--workdir=bicubic:{sr}', '--held_out=1'],
    'evaluate': ['evaluate', f'--samples={tmp_path}', f'--reference={runs}'],
    'compare': ['compare', '--methods=bicubic', f'--config={sr}', '--num=1'],
  }[command]
  assert smoke_runs.cdm(*given, f'--out={out}', *words) == 2
  error = capsys.readouterr().err
  assert error.count('cdm: error') == 1
  with pytest.raises(ValueError, match=message):
    raise ValueError(error)


def test_a_section_of_the_cascade_is_changed_like_that_of_a_stage(
  tmp_path, capsys
):
  text = CASCADE.read_text(encoding='utf-8')
  own = "sampler=dict(kind='ddim', grid=dict(kind='full'))"
  assert text.count('sampler=None') == 2
  config = tmp_path / 'cascade.py'
  config.write_text(text.replace('sampler=None', own), encoding='utf-8')
  assert sample(tmp_path / 'a', '--steps=2', config=config, num=1) == 0
  grid = {'kind': 'trailing', 'num_steps': 2}
  assert samplers(tmp_path / 'a') == [{'kind': 'ddim', 'grid': grid}] * 2
  assert (
    "sr: ddim, 2 steps on the grid 'trailing' of the training schedule (not "
    "'full', which has every step of the schedule), 2 network evaluations per "
    'image'
  ) in capsys.readouterr().err
  for key in ('stages.sr.sampler.kind', 'stages.1.sampler.kind'):
    words = ['--sampler=heun', f'--config.{key}=ddim']
    assert sample(tmp_path / 'b', *words, config=config) == 2
    told = capsys.readouterr().err
    assert f'--sampler=heun and --config.{key}=ddim choose the same' in told


def test_evaluation_draws_with_the_flags_and_says_so(tmp_path, capsys):
  where = smoke_runs.trained() / 'sr'
  words = [f'--samples={where}@eval', '--metrics=psnr', '--num=2']
  assert smoke_runs.cdm('evaluate', *words, '--sampler=ddim', '--steps=1') == 0
  told = capsys.readouterr()
  row = json.loads(told.out)  # standard output holds the row alone
  [entry] = row['samples_recipe']['stages']
  assert entry['sampler']['kind'] == 'ddim'
  assert entry['sampler']['grid']['spacing'] == '1'
  assert "ddim, 1 step on the grid 'respaced', 1 network evalu" in told.err


def test_a_comparison_gives_the_flags_to_methods_with_a_sampler(tmp_path):
  words = [
    'compare',
    f'--methods=bicubic,ours={smoke_runs.trained() / "sr"}',
    *('--num=2', '--shown=1', '--extreme=0', '--draws=1'),
    f'--out={tmp_path}',
    '--steps=1',
  ]
  assert smoke_runs.cdm(*words) == 0
  text = tmp_path / 'images' / 'ours' / 'upscaling.json'
  manifest = json.loads(text.read_text(encoding='utf-8'))
  assert manifest['sampler']['grid']['spacing'] == '1'


def test_a_method_without_a_sampler_is_told(monkeypatch):
  monkeypatch.setattr(stage, 'has_sampler', lambda c: False)
  with pytest.raises(ValueError, match=r'--steps=2: .* which has no sampler'):
    restore.restored_upscaler(
      smoke_runs.trained() / 'sr',
      level=0.0,
      redraw=restore.redrawn_sampler.Redraw(steps=2),
    )


@pytest.mark.parametrize(
  ('config', 'expected'),
  [
    *(('smoke', True), ('smoke_sr', True), ('smoke_regression', False)),
    *(('smoke_prsr', False), ('smoke_raisr', False), ('smoke_cas', False)),
    *(('smoke_fsrgan', False), ('pulse_faces1024', False)),
  ],
)
def test_only_diffusion_models_have_a_sampler(config, expected):
  c = loader.load(smoke_runs.CONFIGS / f'{config}.py')
  assert stage.has_sampler(c) == expected


def test_one_step_of_the_whole_cascade_is_an_image(tmp_path):
  assert sample(tmp_path / 'one', '--steps=1', '--sampler=dpm_2') == 0
  with np.load(tmp_path / 'one' / 'samples.npz') as archive:
    assert archive['arr_0'].shape[0] == 2
