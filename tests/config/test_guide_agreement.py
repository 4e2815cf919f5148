"""Which network can guide which stage, and which keys say so."""

import pathlib

import pytest
from support import smoke_runs

from cdm.config import (
  cascade_stages,
  guide_agreement,
  loader,
  stage,
)
from cdm.planning import lowering
from cdm.training import program

FLAT = ('model.attention_resolutions', '()')  # but in the middle


def built(name, *overrides):
  return stage.stage(loader.load(smoke_runs.CONFIGS / f'{name}.py', overrides))


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('runs/a', ('runs/a', None)),
    ('runs/a@5000', ('runs/a', 5000)),
    ('runs/a@best', ('runs/a', 'best')),
    ('runs/a@home', ('runs/a@home', None)),
    ('runs/a@7@8', ('runs/a@7', 8)),
    ('runs/a@std=0.050', ('runs/a', '@std=0.05')),
    ('runs/a@5000@std=0.1', ('runs/a', '5000@std=0.1')),
    ('runs/a@best@decay=0.99', ('runs/a', 'best@decay=0.99')),
    ('runs/a@x=1', ('runs/a@x=1', None)),
  ],
)
def test_a_guide_is_a_folder_and_perhaps_a_step_and_an_average(text, expected):
  folder, at = expected
  assert guide_agreement.split_name(text) == (pathlib.Path(folder), at)


def test_a_guide_of_an_average_that_cannot_be_is_refused():
  with pytest.raises(ValueError, match="guide runs/a@std=wide: 'std=wide' nam"):
    guide_agreement.split_name('runs/a@std=wide')


@pytest.mark.parametrize(
  ('name', 'overrides'),
  [
    ('smoke', ()),
    # Another network, another schedule, another kind of prediction.
    ('smoke', [('model.features', '8'), ('model.multipliers', '(1,)'), FLAT]),
    ('smoke', [('schedule.num_steps', '32'), ('method.prediction', 'eps')]),
    (
      'smoke',
      [
        ('model.num_classes', 'None'),
        ('model.null_class', 'False'),
        ('method.label_dropout', '0.0'),
      ],
    ),
    ('smoke_sr', [('lowres.max_level', '0.5'), ('model.features', '8')]),
  ],
)
def test_a_guide_may_differ_in_all_that_is_not_compared(name, overrides):
  guide = built(name, *overrides)
  guide_agreement.check(built(name), guide, name='runs/a', level=0.2)


@pytest.mark.parametrize(
  ('name', 'overrides', 'message'),
  [
    (
      'smoke',
      [('pipeline.image_size', '16'), FLAT],
      r"The guide runs/a \('smoke'\) does not fit 'smoke': "
      r'pipeline\.image_size is 16 there and 8 here',
    ),
    ('smoke', [('model.num_classes', '7')], r'num_classes is 7 there and 4'),
    ('smoke_sr', [('lowres.size', '4')], r'lowres\.size is 4 there and 8'),
    (
      'smoke_sr',
      [('lowres.upsample', 'nearest')],
      r'lowres\.upsample is nearest there and ',
    ),
    (
      'smoke_sr',
      [('lowres.augment', 'blur'), ('model.lowres_level', 'False')],
      r'lowres\.augment is blur there and noise here',
    ),
    (
      'smoke_sr',
      [('method.residual_scale', '0.3')],
      r'method\.residual_scale is 0\.3 there and 0\.2 here',
    ),
    (
      'smoke_sr',
      [('lowres.max_level', '0.1')],
      r'augmentation levels up to 0\.1, but the stage is sampled at level 0\.2',
    ),
  ],
)
def test_what_compares_other_quantities_is_refused(name, overrides, message):
  guide = built(name, *overrides)
  with pytest.raises(ValueError, match=message):
    guide_agreement.check(built(name), guide, name='runs/a', level=0.2)


@pytest.mark.parametrize(
  ('other', 'message'),
  [
    ('smoke', r'lowres\.size is None there and 8 here'),
    ('smoke_regression', r'method\.kind is regression there and diffusion'),
  ],
)
def test_another_kind_of_stage_is_refused(other, message):
  own = built('smoke_sr')
  same = [('pipeline.image_size', '16'), FLAT] if other == 'smoke' else []
  guide = built(other, *same)
  with pytest.raises(ValueError, match=message):
    guide_agreement.check(own, guide, name='runs/a', level=0.0)


def test_the_key_is_optional_in_a_stage_and_in_a_cascade():
  guided = [('sampler.guide', 'runs/a'), ('sampler.guidance_weight', '0.5')]
  plain = built('smoke')
  one = built('smoke', *guided)
  assert 'guide' not in plain.config.sampler
  assert one.config.sampler.guide == 'runs/a'
  # The guide is another network, whose evaluations are not those of this one.
  assert one.evaluations == plain.evaluations == 4
  assert one.summary['guidance weight'] == (
    '0.5 (D + w (D - D_guide); 0 is none; others print 1 + w = 1.5)'
  )
  assert one.summary["guide's evaluations"] == 4
  assert built('smoke', guided[1]).evaluations == 8
  inside = ('sampler.guidance_interval', '(-3.0, 2.0)')
  partly = built('smoke', guided[1], inside).evaluations
  assert 4 < partly < 8  # of the 4 steps, some are in the interval
  within = built('smoke', *guided, inside).summary["guide's evaluations"]
  assert within == partly - 4
  cascade = loader.load(
    smoke_runs.CONFIGS / 'smoke_cascade.py',
    [('stages.sr.guide', 'runs/a'), ('stages.sr.guidance_weight', '1')],
  )
  section = cascade_stages.sections(cascade)[1]
  assert (section['guide'], section['guidance_weight']) == ('runs/a', 1)


def test_guidance_by_a_weaker_network_needs_no_null_class():
  unlabelled = [('model.null_class', 'False'), ('method.label_dropout', '0.0')]
  weight = ('sampler.guidance_weight', '0.5')
  built('smoke', *unlabelled, weight, ('sampler.guide', 'runs/a'))
  with pytest.raises(ValueError, match=r'--config\.sampler\.guide=WORKDIR'):
    built('smoke', *unlabelled, weight)


def test_no_training_and_no_plan_has_a_guide():
  c = loader.load(
    smoke_runs.CONFIGS / 'smoke.py', [('sampler.guide', 'runs/a')]
  )
  with pytest.raises(ValueError, match=r'trained without a guide'):
    program.assemble(c)
  with pytest.raises(ValueError, match=r'planned without a guide'):
    lowering.sample_step(c, None, batch_size=4)


def test_what_is_compiled_depends_on_whether_there_is_guidance():
  plain = built('smoke')

  def compiled(**changes):
    return plain.compiled_settings({**plain.config.sampler, **changes})

  one = compiled(
    guidance_weight=1.0, guidance_interval=(-1.0, 2.0), guidance_rescale=0.3
  )
  other = compiled(
    guidance_weight=9.0, guidance_interval=(-3.0, 1.0), guidance_rescale=0.7
  )
  assert one == other
  assert len({str(compiled(guidance_weight=w)) for w in (0.0, 1.0, 2.0)}) == 2
  assert one != compiled(guidance_weight=1.0, guidance_rescale=0.3)
  assert one != compiled(
    guidance_weight=1.0, guidance_interval=(-1.0, 2.0), guidance_rescale=0.0
  )
