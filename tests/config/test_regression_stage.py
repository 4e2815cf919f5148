"""Stages that regress, of both kinds of network."""

import pytest
from support import smoke_runs

from cdm.config import loader, stage
from cdm.models.enlarging_resnet import EnlargingResnet
from cdm.models.unet import UNet

RESNET = smoke_runs.CONFIGS / 'faces_small_regression8to32.py'


def built(path=RESNET, *overrides):
  return stage.stage(loader.load(path, list(overrides)))


def test_the_section_of_the_network_names_its_kind_or_means_a_u_net():
  found = built()
  assert isinstance(found.net, EnlargingResnet)
  assert found.net.magnification == 4
  assert found.input_size == 32 and not found.is_residual
  other = built(smoke_runs.CONFIGS / 'smoke_regression.py')
  assert isinstance(other.net, UNet)


def test_the_parameters_are_counted_without_a_low_res_image():
  params, operations = built().trace()
  assert list(params)[0] == 'conv_in' and list(params)[-1] == 'conv_out'
  # Two convolutions of 9 x 32 x 32 products in each of 6 blocks at 8, 16, 32.
  blocks = 2 * 6 * 2 * 9 * 32 * 32 * (8**2 + 16**2 + 32**2)
  assert blocks < operations < 1.1 * blocks


@pytest.mark.parametrize(
  ('override', 'said'),
  [
    (('model.kind', 'vgg'), r"config\.model\.kind is 'vgg'"),
    (('model.num_blocks', '-1'), r'config\.model\.num_blocks is -1'),
    (('lowres.size', '32'), None),
    (('pipeline.image_size', '24'), 'does not give 3 times that'),
    (('lowres', 'None'), 'lowres is None'),
    (('method.norm', '3'), r'method\.norm is 3'),
  ],
)
def test_what_cannot_be_built_is_refused_by_its_key(override, said):
  if said is None:
    assert built(RESNET, override).net.magnification == 1
    return
  with pytest.raises(ValueError, match=said):
    built(RESNET, override)
