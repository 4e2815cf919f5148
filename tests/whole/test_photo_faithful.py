"""The photo model in small, from photographs to `cdm upscale` and its gate."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from support import smoke_runs

from cdm.config import evaluated_images, loader, stage
from cdm.data import low_res_inputs
from cdm.sampling import restore
from cdm.sampling.restored_parameters import Checkpoint
from cdm.training import program

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = {
  'pipeline.image_size': 32,
  'train_data.image_size': 32,
  'train_data.num_images': 500,
  'eval_data.image_size': 32,
  'eval_data.num_images': 16,
  'lowres.size': 8,
  'model.num_blocks': 1,
  'model.features': 16,
  'optimizer.learning_rate': 1e-3,
  'optimizer.warmup_steps': 0,
  'optimizer.decay': 'constant',  # so that half of a run has its rate
  'train.batch_size': 8,
  'train.num_steps': 4,
  'train.save_every_steps': 2,
  'train.sample_every_steps': 4,
  'train.num_samples': 8,
  'eval.batches': 2,
  'eval.num_pairs': 8,
  'eval.every_steps': 2,
}


def photograph(seed):
  """-> a picture with edges, large enough to be shrunk by 4."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (20, 26, 3), np.uint8)
  size = (208, 160)
  return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  home = tmp_path_factory.mktemp('photos')
  for n, folder in enumerate(('train', 'held_out')):
    (home / folder).mkdir()
    for i in range(2):
      photograph(10 * n + i).save(home / folder / f'{i}.png')
  return home


def small(photos):
  return SMALL | {
    'train_data.path': photos / 'train',
    'eval_data.path': photos / 'held_out',
  }


def train(photos, workdir, devices=1, **overrides):
  """Runs `cdm train` of the config made small; see `smoke_runs.train`."""
  given = small(photos) | {
    k.replace('__', '.'): v for k, v in overrides.items()
  }
  words = [f'--config.{k}={v}' for k, v in given.items()]
  path = smoke_runs.CONFIGS / 'photo_faithful.py'
  with smoke_runs.on(devices):
    code = smoke_runs.cdm(
      'train', f'--config={path}', f'--workdir={workdir}', *words
    )
  assert code == 0


