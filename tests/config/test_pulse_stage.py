"""The section of a generator, of its discriminator and of its search."""

import pathlib

import pytest

from cdm.config import loader, stage
from cdm.models import flops

CONFIG = (
  pathlib.Path(__file__).resolve().parents[2]
  / 'configs'
  / 'faces_small_pulse16to64.py'
)


def built(*overrides):
  return stage.stage(loader.load(CONFIG, overrides))


@pytest.mark.parametrize(
  'key, value, message',
  [
    ('model.latent_size', '0', r'config\.model\.latent_size is 0'),
    ('model.feature_base', '16', r'config\.model\.feature_base is 16, which'),
    (
      'pipeline.image_size',
      '48',
      r'config\.pipeline\.image_size is 48; .* two',
    ),
    (
      'model.discriminator.features',
      '0',
      r'config\.model\.discriminator\.features is 0',
    ),
    ('method.search.steps', '0', r'config\.method\.search\.steps is 0; .* 1\.'),
    (
      'method.search.schedule',
      'x',
      r"search\.schedule is 'x'; known are fixed",
    ),
    ('method.r1_weight', '-1', r'config\.method\.r1_weight is -1'),
    ('method.fit_samples', 'None', r'config\.method\.fit_samples is None and'),
    ('lowres.downsample', 'area', r"config\.lowres\.downsample is 'area'"),
    ('lowres.size', '64', r'config\.lowres\.size is 64, which does not'),
  ],
)
def test_a_wrong_value_is_named_with_its_key(key, value, message):
  with pytest.raises(ValueError, match=message):
    built((key, value))


def test_a_stage_counts_its_players_and_the_images_of_its_search():
  whole = built()
  params, work = whole.trace()
  assert list(params) == ['mapping', 'synthesis', 'discriminator']
  assert flops.count_parameters(params) == 1_470_964
  # A gradient takes as long as two images; the best image is drawn again.
  assert (whole.turns, whole.evaluations) == (100, 301)
  twice = built(('method.search.restarts', '2'))
  assert (twice.turns, twice.evaluations) == (100, 601)
  assert twice.trace()[1] == work
  base = built(('lowres', 'None'))
  assert (base.turns, base.evaluations) == (1, 1)
  assert base.summary['method'] == 'StyleGAN' and base.lowres is None


def test_the_record_of_images_holds_the_search():
  """So that a folder is not continued by another search."""
  first, other = built(), built(('method.search.steps', '7'))
  assert first.drawn_with['search']['steps'] == 100
  assert other.drawn_with['search']['steps'] == 7
  assert first.drawn_with['fit_samples'] == 20_000
  assert built(('lowres', 'None')).drawn_with == {'kind': 'pulse'}
