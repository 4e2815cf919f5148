"""The networks of diffusers, by its own numbers and its own config files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle, rule_weights

from cdm.models.pretrained import diffusers_unet
from cdm.models.unet import UNet

# Compiles several times faster; the numbers are the same to rounding.
FAST = {'xla_backend_optimization_level': 0}


def nhwc(x):
  return jnp.asarray(x).transpose(0, 2, 3, 1)


def nchw(x):
  return np.asarray(x).transpose(0, 3, 1, 2)


def described(name):
  """-> (the config.json of a model, its weights)."""
  tables, _ = oracle('diffusers_unet')
  given = tables['settings']['files'][name]['config_json']
  return given, rule_weights(tables['weights'][name])


@pytest.mark.parametrize(
  'name', ['folder', 'scale_shift_class', 'resnet_updown']
)
def test_outputs_and_gradients_are_those_of_diffusers(name):
  tables, arrays = oracle('diffusers_unet')
  given, state = described(name)
  fields, side = diffusers_unet.fields(given)
  net = UNet(**fields)
  params = diffusers_unet.to_cdm(
    state,
    net,
    image_size=(side, side),
    flip_sin_to_cos=given['flip_sin_to_cos'],
  )
  total = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert total == tables['settings']['measured'][name]['parameters']
  label = {}
  if f'{name}/y' in arrays:
    label['label'] = jnp.asarray(arrays[f'{name}/y'], jnp.int32)

  @functools.partial(jax.jit, compiler_options=FAST)
  def outputs(params, x, t, label, probe):
    def predict(x):
      return net.apply({'params': params}, x, t, **label, train=False)

    out, vjp = jax.vjp(predict, x)
    return out, vjp(probe)[0]

  x, probe = (nhwc(arrays[f'{name}/{key}']) for key in ('x', 'probe'))
  t = jnp.asarray(arrays[f'{name}/t'])
  found = outputs(params, x, t, label, probe)
  for key, mine in zip(('out_f32', 'grad_x_f64'), found, strict=True):
    key = f'{name}/{key}'
    assert_matches(nchw(mine), arrays[key], tables['keys'][key]['tol'], key)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'act_fn': 'gelu'}, "act_fn is 'gelu'; our network can follow 'silu'"),
    ({'mid_block_scale_factor': 1.4}, 'mid_block_scale_factor is 1.4'),
    ({'class_embed_type': 'timestep'}, "class_embed_type is 'timestep'"),
    ({'add_attention': False}, 'add_attention is False'),
    ({'layers_per_block': True}, 'layers_per_block is True; expected int'),
    ({'block_out_channels': []}, r'block_out_channels is \[\]'),
    ({'sample_size': None}, 'sample_size is None; expected int'),
    ({'out_channels': 4}, 'out_channels is 4 and in_channels 3'),
    ({'cross_attention_dim': 768}, 'cross_attention_dim is 768, a key that'),
    ({'attn_norm_num_groups': 4}, 'attn_norm_num_groups is 4'),
    (
      {'up_block_types': ['UpBlock2D', 'UpBlock2D']},
      'the levels attend on both ways or on neither',
    ),
    (
      {'down_block_types': ['CrossAttnDownBlock2D', 'AttnDownBlock2D']},
      "has 'CrossAttnDownBlock2D'; our network can follow DownBlock2D",
    ),
    (
      {'down_block_types': ['ResnetDownsampleBlock2D', 'AttnDownBlock2D']},
      'resample partly by convolutions and partly by residual blocks',
    ),
  ],
)
def test_what_our_network_cannot_follow_is_refused_by_its_key(change, message):
  given, _ = described('scale_shift_class')
  with pytest.raises(ValueError, match=message):
    diffusers_unet.fields(given | change)


def test_missing_parts_of_an_attention_are_named():
  given, state = described('scale_shift_class')
  fields, side = diffusers_unet.fields(given)
  del state['mid_block.attentions.0.to_k.bias']
  with pytest.raises(ValueError, match=r'lacks 1 .*mid_block.*to_k\.bias'):
    diffusers_unet.to_cdm(
      state, UNet(**fields), image_size=(side, side), flip_sin_to_cos=True
    )
