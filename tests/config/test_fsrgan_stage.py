"""A config of FSRGAN becomes two networks and a method, or one sentence."""

import pathlib

import jax
import numpy as np
import pytest
from support import published_weights

from cdm.config import loader, stage, stage_warnings
from cdm.models import lpips

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def config(name='smoke_fsrgan', **overrides):
  return loader.load(
    CONFIGS / f'{name}.py',
    [(key.replace('__', '.'), str(v)) for key, v in overrides.items()],
  )


def players(c):
  return set(jax.eval_shape(stage.stage(c).method.init, jax.random.key(0)))


def test_without_adversarial_weight_there_is_fsrnet_alone():
  assert players(config()) == {'generator', 'discriminator'}
  alone = config(method__adversarial_weight=0)
  assert players(alone) == {'generator'}
  assert stage.stage(alone).summary['method'] == 'FSRNet'
  assert 'discriminator' not in stage.stage(alone).trace()[0]


def test_both_players_are_described_and_drawing_costs_the_generator_alone():
  """The FLOPs of the smoke config are those of 16 px through FSRNet."""
  params, both = stage.stage(config()).trace()
  assert list(params)[-1] == 'discriminator' and list(params)[0] == 'coarse'
  _, alone = stage.stage(config(method__adversarial_weight=0)).trace()
  assert both == alone > 0


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      {'model__discriminator__features': 0},
      r'config\.model\.discriminator\.features is 0; it must be at least 1',
    ),
    ({'model__hourglass_depth': 5}, r'config\.model\.hourglass_depth is 5'),
    ({'method__r1_weight': -1.0}, r'config\.method\.r1_weight is -1'),
    ({'method__feature_network': 'inception'}, 'known are alex, vgg, squeeze'),
    ({'method__feature_layer': 6}, "'vgg' has the layers 1 to 5"),
    ({'lowres__augment': 'noise'}, r"config\.lowres\.augment is 'noise'"),
  ],
)
def test_what_cannot_be_trained_is_refused_with_its_key(overrides, message):
  with pytest.raises(ValueError, match=message) as error:
    stage.stage(config(**overrides))
  assert '--config.' in str(error.value)


def test_a_gan_without_a_discriminator_is_refused():
  c = config()
  with c.unlocked():
    del c.model['discriminator']
  with pytest.raises(ValueError, match=r'discriminator is missing.*alone with'):
    stage.stage(c)
  c.method.adversarial_weight = 0.0
  assert stage.stage(c).summary['method'] == 'FSRNet'


def test_a_stage_without_low_res_images_is_refused():
  c = config()
  with c.unlocked():
    c.lowres = None
  with pytest.raises(ValueError, match=r'config\.lowres is None.*define'):
    stage.stage(c)


# --- The perceptual loss


def vgg_file(path):
  """Writes the first convolutions of VGG-16, as torchvision does."""
  rng = np.random.default_rng(0)
  state = {}
  for number, shape in ((0, (64, 3, 3, 3)), (2, (64, 64, 3, 3))):
    value = 0.1 * rng.normal(size=shape)
    state[f'features.{number}.weight'] = value.astype(np.float32)
    state[f'features.{number}.bias'] = np.zeros(shape[0], np.float32)
  published_weights.write_pytorch(path, state, zipped=True)
  return path


def scalars(c):
  """-> names of what a loss reports, from its shapes alone."""
  built = stage.stage(c)
  batch = {
    'image': jax.ShapeDtypeStruct((2, 16, 16, 3), np.uint8),
    'label': jax.ShapeDtypeStruct((2,), np.int32),
  }
  return jax.eval_shape(
    lambda b: built.method.loss(
      built.method.init(jax.random.key(0)),
      b,
      key=jax.random.key(1),
      train=True,
    ),
    batch,
  )[1]


def test_without_weights_the_perceptual_loss_is_off_and_that_is_said():
  c = config(method__perceptual_weight=0.1)
  assert 'perceptual_loss' not in scalars(c)
  built = stage.stage(c)
  assert stage_warnings.stage_warnings(built) == [
    'The perceptual loss is off, because config.method.feature_weights is '
    f'empty. Fetch {lpips.BACKBONE_URLS["vgg"]} and give its path with '
    '--config.method.feature_weights=PATH, or set '
    '--config.method.perceptual_weight=0.'
  ]
  assert 'off' in built.summary['perceptual loss']
  assert not stage_warnings.stage_warnings(stage.stage(config()))


def test_the_weights_of_a_classifier_turn_it_on(tmp_path):
  c = config(
    method__perceptual_weight=0.1,
    method__feature_weights=vgg_file(tmp_path / 'vgg.pth'),
    method__feature_layer=1,
  )
  assert 'perceptual_loss' in scalars(c)
  assert not stage_warnings.stage_warnings(stage.stage(c))


@pytest.mark.parametrize('kind', ['absent', 'another'])
def test_weights_that_cannot_be_used_end_training_before_it_starts(
  tmp_path, kind
):
  """Drawing needs no file, so that a trained network is drawn with anywhere."""
  path = tmp_path / 'vgg.pth'
  if kind == 'another':
    vgg_file(path)  # which ends before layer 2
  c = config(
    method__perceptual_weight=0.1,
    method__feature_weights=path,
    method__feature_layer=2,
  )
  assert stage.stage(c).method.sample is not None
  with pytest.raises(ValueError, match=r'config\.method\.feature_weights') as e:
    scalars(c)
  assert {'absent': 'is not there', 'another': '5.bias is missing'}[
    kind
  ] in str(e.value)
