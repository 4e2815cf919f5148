"""The flags of guidance are short for keys of the config."""

import argparse

import pytest

from cdm.cli import guidance_flags


def parsed(*words):
  parser = argparse.ArgumentParser()
  guidance_flags.arguments(parser, cascades=True)
  return parser.parse_args(words)


def test_a_single_stage_is_guided_by_its_section_sampler():
  args = parsed('--guide=runs/a@500', '--guidance_weight=0.5')
  assert guidance_flags.overrides(args) == [
    ('sampler.guide', 'runs/a@500'),
    ('sampler.guidance_weight', '0.5'),
  ]
  args = parsed('--guidance_weight=2')
  assert guidance_flags.overrides(args) == [('sampler.guidance_weight', '2')]
  assert guidance_flags.overrides(parsed()) == []


def test_each_stage_of_a_cascade_has_a_guide_of_its_own():
  args = parsed(
    '--guide=base:runs/a',
    '--guide=sr:runs/b@best',
    '--guidance_weight=sr:1',
    '--guidance_weight=base:0.25',
  )
  assert guidance_flags.overrides(args, ['base', 'sr']) == [
    ('stages.base.guide', 'runs/a'),
    ('stages.sr.guide', 'runs/b@best'),
    ('stages.sr.guidance_weight', '1'),
    ('stages.base.guidance_weight', '0.25'),
  ]


@pytest.mark.parametrize(
  ('words', 'stages', 'message'),
  [
    (['--guide=a'], None, r'--guide=a has no weight; give --guidance_weight=W'),
    (
      ['--guide=sr:a', '--guidance_weight=base:1'],
      ['base', 'sr'],
      r'--guide=sr:a has no weight; give --guidance_weight=sr:W',
    ),
    (['--guidance_weight=x'], None, r'--guidance_weight=x: give a number'),
    (['--guidance_weight=nan'], None, r'--guidance_weight=nan: give a number'),
    (
      ['--guide=a', '--guidance_weight=sr:1'],
      ['base', 'sr'],
      r'--guide=a: a cascade has several stages.* STAGE is one of base, sr',
    ),
    (
      ['--guide=top:a', '--guidance_weight=top:1'],
      ['base', 'sr'],
      r'--guide=top:a: a cascade has',
    ),
    (
      ['--guidance_weight=1', '--guidance_weight=2'],
      None,
      r'--guidance_weight was given twice; give it once',
    ),
  ],
)
def test_what_names_no_guidance_is_refused(words, stages, message):
  with pytest.raises(ValueError, match=message):
    guidance_flags.overrides(parsed(*words), stages)
