"""What `cdm describe` counts, against closed forms and published numbers."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from cdm.config import built_stage
from cdm.methods.base import Method
from cdm.methods.lowres_conditioning import Lowres
from cdm.models.unet import UNet
from cdm.planning import describe

TINY = dict(
  features=16,
  multipliers=(1, 2),
  num_blocks=1,
  attention_resolutions=(8,),
  norm_groups=8,
)


# [ADM]'s networks, by the flags of its published models.
ADM = dict(
  resample='biggan',
  embedding='film',
  num_classes=1000,
  learned_variance=True,
  attention_resolutions=(32, 16, 8),
)


ADM_64 = dict(features=192, multipliers=(1, 2, 3, 4), num_blocks=3)


ADM_256 = dict(features=256, multipliers=(1, 1, 2, 2, 4, 4), num_blocks=2)


ADM_UP = dict(features=192, multipliers=(1, 1, 2, 2, 4, 4), num_blocks=2)


def stage(net, image_size, lowres_size=None):
  lowres = None if lowres_size is None else Lowres(size=lowres_size)
  built = built_stage.Stage(
    ConfigDict(),
    UNet(**net),
    None,
    Method(None, None, None),
    {'kind': 'cosine'},
    lowres=lowres,
    input_size=image_size,
  )
  return describe.describe_stage(
    name='it',
    built=built,
    paper={'fid_train': 1.5},
  )


def test_adm_costs_what_is_published():
  """[DiT] (arXiv 2212.09748) sec. 5.1: ADM at 256 px takes 1120 "Gflops", ADM
  with its upsampler 742; it counts a multiply-add as one. [ADM]: 554M.
  """
  adm = stage({**ADM, **ADM_256, 'head_features': 64}, 256)
  assert adm['flops_per_image'] / 2e9 == pytest.approx(1120, abs=0.5)
  assert adm['parameters'] / 1e6 == pytest.approx(554, abs=0.5)
  base = stage({**ADM, **ADM_64, 'head_features': 64}, 64)
  up = stage({**ADM, **ADM_UP, 'num_heads': 4}, 256, 64)
  both = base['flops_per_image'] + up['flops_per_image']
  assert both / 2e9 == pytest.approx(742, abs=1.0)


def test_parameters_are_those_that_init_makes():
  net = UNet(**TINY, num_classes=5, lowres_level=True)
  described = stage({**TINY, 'num_classes': 5, 'lowres_level': True}, 16, 8)
  params = jax.eval_shape(
    functools.partial(net.init, train=False),
    jax.random.key(0),
    jnp.zeros((1, 16, 16, 3)),
    jnp.zeros(1),
    label=jnp.zeros(1, jnp.int32),
    lowres=jnp.zeros((1, 16, 16, 3)),
    lowres_level=jnp.zeros(1),
  )['params']
  sizes = {k: sum(x.size for x in jax.tree.leaves(params[k])) for k in params}
  assert described['parameters_by_block'] == sizes
  assert described['parameters'] == sum(sizes.values())


def test_blocks_are_listed_in_the_order_of_work():
  names = list(stage(TINY, 16)['parameters_by_block'])
  inputs = ['noise', 'conv_in', 'down_16_block_0', 'down_16_to_8']
  middle = ['mid_block_0', 'mid_attention', 'mid_block_1']
  outputs = ['up_8_to_16', 'up_16_block_0', 'norm_out', 'conv_out']
  expected = [*inputs, *middle, *outputs]
  assert [name for name in names if name in expected] == expected


def test_describing_allocates_no_parameters():
  before = len(jax.live_arrays())
  described = stage({**ADM, **ADM_64, 'head_features': 64}, 64)
  assert described['parameters'] == 295_904_454  # [ADM]'s code: 295.9M
  assert len(jax.live_arrays()) == before


def test_without_attention_flops_grow_with_the_area():
  """All but the embeddings, which see no image."""
  plain = {**TINY, 'attention_resolutions': (), 'condition_on': 'logsnr'}
  small, large, huge = (
    stage(plain, size)['flops_per_image'] for size in (8, 16, 32)
  )
  # The middle attends always: its N^2 part is (N = size^2 / 4) 4 N^2 32.
  attention = [4 * (size**2 // 4) ** 2 * 32 for size in (8, 16, 32)]
  small, large, huge = (
    total - part
    for total, part in zip((small, large, huge), attention, strict=True)
  )
  assert huge - large == 4 * (large - small)


@pytest.mark.parametrize('field', ['remat', 'dtype'])
def test_how_it_is_computed_changes_no_count(field):
  value = {'remat': 'full', 'dtype': 'bfloat16'}[field]
  assert stage({**TINY, field: value}, 16) == stage(TINY, 16)


def test_a_description_is_json_with_the_agreed_fields():
  described = json.loads(json.dumps(stage(TINY, 16)))
  assert type(described['parameters']) is int
  assert type(described['flops_per_image']) is int
  assert described['lowres_size'] is None
  assert described['paper'] == {'fid_train': 1.5}
  assert (described['name'], described['image_size']) == ('it', 16)


def test_the_text_shows_every_stage_and_the_numbers_of_the_paper():
  described = stage(TINY, 16)
  second = {**described, 'name': 'sr', 'lowres_size': 16, 'image_size': 32}
  text = describe.format_stages([described, second], title='a cascade')
  lines = text.splitlines()
  assert lines[0] == 'a cascade'
  assert f'{described["parameters"]:,}' in text
  assert any(line.split()[:3] == ['sr', '32', '16'] for line in lines)
  assert 'fid_train  1.5' in text
  assert 'MFLOP' in text
  # Every block's share is of the whole.
  shares = [float(x[:-1]) for x in text.split() if x.endswith('%')]
  assert sum(shares) == pytest.approx(200, abs=3)
