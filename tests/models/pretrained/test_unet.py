"""The U-Net's numbers against the public PyTorch code, via its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import (
  adm_network,
  assert_matches,
  oracle,
  rule_weights,
)

from cdm.models.pretrained import unet, unet_architecture, unet_mapping
from cdm.models.unet import UNet
from cdm.models.unet_plan import plan

# Compiles several times faster; the numbers are the same to rounding.
FAST = {'xla_backend_optimization_level': 0}


def adm(name):
  """-> the oracle's (settings, weights by its names, our network)."""
  tables, _ = oracle('adm_unet')
  settings = tables['settings']['models'][name]
  weights = rule_weights(tables['weights'][name])
  return settings, weights, adm_network(settings['kw'])


def nhwc(x):
  return jnp.asarray(x).transpose(0, 2, 3, 1)


def nchw(x):
  return np.asarray(x).transpose(0, 3, 1, 2)


def outputs(net, params, x, t, given, probe):
  """-> (output, gradient of its product with the probe in x)."""

  def both(params, x, probe):
    def predict(x):
      return net.apply({'params': params}, x, t, **given, train=False)

    out, vjp = jax.vjp(predict, x)
    return out, vjp(probe)[0]

  return jax.jit(both, compiler_options=FAST)(params, nhwc(x), nhwc(probe))


@pytest.mark.parametrize(
  'name, attention_order',
  [
    ('updown', 'legacy'),
    ('plain_heads4', 'legacy'),
    ('new_attention_order', 'new'),
    ('uncond_additive', 'legacy'),
    ('superres_16_32', 'legacy'),
  ],
)
def test_outputs_and_gradients_are_those_of_adm(name, attention_order):
  tables, arrays = oracle('adm_unet')
  settings, state, net = adm(name)
  size = tuple(settings['size'])
  params = unet.adm_to_cdm(
    state, net, image_size=size, attention_order=attention_order
  )
  total = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert total == tables['settings']['measured'][name]['parameters']

  given = {}
  if f'{name}/y' in arrays:
    given['label'] = jnp.asarray(arrays[f'{name}/y'], jnp.int32)
  if f'{name}/low_res' in arrays:
    low = nhwc(arrays[f'{name}/low_res'])
    given['lowres'] = jax.image.resize(low, (len(low), *size, 3), 'linear')
  t = jnp.asarray(arrays[f'{name}/t'])
  out, gradient = outputs(
    net, params, arrays[f'{name}/x'], t, given, arrays[f'{name}/probe']
  )
  for key, mine in (('out_f32', out), ('grad_x_f64', gradient)):
    key = f'{name}/{key}'
    assert_matches(nchw(mine), arrays[key], tables['keys'][key]['tol'], key)


def test_outputs_and_gradients_are_those_of_improved_diffusion():
  """Its heads may differ on the way up; the field `num_heads` has both."""
  name = 'learned_sigma_class'
  tables, arrays = oracle('iddpm_unet')
  settings = tables['settings']['models'][name]
  state = rule_weights(tables['weights'][name])
  kw, size = settings['kw'], tuple(settings['size'])
  net = UNet(
    **unet_architecture.read_adm(state).at(size[0]),
    num_heads=(kw['num_heads'], kw['num_heads_upsample']),
  )
  params = unet.adm_to_cdm(state, net, image_size=size)
  given = {'label': jnp.asarray(arrays[f'{name}/y'], jnp.int32)}
  t = jnp.asarray(arrays[f'{name}/t'])
  out, gradient = outputs(
    net, params, arrays[f'{name}/x'], t, given, arrays[f'{name}/probe']
  )
  for key, mine in (('out_f32', out), ('grad_x_f64', gradient)):
    key = f'{name}/{key}'
    assert_matches(nchw(mine), arrays[key], tables['keys'][key]['tol'], key)


