"""The networks of the oracle `edm2_unet`, with its weights, as ours."""

import re

import numpy as np
from support.oracles import rule_weights

from cdm.models.edm2_unet import Edm2Block, Edm2UNet

# Ours for its name of a field, where they differ.
_FIELDS = {
  'model_channels': 'features',
  'channel_mult': 'multipliers',
  'attn_resolutions': 'attention_resolutions',
  'channels_per_head': 'head_features',
  'img_channels': 'out_channels',
  'label_dim': 'num_classes',
  'channel_mult_noise': 'noise_multiplier',
  'channel_mult_emb': 'embedding_multiplier',
  'res_balance': 'residual_balance',
  'attn_balance': 'attention_balance',
  'clip_act': 'clip',
}
_OTHERS = ('img_resolution', 'sigma_data', 'logvar_channels')
_PARTS = {
  'conv_res0': 'conv1',
  'conv_res1': 'conv2',
  'conv_skip': 'skip',
  'emb_linear': 'embedding',
  'attn_qkv': 'qkv',
  'attn_proj': 'projection',
}
_TOP = {
  'unet.out_gain': 'gain',
  'unet.emb_noise.weight': 'noise/kernel',
  'unet.emb_label.weight': 'label/kernel',
  'unet.out_conv.weight': 'conv_out/kernel',
  'logvar_linear.weight': 'loss_uncertainty/kernel',
}


def network(keywords):
  """-> `Edm2UNet` of the keywords of a model of the oracle."""
  given = {
    _FIELDS.get(name, name): value
    for name, value in keywords.items()
    if name not in _OTHERS
  }
  given['num_classes'] = given['num_classes'] or None
  given['null_class'] = given['num_classes'] is not None
  return Edm2UNet(**given)


def block_name(theirs):
  """-> our name of an entry such as 'enc/16x16_block0'."""
  found = re.fullmatch(r'(enc|dec)/(\d+)x\d+_([a-z]+)(\d*)', theirs)
  assert found is not None, theirs
  way, size, part, number = found.groups()
  size = int(size)
  if part == 'conv':
    return 'conv_in'
  if part == 'down':
    return f'down_{2 * size}_to_{size}'
  if part == 'up':
    return f'up_{size // 2}_to_{size}'
  if part == 'in':
    return f'mid_block_{number}'
  return f'{"down" if way == "enc" else "up"}_{size}_block_{number}'


def parameter_name(theirs):
  """-> our name of a parameter such as 'unet.enc.8x8_block0.conv_res0.weight'.

  None for the constants of Fourier features, which are no parameters.
  """
  if 'fourier' in theirs:
    return None
  if theirs in _TOP:
    return _TOP[theirs]
  _, way, block, *rest = theirs.split('.')
  block = block_name(f'{way}/{block}')
  if block == 'conv_in':
    return 'conv_in/kernel'
  if rest == ['emb_gain']:
    return f'{block}/gain'
  return f'{block}/{_PARTS[rest[0]]}/kernel'


def array(theirs, value, head_features):
  """-> a weight of theirs in our layout, [..., I, O]."""
  value = np.asarray(value)
  if theirs == 'logvar_linear.weight':
    return value[0]
  if value.ndim == 4 and value.shape[-1] == 1:
    value = value[:, :, 0, 0]
  if 'attn_qkv' in theirs:  # [heads, d, 3] to [3, heads, d]
    count = value.shape[1]
    parts = value.reshape(-1, head_features, 3, count)
    value = parts.transpose(2, 0, 1, 3).reshape(-1, count)
  if value.ndim == 4:
    return value.transpose(2, 3, 1, 0)
  return value.T


def parameters(weights, head_features):
  """-> (parameters, {'emb': constants, 'logvar': constants}) of a model.

  Args:
    weights: `weights.MODEL` of the oracle.
    head_features: of the model.
  """
  params, constants = {}, {}
  for theirs, value in rule_weights(weights).items():
    name = parameter_name(theirs)
    if name is None:
      kind = 'emb' if 'emb_fourier' in theirs else 'logvar'
      constants.setdefault(kind, []).append(value)
      continue
    *modules, last = name.split('/')
    node = params
    for module in modules:
      node = node.setdefault(module, {})
    node[last] = array(theirs, value, head_features)
  return params, constants


def at(params, theirs):
  """-> the leaf of our parameters for a name of theirs."""
  for key in parameter_name(theirs).split('/'):
    params = params[key]
  return params


def with_outputs(net, params, *inputs, **conditions):
  """-> (output, {name of a block: its output})."""
  out, found = net.apply(
    {'params': params},
    *inputs,
    train=False,
    mutable=['intermediates'],
    capture_intermediates=lambda module, method: (
      isinstance(module, Edm2Block) or module.name == 'conv_in'
    ),
    **conditions,
  )
  captured = found['intermediates']
  return out, {k: v['__call__'][0] for k, v in captured.items()}
