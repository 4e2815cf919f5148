"""A config of pixel recursive super-resolution, from the file to pictures."""

import json

import numpy as np
import pytest
from support import smoke_runs

from cdm.config import loader, stage
from cdm.sampling import kept_images, restore

CONFIG = smoke_runs.CONFIGS / 'smoke_prsr.py'


def built(**changes):
  pairs = [(k.replace('__', '.'), str(v)) for k, v in changes.items()]
  return stage.stage(loader.load(CONFIG, pairs))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(lowres__size=3), 'lowres.size is 3, which does not divide'),
    (
      dict(pipeline__image_size=12),
      'lowres.size is 4, .* does not give 3 times that; use an image size of',
    ),
    (dict(lowres__augment='noise'), "lowres.augment is 'noise', whose level"),
    (
      dict(method__temperature=0.0),
      'config.method.temperature is 0.0; .*above',
    ),
    (dict(model__features=2), 'config.model.features is 2; .* from 3 to'),
    (dict(model__num_layers=-1), 'config.model.num_layers is -1; .* from 0'),
    (dict(model__norm_eps=0.0), 'config.model.norm_eps is 0.0; .* above 0'),
    (dict(model__dtype='float16'), "config.model.dtype is 'float16'; known"),
  ],
)
def test_what_no_network_can_be_is_refused_with_its_key(changes, message):
  with pytest.raises(ValueError, match=message):
    built(**changes)


def test_there_is_nothing_to_enlarge_without_a_low_res_input():
  c = loader.load(CONFIG)
  with c.unlocked():
    c.lowres = None
  with pytest.raises(ValueError, match='config.lowres is None, but method.ki'):
    stage.stage(c)


def test_a_summary_tells_what_is_drawn_and_what_it_costs():
  made = built(method__temperature=1.2)
  assert made.summary['temperature'] == 1.2
  assert made.summary['sub-pixels, one after another'] == 3 * 8 * 8
  assert made.drawn_with == {'kind': 'pixel_recursive', 'temperature': 1.2}
  params, flops = made.trace()
  assert list(params) == ['conditioning', 'prior'] and flops > 0


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """-> work directory of two steps, the network split over two devices."""
  folder = tmp_path_factory.mktemp('prsr') / 'run'
  changes = {
    'model.num_layers': 1,
    'train.num_steps': 2,
    'train.log_every_steps': 1,
    'train.save_every_steps': 2,
    'train.sample_every_steps': 0,
    'eval.every_steps': 2,
    'eval.batches': 1,
    'eval.num_pairs': 0,
    'eval.best': 'held_out/ema_loss',
    'mesh.fsdp': 2,
  }
  words = [f'--config.{key}={value}' for key, value in changes.items()]
  with smoke_runs.on(2):
    code = smoke_runs.cdm(
      'train', f'--config={CONFIG}', f'--workdir={folder}', *words
    )
  assert code == 0
  return folder


def test_a_run_logs_the_bits_of_held_out_images(workdir):
  text = (workdir / 'scalars.jsonl').read_text(encoding='utf-8')
  lines = [json.loads(line) for line in text.splitlines()]
  [held_out] = [line for line in lines if 'held_out/loss' in line]
  for prefix in ('', 'ema_'):
    bits = [
      held_out[f'held_out/{prefix}{name}']
      for name in ('bits_per_dim', 'conditioning_bits_per_dim')
    ]
    total = held_out[f'held_out/{prefix}loss'] / np.log(2)
    assert sum(bits) == pytest.approx(total) and min(bits) > 7.5


def test_temperatures_share_a_program_and_are_recorded(workdir, tmp_path):
  """And devices that share the network draw what one device draws."""
  low = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
  keys = np.array([[0, 0], [0, 1]], np.uint32)
  kept = kept_images.Kept(tmp_path / 'kept')

  def drawn(temperature, devices):
    with smoke_runs.on(devices):
      made, _ = restore.restored_upscaler(
        workdir,
        level=0.0,
        overrides=[
          ('method.temperature', temperature),
          ('mesh.fsdp', str(devices)),
        ],
        kept=kept,
      )
      images = made(low, keys=keys)
    assert made.record.manifest()['sampler'] == {
      'kind': 'pixel_recursive',
      'temperature': float(temperature),
    }
    return images

  cold, hot = drawn('1.0', 2), drawn('1000.0', 2)
  assert len(kept.programs) == 1
  assert hot.shape == (2, 8, 8, 3) and (hot != cold).any()
  np.testing.assert_array_equal(drawn('1000.0', 1), hot)
