"""A cascade whose stages do not fit is refused before anything is trained."""

import pytest

from cdm.config import loader
from cdm.planning import all_stages

PATH = loader.CONFIGS / 'smoke_cascade.py'


def test_the_stages_of_a_cascade_are_built_in_their_order():
  built = all_stages.build(loader.load(PATH), PATH)
  assert [one.name for one in built] == ['base', 'sr']
  assert [one.built.input_size for one in built] == [8, 16]


@pytest.mark.parametrize(
  ('key', 'text', 'message'),
  [
    ('stages.sr.config', 'photos8to32', r'takes 8-px|number of classes'),
    ('stages.sr.config', 'cdm_imagenet64to128', r'makes 8-px .* takes 64-px'),
    ('stages.sr.config', 'smoke', r"'sr' follows 'base' but takes no low-res"),
    ('stages.base.config', 'smoke_sr', r"'base' is the first .* needs a 8-px"),
    ('stages.base.config', 'smoke_cas', r"'smoke_cas' is a classifier"),
    ('stages.base.level', '0.1', r'stages\.base\.level is 0\.1, but the first'),
    ('stages.sr.level', '7', r'level 7\.0; a level is'),
    ('stages.sr.level', '0.5', r'trained on levels up to 0\.2'),
    ('stages.sr.name', 'base', r"name is 'base', the name of an earlier"),
    ('stages.sr.sampler', 'x', r"stages\.sr\.sampler is 'x'; it must be a sec"),
    ('stages.sr.truncated', 'x', r'stages\.sr\.truncated is False; it takes'),
  ],
)
def test_stages_that_do_not_fit_are_refused(key, text, message):
  with pytest.raises(ValueError, match=message):
    all_stages.build(loader.load(PATH, [(key, text)]), PATH)


@pytest.mark.parametrize(
  ('stages', 'message'),
  [
    (None, r'config\.stages is None; it must be a list'),
    ((), r'config\.stages is \(\); it must be a list'),
    ((3,), r'config\.stages\.0 is 3; it must be a section'),
    ((dict(config='smoke'),), r'config\.stages\.0\.name is missing'),
    ((dict(name='a', config=3),), r'stages\.0\.config is 3; it must be a text'),
  ],
)
def test_stages_that_are_none_are_refused(stages, message):
  c = loader.ConfigDict({'name': 'x', 'stages': stages})
  with pytest.raises(ValueError, match=message):
    all_stages.build(c, PATH)


def test_a_sampler_of_a_stage_is_named_by_the_stage():
  c = loader.load(PATH)
  c = loader.ConfigDict(c.to_dict())
  c.stages[1]['sampler'] = {'kind': 'ddim', 'grid': {'kind': 'fll'}}
  with pytest.raises(
    ValueError, match=r'^config\.stages\.sr\.sampler\.grid\.k'
  ):
    all_stages.build(c, PATH)


def test_an_error_in_the_config_of_a_stage_names_the_stage(tmp_path):
  for name in ('smoke', 'smoke_sr', 'smoke_cascade'):
    text = (loader.CONFIGS / f'{name}.py').read_text(encoding='utf-8')
    if name == 'smoke_sr':
      text = text.replace('dropout=0.0', 'dropout=3.0')
    (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
  path = tmp_path / 'smoke_cascade.py'
  with pytest.raises(ValueError) as caught:
    all_stages.build(loader.load(path), path)
  assert str(caught.value) == (
    'config.stages.sr.config: config.model.dropout is 3.0; a rate must be at '
    'least 0 and below 1. Correct the config of this stage.'
  )
