"""The section `eval` of a config: what it asks for, and what it refuses."""

import pytest
from support import smoke_runs

from cdm.config import loader, stage
from cdm.training import eval_section

CONFIGS = smoke_runs.CONFIGS


def read(name, **changes):
  c = loader.load(CONFIGS / f'{name}.py')
  c.unlock()
  if 'eval' not in c:
    c.eval = {}
  for key, value in changes.items():
    c.eval[key] = value
  return eval_section.read_eval_section(c, stage.stage(c))


def test_a_config_without_the_section_evaluates_nothing():
  """As the configs that an earlier cdm saved."""
  c = loader.load(CONFIGS / 'smoke.py')
  c.unlock()
  del c.eval
  options = eval_section.read_eval_section(c, stage.stage(c))
  assert (options.every_steps, options.fid_every_steps, options.best) == (
    0,
    0,
    '',
  )


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('smoke', dict(best='held_out/lss'), "'held_out/lss'; known are held_out"),
    ('smoke', dict(best='held_out/psnr'), 'never computes; it computes held_'),
    ('smoke', dict(best='held_out/fid'), 'never computes'),
    ('smoke', dict(batches=0, fid_every_steps=4), r"'held_out/ema_loss', wh"),
    ('smoke', dict(every_steps=-1), 'config.eval.every_steps is -1; .* from 0'),
    ('smoke', dict(every=1), "has 'every'.*Did you mean config.eval.every_s"),
    ('smoke', dict(fid_num=1), 'config.eval.fid_num is 1; FID needs'),
    ('smoke', dict(sampler_steps=5), 'from 1 to 4, the steps of config.samp'),
    ('smoke', dict(sampler_steps=0), 'config.eval.sampler_steps is 0'),
    (
      'smoke',
      dict(level=0.1),
      'config.eval.level is 0.1, but the stage has no',
    ),
    ('smoke_sr', dict(level=0.3), 'trained on levels from 0 to 0.2'),
    ('smoke_cas', dict(every_steps=2), 'of a classifier it is 0'),
  ],
)
def test_what_makes_no_sense_is_refused_by_its_key(name, changes, message):
  with pytest.raises(ValueError, match=message) as refusal:
    read(name, **changes)
  assert '--config.eval.' in str(refusal.value)


@pytest.mark.parametrize(
  ('name', 'changes', 'names'),
  [
    ('smoke', {}, 'loss ema_loss'),
    ('smoke', dict(every_steps=0), ''),
    ('smoke', dict(fid_every_steps=4), 'loss ema_loss fid'),
    ('smoke_sr', {}, 'loss ema_loss psnr ssim consistency'),
    ('smoke_sr', dict(batches=0), 'psnr ssim consistency'),
    ('smoke_sr', dict(num_pairs=0, best=''), 'loss ema_loss'),
  ],
)
def test_the_names_are_those_of_what_the_run_computes(name, changes, names):
  c = loader.load(CONFIGS / f'{name}.py')
  options = read(name, **({'best': ''} | changes))
  found = eval_section.scalar_names(options, stage.stage(c))
  assert found == [f'held_out/{one}' for one in names.split()]


def test_off_by_a_zero_needs_no_other_change():
  assert read('smoke_sr', every_steps=0).best == ''


def test_a_regression_method_chooses_by_psnr():
  assert eval_section.default_best('diffusion') == ''
  assert eval_section.default_best('regression') == 'held_out/psnr'
