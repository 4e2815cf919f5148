"""Settings that cannot work are warned of, with the number that would."""

import json
import pathlib

import numpy as np
import pytest
from support import smoke_runs

from cdm.config import loader, stage, stage_warnings
from cdm.methods import lowres_conditioning

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
STAGES = [
  path
  for path in sorted(CONFIGS.glob('*.py'))
  if 'c.stages' not in path.read_text(encoding='utf-8')
]
SR3 = 'sr3_faces16to128'


def built(name, **overrides):
  pairs = [(k.replace('__', '.'), str(v)) for k, v in overrides.items()]
  return stage.stage(loader.load(CONFIGS / f'{name}.py', pairs))


def alpha_bar(logsnr):
  return 1 / (1 + np.exp(-logsnr))


@pytest.mark.parametrize('path', STAGES, ids=lambda path: path.stem)
def test_no_config_of_ours_is_warned_of(path):
  assert not stage_warnings.stage_warnings(stage.stage(loader.load(path)))


def test_twenty_steps_of_the_grid_of_sr3_name_the_beta_that_works():
  """Closed form: alpha_bar of 20 betas from 1e-4 to 0.185 is 0.138."""
  betas = np.linspace(1e-4, 0.185, 20)
  assert np.prod(1 - betas) == pytest.approx(0.138, abs=5e-4)
  [text] = stage_warnings.stage_warnings(
    built(SR3, sampler__grid__num_steps=20)
  )
  assert 'begins at alpha_bar 0.14 with 20 steps' in text
  assert 'training ends at 4.4e-05' in text
  assert '37% contrast' in text  # the root of 0.138
  key = '--config.sampler.grid.beta_max='
  value = text.partition(key)[2].rstrip('.')
  assert np.prod(1 - np.linspace(1e-4, float(value), 20)) == pytest.approx(
    4.4e-5, rel=0.1
  )
  fixed = built(SR3, sampler__grid__num_steps=20, sampler__grid__beta_max=value)
  assert not stage_warnings.stage_warnings(fixed)


def test_a_schedule_that_never_hides_the_image_is_warned_of():
  """100 of DDPM's 1000 steps: the product of 1 - beta is 0.36."""
  one = built('sr3_faces64', schedule__num_steps=100)
  shown = alpha_bar(one.schedule.logsnr[-1])
  assert shown == pytest.approx(0.36, abs=0.01)
  text = stage_warnings.schedule_end(one.schedule)
  assert 'ends at alpha_bar 0.36' in text
  assert '60% of their contrast' in text
  # The sampler begins where training ends, so only the schedule is named.
  assert stage_warnings.stage_warnings(one) == [text]


@pytest.mark.parametrize('features, warned', [(32, True), (48, False)])
def test_a_patch_wider_than_the_network_is_warned_of(features, warned):
  one = built(
    'faces_small_64',
    model__patch_size=4,
    model__features=features,
    model__attention_resolutions='(8,)',
  )
  text = stage_warnings.narrow_patches(one)
  assert bool(text) == warned
  if warned:
    assert 'the 48 values of a patch pass through 32 channels' in text
    assert '16 of every 48' in text
    assert '--config.model.features=48' in text


def test_few_levels_at_256_pixels_are_warned_of_with_the_numbers():
  """128 x 128 = 16,384 pixels; their square is 268 million weights, 1 GiB."""
  one = built(
    'sr3_faces64to256',
    model__multipliers='(1,2)',
    model__attention_resolutions='()',
  )
  text = stage_warnings.wide_attention(one)
  assert 'is at 128 x 128: each of 16,384 pixels' in text
  assert '268 million weights' in text and '1.0 GiB' in text
  named = built('sr3_faces64to256', model__attention_resolutions='(128,)')
  text = stage_warnings.wide_attention(named)
  assert text.startswith('config.model.attention_resolutions has 128 x 128')


def test_a_classifier_is_not_warned_of():
  assert stage_warnings.stage_warnings(built('smoke_cas')) == []


def test_describe_warns_on_stderr_so_that_its_json_stays_whole(capsys):
  code = smoke_runs.cdm(
    *('describe', f'--config={CONFIGS / "smoke.py"}', '--json'),
    '--config.sampler.grid.spacing=ddim4',
  )
  out, err = capsys.readouterr()
  assert code == 0
  assert json.loads(out)['stages'][0]['name'] == 'smoke'
  assert err.startswith('warning: smoke: config.sampler.grid begins at')


def test_noise_that_exceeds_the_scale_of_a_residual_is_warned_of():
  """The spread is that of enlarged white noise, of which there is nothing else.

  At level 1 a continuous chain has no signal.
  """
  assert stage_warnings.wide_residual(built('photos8to32')) is None
  one = built('photos8to32', lowres__max_level=1.0)
  noise = np.random.default_rng(0).standard_normal((64, 8, 8, 3))
  spread = float(lowres_conditioning.upsample(noise, 32, one.lowres).std())
  text = stage_warnings.wide_residual(one)
  assert f'spreads the residual by {spread:.2g}, ' in text
  assert f'{spread / 0.15:.0f} times' in text
  assert stage_warnings.stage_warnings(one) == [text]
