"""A config of RAISR becomes filters, or one sentence."""

import pathlib

import pytest

from cdm.config import loader, stage

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def refusal(*overrides, **sections):
  """-> the sentence with which a changed config is refused."""
  c = loader.load(CONFIGS / 'smoke_raisr.py', overrides)
  with c.unlocked():
    for name, section in sections.items():
      c[name] = section
  with pytest.raises(ValueError) as error:
    stage.stage(c)
  return str(error.value)


def test_it_has_no_network():
  text = refusal(model=dict(features=8))
  assert text.startswith(
    "config.model is given, but method.kind='raisr' has no use for it"
  )


def test_it_needs_a_low_res_image():
  assert 'config.lowres is None' in refusal(lowres=None)


@pytest.mark.parametrize(
  ('key', 'value', 'sentence'),
  [
    ('method.patch', '4', 'config.method.patch is 4; it must be odd'),
    ('method.angles', '3', 'config.method.angles is 3; it must be even'),
    ('method.blending', 'half', "config.method.blending is 'half'; known are"),
    ('lowres.augment', 'noise', "config.lowres.augment is 'noise'; RAISR is"),
    ('lowres.size', '2', 'config.lowres.size is 2, so images have 16 pixels'),
  ],
)
def test_what_cannot_be_is_refused_by_its_key(key, value, sentence):
  assert refusal((key, value)).startswith(sentence)


def test_the_margin_covers_patch_window_and_the_bicubic_colours():
  built = stage.stage(loader.load(CONFIGS / 'raisr_x2.py'))
  # 5 pixels of a patch are 3 low-res pixels, and bicubic reaches 2 more.
  assert built.margin == 3 + 2