@pytest.mark.parametrize('name', ['mid_attn', 'groups32', 'unconditional'])
def test_outputs_are_those_of_the_unofficial_sr3(name):
  tables, arrays = oracle('sr3_unet')
  settings = tables['settings']['models'][name]
  fields = settings['kw']
  net = UNet(
    features=fields['inner_channel'],
    multipliers=fields['channel_mults'],
    num_blocks=fields['res_blocks'],
    attention_resolutions=fields['attn_res'],
    norm_groups=fields['norm_groups'],
    resample='conv',
    embedding='additive',
    condition_on='sqrt_alpha_bar',
    condition_scale=1.0,
  )
  params = unet.sr3_to_cdm(
    rule_weights(tables['weights'][name]),
    net,
    image_size=tuple(settings['size']),
  )
  x, given = nhwc(arrays[f'{name}/x']), {}
  if fields['in_channel'] == 6:
    given['lowres'], x = x[..., :3], x[..., 3:]
  alpha_bar = arrays[f'{name}/noise_level'][:, 0].astype(np.float64) ** 2
  logsnr = jnp.asarray(np.log(alpha_bar / (1 - alpha_bar)), jnp.float32)

  def predict(params, x, given):
    return net.apply({'params': params}, x, logsnr, **given, train=False)

  out = jax.jit(predict, compiler_options=FAST)(params, x, given)
  key = f'{name}/out_f32'
  assert_matches(nchw(out), arrays[key], tables['keys'][key]['tol'], key)


def small():
  """-> (a network, weights for it by ADM's names), of zeros."""
  net = UNet(8, (1, 2), 1, resample='conv', embedding='additive', norm_groups=8)
  levels = plan(net, (8, 8))
  names = unet.adm_names(net, levels)
  state = {}
  for (module, leaf), shape in unet_mapping.shapes(net, (8, 8), 0).items():
    theirs = f'{names[module]}.{"bias" if leaf == "bias" else "weight"}'
    if len(shape) == 4:
      shape = (shape[3], shape[2], *shape[:2])
    state[theirs] = np.zeros(shape[::-1] if len(shape) == 2 else shape)
  return net, state


@pytest.mark.parametrize(
  'change, message',
  [
    (
      {'input_blocks.1.0.in_layers.2.weight': None},
      'in_layers.2.weight is missing; it is our down_8_block_0/conv1/kernel',
    ),
    ({'input_blocks.0.0.weight': None}, 'missing; it is our conv_in/kernel'),
    (
      {'middle_block.1.qkv.weight': np.zeros((51, 16, 1))},
      r'\(16, 51\) in our layout; our mid_attention/qkv/kernel is \(16, 48\)',
    ),
    (
      {'label_emb.weight': np.zeros((10, 32))},
      'no place for 1 parameters of the file, first label_emb.weight',
    ),
    (
      {'input_blocks.2.0.op.weight': np.zeros((8, 8, 1, 1))},
      r'\(8, 8\) in our layout; our down_8_to_4/kernel is \(3, 3, 8, 8\)',
    ),
  ],
)
def test_weights_of_another_network_are_refused_by_name(change, message):
  net, state = small()
  unet.adm_to_cdm(state, net, image_size=(8, 8))  # fits before the change
  state = {k: v for k, v in (state | change).items() if v is not None}
  with pytest.raises(ValueError, match=message):
    unet.adm_to_cdm(state, net, image_size=(8, 8))


def test_what_the_file_cannot_hold_and_how_it_is_ordered_is_said():
  net, state = small()
  with pytest.raises(ValueError, match='no counterpart'):
    net = net.clone(lowres_level=True)
    state['input_blocks.0.0.weight'] = np.zeros((8, 6, 3, 3))
    unet.adm_to_cdm(state, net, image_size=(8, 8))
  with pytest.raises(ValueError, match="'old'; known are legacy, new"):
    unet.adm_to_cdm(state, net, image_size=(8, 8), attention_order='old')