@pytest.fixture(scope='module')
def trained(photos, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run') / 'one'
  train(photos, workdir)
  return workdir


def test_a_run_records_its_losses_and_keeps_the_best(trained):
  last = {}
  for record in smoke_runs.record(trained):
    last |= record
  names = ('loss', 'l1', 'held_out/loss', 'held_out/psnr')
  assert all(np.isfinite(last[name]) for name in names)
  # The network starts as bicubic, and four steps take it nowhere far.
  assert abs(last['held_out/psnr'] - last['held_out/psnr_bicubic']) < 1.0
  assert (trained / 'checkpoints').is_dir()


def test_resuming_changes_nothing(photos, trained, tmp_path):
  """Half of the run, and the other half in a second start."""
  train(photos, tmp_path / 'two', train__num_steps=2)
  train(photos, tmp_path / 'two')
  expected = smoke_runs.state(trained, 4)
  halves = smoke_runs.state(tmp_path / 'two', 4)
  assert expected.keys() == halves.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(halves[name], value, err_msg=name)


def test_devices_and_microbatches_change_the_speed_not_the_numbers(
  photos, tmp_path
):
  """With squared errors: the sign of an error that is rounding alone is chance.

  Flat parts of these pictures have such errors while the network is new.
  """
  given = dict(method__norm=2)
  train(photos, tmp_path / 'one', **given)
  train(photos, tmp_path / 'eight', devices=8, mesh__fsdp=2, **given)
  train(photos, tmp_path / 'parts', train__accumulation=2, **given)
  expected = smoke_runs.state(tmp_path / 'one', 4)
  record = smoke_runs.record(tmp_path / 'one')
  for name in ('eight', 'parts'):
    found = smoke_runs.state(tmp_path / name, 4)
    for key, value in expected.items():
      if 'params' in key:
        near = 2e-3 * max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(found[key], value, atol=near, err_msg=key)
    for mine, one in zip(
      smoke_runs.record(tmp_path / name), record, strict=True
    ):
      assert mine == pytest.approx(one, rel=1e-3, abs=1e-5)


def test_the_held_out_loss_is_of_the_degraded_inputs(trained):
  """It is computed here from the checkpoint, in one batch."""
  made, c, _ = restore.restored_stage(Checkpoint(trained), name='sr')
  count, images = evaluated_images.open_up_to(c, 16)
  batch = {'image': images(range(count))[0], 'label': np.zeros(16, np.int32)}
  given = dict(key=jax.random.key(0), train=False)
  loss = stage.stage(c).method.loss
  clean = float(loss(made.params, batch, **given)[0].mean())
  batch |= evaluated_images.open_inputs(c, 16)(range(count))
  degraded = float(loss(made.params, batch, **given)[0].mean())
  found = {}
  for record in smoke_runs.record(trained):
    found |= record
  assert found['held_out/ema_loss'] == pytest.approx(degraded, rel=1e-4)
  assert abs(degraded / clean - 1) > 0.01


def test_held_out_inputs_are_always_the_same(photos):
  words = [(k, str(v)) for k, v in small(photos).items()]
  c = loader.load(smoke_runs.CONFIGS / 'photo_faithful.py', words)
  read = evaluated_images.open_inputs(c, 16)
  given = read(np.arange(20))
  assert given['lowres'].shape == (20, 32, 32, 3)
  assert not given['levels'][16:].any()  # beyond the images
  degraded = given['levels'][:16, 1:].any(axis=1)
  assert 0 < degraded.sum() < 16
  again = evaluated_images.open_inputs(c, 16)(np.arange(20))
  for name, value in given.items():
    np.testing.assert_array_equal(again[name], value)


def test_the_program_knows_the_arrays_of_a_batch(photos):
  c = loader.load(smoke_runs.CONFIGS / 'photo_faithful.py')
  mesh = program.assemble(c).mesh
  batch = program.abstract_batch(c, 16, mesh)
  assert batch['lowres'].shape == (16, 128, 128, 3)
  assert batch['lowres_size'].shape == (16,)
  assert batch['levels'].shape == (16, len(low_res_inputs.LEVELS))


def test_upscale_enlarges_picture_files(trained, tmp_path):
  low = photograph(5).resize((24, 16), Image.Resampling.BICUBIC)
  low.save(tmp_path / 'low.png')
  code = smoke_runs.cdm(
    'upscale',
    f'--workdir={trained}',
    tmp_path / 'low.png',
    f'--out={tmp_path / "out"}',
  )
  assert code == 0
  (path,) = (p for p in (tmp_path / 'out').rglob('*.png') if 'low' in p.name)
  assert Image.open(path).size == (96, 64)


DETAIL = {
  'model.mean.num_blocks': 1,
  'model.mean.features': 16,
  'model.widths': '(4, 4, 4)',
  'model.blocks': '(0, 2, 0)',
  'model.embedding_features': 4,
  'sampler.grid.num_steps': 2,
  'ema.warmup': False,
}


def detailed(photos, workdir, faithful='', **overrides):
  """Runs `cdm train` of photo_detailed made small."""
  given = {k: v for k, v in small(photos).items() if not k.startswith('model')}
  given |= DETAIL | {k.replace('__', '.'): v for k, v in overrides.items()}
  given['train.init_from'] = faithful
  words = [f'--config.{k}={v}' for k, v in given.items()]
  path = smoke_runs.CONFIGS / 'photo_detailed.py'
  with smoke_runs.on(1):
    code = smoke_runs.cdm(
      'train', f'--config={path}', f'--workdir={workdir}', *words
    )
  assert code == 0


def test_details_are_trained_over_a_mean_that_stays_and_are_blended(
  photos, trained, tmp_path, capfd
):
  detailed(photos, tmp_path / 'run', trained, train__num_steps=2)
  detailed(photos, tmp_path / 'run', trained)
  assert 'over which details are drawn' in capfd.readouterr().err
  mean, both = (smoke_runs.state(w, 4) for w in (trained, tmp_path / 'run'))
  own = {k: v for k, v in both.items() if k.startswith('ema_params/mean/')}
  assert own
  for name, value in own.items():
    name = name.replace('/mean/', '/')
    np.testing.assert_array_equal(value, mean[name], err_msg=name)
  low = photograph(5).resize((24, 16), Image.Resampling.BICUBIC)
  low.save(tmp_path / 'low.png')
  drawn = {}
  for name, run, words in (
    ('faithful', trained, ()),
    ('mean', tmp_path / 'run', ('--detail=0',)),
    ('draw', tmp_path / 'run', ('--detail=1',)),
    ('usual', tmp_path / 'run', ()),
  ):
    out = tmp_path / f'{name}.png'
    assert smoke_runs.cdm(
      'upscale', f'--workdir={run}', tmp_path / 'low.png', f'--out={out}',
      '--damage=none', '--back_projection=0', *words,
    ) == 0  # fmt: skip
    drawn[name] = np.asarray(Image.open(out)).astype(float)
  np.testing.assert_array_equal(drawn['mean'], drawn['faithful'])
  assert np.abs(drawn['draw'] - drawn['mean']).mean() > 2
  blend = drawn['mean'] + 0.6 * (drawn['draw'] - drawn['mean'])
  inside = (drawn['draw'] > 0) & (drawn['draw'] < 255)
  assert np.abs(drawn['usual'] - blend)[inside].max() <= 1.1


def test_details_over_a_mean_that_nobody_trained_are_warned_of(
  photos, tmp_path, capfd
):
  detailed(photos, tmp_path, train__num_steps=1)
  err = capfd.readouterr().err
  assert 'warning: config.train.init_from is not set, so the mean' in err


def test_the_gate_measures_a_run(photos, trained, tmp_path):
  """Its bicubic is Pillow's, and its exit code tells that the gate is shut."""
  sets = tmp_path / 'Set5' / 'x4'
  sets.mkdir(parents=True)
  for i in range(2):
    high = photograph(20 + i)
    high.save(sets / f'img_00{i}_SRF_4_HR.png')
    low = high.resize((52, 40), Image.Resampling.BICUBIC)
    low.save(sets / f'img_00{i}_SRF_4_LR.png')
  words = (f'--workdir={trained}', f'--sets={tmp_path}', '--only=Set5')
  found = gate(*words)
  assert found.returncode == 1, found.stderr
  row = json.loads(
    (trained / 'photo_gate.jsonl').read_text(encoding='utf-8').splitlines()[-1]
  )
  clean = next(r for r in row['rows'] if r.get('input') == 'clean')
  expected = []
  for i in range(2):
    high, low = (
      Image.open(sets / f'img_00{i}_SRF_4_{name}.png') for name in ('HR', 'LR')
    )
    up = low.resize(high.size, Image.Resampling.BICUBIC)
    a, b = (np.asarray(x, float)[4:-4, 4:-4] for x in (high, up))
    y = [np.round(x @ [65.481, 128.553, 24.966] / 255 + 16) for x in (a, b)]
    expected.append(10 * np.log10(255**2 / np.mean((y[0] - y[1]) ** 2)))
  assert clean['bicubic'] == pytest.approx(np.mean(expected), abs=0.02)
  assert clean['passed'] is False and clean['least'] == 2.6
  assert '| Set5 | clean | 2 |' in found.stdout and 'FAIL' in found.stdout


def test_the_gate_takes_strange_inputs(trained):
  found = gate(f'--workdir={trained}', '--strange=6')
  assert found.returncode == 0, found.stderr
  assert '6 strange inputs: 0 with values that are not finite' in found.stdout


def gate(*words):
  """Runs the gate as a program of its own, on one device."""
  path = ROOT / 'benchmarks' / 'photo_gate.py'
  return subprocess.run(
    [sys.executable, str(path), *words],
    capture_output=True,
    text=True,
    env={**smoke_runs.os.environ, 'PYTHONPATH': str(ROOT)}
    | smoke_runs.programs(),
  )


@pytest.mark.parametrize(
  ('override', 'said'),
  [
    (('model.num_blocks', '0'), r'config\.model\.num_blocks is 0'),
    (('model.blocks', '3'), r'model has .*blocks'),
    (('method.border_weight', '-1.0'), r'method\.border_weight is -1'),
    (('method.weave_weight', '-2.0'), r'method\.weave_weight is -2'),
    (('method.residual_scale', '0.2'), r'residual_scale'),
    (('lowres', 'None'), 'lowres is None'),
  ],
)
def test_what_cannot_be_built_is_refused_by_its_key(override, said):
  with pytest.raises(ValueError, match=said):
    stage.stage(
      loader.load(smoke_runs.CONFIGS / 'photo_faithful.py', [override])
    )
