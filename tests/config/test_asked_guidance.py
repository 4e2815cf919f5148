"""The guidance of a stage, asked for in the config of its cascade."""

import pytest
from support import smoke_runs

from cdm.config import asked_guidance, cascade_stages, loader


def test_the_guidance_of_a_cascade_goes_before_that_of_its_samplers():
  section = {'name': 'sr', 'sampler': None, 'level': 0.1}
  asked = {'guide': 'runs/a', 'guidance_weight': 1}
  assert asked_guidance.of_stage(section) == (section, [])
  assert asked_guidance.of_stage(section | asked) == (
    section,
    [('sampler.guidance_weight', '1.0'), ('sampler.guide', 'runs/a')],
  )
  own = {'kind': 'ddim', 'guidance_weight': 0.0}
  found, keys = asked_guidance.of_stage(section | asked | {'sampler': own})
  assert found['sampler'] == {**own, 'guidance_weight': 1.0, 'guide': 'runs/a'}
  assert not keys
  with pytest.raises(ValueError, match=r'stages\.sr\.guidance_weight is .x.'):
    asked_guidance.of_stage(section | {'guidance_weight': 'x'})


def test_a_cascade_is_described_with_it():
  path = smoke_runs.CONFIGS / 'smoke_cascade.py'
  c = loader.load(path, [('stages.sr.guidance_weight', '0.5')])
  [(_, base, _), (_, sr, _)] = cascade_stages.stage_configs(c, path)
  assert base.sampler.guidance_weight == 0.0
  assert sr.sampler.guidance_weight == 0.5
