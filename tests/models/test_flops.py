"""What `cdm describe` counts, against closed forms and published numbers."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from cdm.models import flops as describe
from cdm.models.unet import UNet
from cdm.planning import describe as planning_describe
from cdm.reporting import text_table

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


def flops(f, *shapes):
  args = [jnp.zeros(shape) for shape in shapes]
  return describe.flops_of(jax.make_jaxpr(f)(*args))


def conv(x, w, *, strides=1, groups=1, padding='SAME'):
  return jax.lax.conv_general_dilated(
    x,
    w,
    (strides, strides),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def stage(net, image_size, lowres_size=None):
  return planning_describe.describe_stage(
    name='it',
    net=UNet(**net),
    image_size=image_size,
    lowres_size=lowres_size,
    schedule={'kind': 'cosine'},
    paper={'fid_train': 1.5},
  )


@pytest.mark.parametrize(
  ('strides', 'groups', 'expected'),
  # outputs x window x inputs per group, in multiply-adds of two FLOPs
  [
    (1, 1, 2 * (2 * 8 * 10 * 12) * (3 * 5) * 6),
    (2, 1, 2 * (2 * 4 * 5 * 12) * (3 * 5) * 6),
    (1, 3, 2 * (2 * 8 * 10 * 12) * (3 * 5) * 2),
  ],
)
def test_a_convolution_costs_its_window_at_every_output(
  strides, groups, expected
):
  counted = flops(
    lambda x, w: conv(x, w, strides=strides, groups=groups),
    (2, 8, 10, 6),
    (3, 5, 6 // groups, 12),
  )
  assert counted == expected


def test_a_batched_matmul_costs_its_contracted_axes_at_every_output():
  counted = flops(
    lambda q, k: jnp.einsum('bqhd,bkhd->bhqk', q, k),
    (2, 7, 3, 5),
    (2, 11, 3, 5),
  )
  assert counted == 2 * (2 * 3 * 7 * 11) * 5


def test_without_padding_the_compiler_counts_the_same():
  """XLA's own cost analysis, of a program of nothing but multiply-adds."""

  def f(x, w, m):
    return conv(x, w, strides=2, padding='VALID') @ m

  shapes = (2, 9, 9, 4), (3, 3, 4, 8), (8, 6)
  args = [jnp.zeros(shape) for shape in shapes]
  peer = jax.jit(f).lower(*args).cost_analysis()['flops']
  assert flops(f, *shapes) == peer


def test_work_inside_other_programs_is_counted_every_time_it_runs():
  def f(x):
    square = jax.jit(lambda a: a @ a)  # once
    again = jax.checkpoint(jax.nn.silu)(square(x))
    turned, _ = jax.lax.scan(lambda a, _: (a @ a, None), again, length=5)
    either = jax.lax.cond(
      x[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, turned
    )
    remembered = jax.checkpoint(lambda a: a @ a)(either)
    return jax.vmap(lambda row: row @ x)(remembered)

  # jit 1, scan 5, the dearer branch 2, checkpoint 1, vmap 1.
  assert flops(f, (4, 4)) == 10 * 2 * 4**3


def test_a_loop_of_unknown_length_is_refused():
  def f(x):
    return jax.lax.while_loop(lambda a: a[0, 0] < 1, lambda a: a @ a, x)

  with pytest.raises(ValueError, match='while loop.*use jax.lax.scan'):
    flops(f, (4, 4))


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
  text = planning_describe.format_stages([described, second], title='a cascade')
  lines = text.splitlines()
  assert lines[0] == 'a cascade'
  assert f'{described["parameters"]:,}' in text
  assert any(line.split()[:3] == ['sr', '32', '16'] for line in lines)
  assert 'fid_train  1.5' in text
  assert 'MFLOP' in text
  # Every block's share is of the whole.
  shares = [float(x[:-1]) for x in text.split() if x.endswith('%')]
  assert sum(shares) == pytest.approx(200, abs=3)


@pytest.mark.parametrize(
  ('number', 'text'),
  [
    (999, '999 FLOP'),
    (1_500, '1.5 kFLOP'),
    (2_239_665_537_024, '2.24 TFLOP'),
    (151_300_000_000, '151 GFLOP'),
    (999_600_000, '1000 MFLOP'),
  ],
)
def test_large_numbers_are_written_with_three_digits(number, text):
  assert text_table.si(number, 'FLOP') == text
