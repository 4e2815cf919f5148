"""`model.kind` of a diffusion model: its network, and what it refuses."""

import pathlib

import pytest

from cdm.config import loader, objective_section, stage
from cdm.diffusion.cosine_logsnr import shifted_cosine
from cdm.models.edm2_unet import Edm2UNet
from cdm.models.uvit import UVit
from cdm.training import program

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def built(name, **overrides):
  pairs = [(f'model.{k}', str(v)) for k, v in overrides.items()]
  return stage.stage(loader.load(CONFIGS / f'{name}.py', pairs))


def test_a_kind_chooses_the_network():
  made = built('smoke_edm2')
  assert isinstance(made.net, Edm2UNet) and made.net.features == 8
  assert made.method.project is not None
  assert isinstance(built('uvit_imagenet128').net, UVit)
  assert built('smoke').method.project is None


def test_a_transformer_may_be_split_and_told_its_parts():
  """Its step is traced for eight devices, and gathers what they split."""
  small = {
    'model.features': 8,
    'model.multipliers': '(1, 2)',
    'model.num_blocks': 1,
    'model.num_transformers': 1,
    'model.head_features': 16,
    'model.patch_size': 8,
    'model.norm_groups': 4,
    'model.remat': 'full',
    'train.batch_size': 16,
    'train.accumulation': 2,
    'mesh.fsdp': 8,
  }
  c = loader.load(
    CONFIGS / 'uvit_imagenet128.py', [(k, str(v)) for k, v in small.items()]
  )
  made = program.assemble(c)
  assert any(made.state.params['position'].sharding.spec)
  text = made.step.lower(made.state, made.batch).as_text()
  assert 'all_gather' in text and 'reduce_scatter' in text


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'kind': 'edm3_unet'}, r"config\.model\.kind is 'edm3_unet'; known are"),
    ({'features': 0}, r'config\.model\.features is 0; it must be from 1'),
    ({'multipliers': '(1, 2, 4, 8, 8)'}, r'config\.pipeline\.image_size'),
    (
      {'head_features': 3},
      r'config\.model\.head_features is 3, which does not',
    ),
    ({'clip': "'x'"}, r'config\.model\.clip'),
  ],
)
def test_what_no_network_can_have_is_refused_by_its_key(overrides, message):
  with pytest.raises(ValueError, match=message):
    built('smoke_edm2', **overrides)


def test_the_weight_of_edm2_is_asked_for():
  schedule = shifted_cosine(100, image_size=64, noise_size=64)

  def objective(**weighting):
    section = {'kind': 'diffusion', 'prediction': 'v', 'weighting': weighting}
    return objective_section.objective(section, schedule)

  assert not objective(kind='uncertainty').uncertainty.is_normalized
  found = objective(kind='uncertainty', normalized=True)
  assert found.uncertainty.is_normalized
  with pytest.raises(ValueError, match=r'weighting\.normalized is 1; it must'):
    objective(kind='uncertainty', normalized=1)
