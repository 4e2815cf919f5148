"""An adversarial run through the front door: both players, whatever happens."""

import functools

import numpy as np
from PIL import Image
from support import smoke_runs

from cdm.data import synthetic
from cdm.training import collapse

CONFIG = smoke_runs.CONFIGS / 'smoke_fsrgan.py'
# Compiling is what costs.
SMALL = {
  'model.coarse_blocks': 0,
  'model.decoder_blocks': 0,
  'model.hourglass_depth': 1,
  'model.discriminator.spectral_norm': False,
  'lowres.augment': 'blur',
  'train.num_steps': 4,
  'train.save_every_steps': 2,
  'train.log_every_steps': 1,
  'train.sample_every_steps': 0,
  'eval.every_steps': 0,
}


def train(workdir, devices=1, **overrides):
  words = [f'--config.{k}={v}' for k, v in (SMALL | overrides).items()]
  with smoke_runs.on(devices):
    return smoke_runs.cdm(
      'train', f'--config={CONFIG}', f'--workdir={workdir}', *words
    )


@functools.cache
def whole():
  """-> work directory of a run that nothing interrupted."""
  workdir = smoke_runs.temporary() / 'two_players'
  assert train(workdir) == 0
  return workdir


def test_a_run_that_broke_off_ends_as_one_that_did_not(
  tmp_path, monkeypatch, capfd
):
  """Bit for bit: parameters, averages and moments of both players.

  And what the log lines tell of a collapse is said while the run goes on.
  """
  read, numbers = synthetic.Synthetic.__getitem__, iter(range(10**6))

  def breaks(self, index):
    if next(numbers) > 3 * 8:  # in the fourth batch
      raise ValueError('the disk is gone')
    return read(self, index)

  monkeypatch.setattr(synthetic.Synthetic, '__getitem__', breaks)
  assert train(tmp_path / 'run') not in (0, 75)
  assert not (tmp_path / 'run' / 'checkpoints' / '4').exists()
  monkeypatch.undo()
  monkeypatch.setattr(collapse, 'LINES', 2)
  monkeypatch.setattr(collapse, 'LEAST_SPREAD', 1e9)
  assert train(tmp_path / 'run') == 0
  assert 'warning: smoke_fsrgan has collapsed' in capfd.readouterr().err
  expected = smoke_runs.state(whole(), 4)
  found = smoke_runs.state(tmp_path / 'run', 4)
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)
  for player in ('generator', 'discriminator'):
    for tree in ('params', 'ema_params'):
      assert any(name.startswith(f'{tree}/{player}/') for name in found)
    moments = [n for n in found if f'/{player}/' in n and 'opt_state' in n]
    assert moments
  assert smoke_runs.record(tmp_path / 'run') == smoke_runs.record(whole())


def test_what_the_two_players_do_is_in_the_log_of_every_step():
  for row in smoke_runs.record(whole()):
    assert row['loss'] > row['discriminator_loss'] > 0
    assert 0 <= row['discriminator_accuracy'] <= 1
    assert row['spread_generated'] > 0 and row['spread_original'] > 0


def draw_faces(root, count=24):
  """Dark pictures whose eyes are bright, the left one in one half."""
  rng = np.random.default_rng(0)
  lines = ['lefteye_x lefteye_y righteye_x righteye_y']
  for folder in ('pictures', 'maps'):
    (root / folder).mkdir()
  for i in range(count):
    pixels = np.full((20, 16, 3), 30, np.uint8)
    parts = np.zeros((20, 16), np.uint8)
    (a, b), (c, d) = rng.integers([2, 5], [6, 15], (2, 2))
    pixels[b - 1 : b + 2, a - 1 : a + 2] = (250, 200, 200)
    pixels[d - 1 : d + 2, c + 7 : c + 10] = (200, 200, 250)
    parts[pixels[..., 0] > 100] = 1
    Image.fromarray(pixels).save(root / 'pictures' / f'{i}.png')
    Image.fromarray(parts).save(root / 'maps' / f'{i}.png')
    lines.append(f'{i}.png {a} {b} {c + 8} {d}')
  (root / 'points.txt').write_text('\n'.join(lines), encoding='utf-8')


def test_maps_of_faces_are_learnt_in_training(tmp_path, capfd):
  """FSRNet alone: its maps come nearer to those of the data."""
  draw_faces(tmp_path)
  faces = {
    'method.adversarial_weight': 0,
    'lowres.augment': 'none',
    'train_data.kind': 'folder',
    'train_data.path': tmp_path / 'pictures',
    'train_data.class_names': '()',
    'train_data.landmarks': tmp_path / 'points.txt',
    'train_data.parsing': tmp_path / 'maps',
    'train_data.parts': "('background', 'eyes')",
    'pipeline.flip': True,
    'train.num_steps': 24,
    'train.save_every_steps': 24,
    'optimizer.learning_rate': 0.02,
  }
  assert train(tmp_path / 'run', **faces) == 2
  assert 'parsing have 4 maps, but config.model.num_maps is 0' in (
    capfd.readouterr().err
  )
  assert train(tmp_path / 'run', **faces, **{'model.num_maps': 4}) == 0
  found = [row['prior_loss'] for row in smoke_runs.record(tmp_path / 'run')]
  assert len(found) == 24
  assert np.mean(found[-3:]) < 0.5 * np.mean(found[:3])
