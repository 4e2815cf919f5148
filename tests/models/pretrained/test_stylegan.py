"""StyleGAN's generator against the public PyTorch code, via its weights."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle, rule_weights
from support.published_weights import stylegan_state, write_pytorch

from cdm.models.pretrained import stylegan
from cdm.models.stylegan import Generator

BLUR = 'intermediate.kernel'  # stored in every block; no weight of ours


def synthesis(name, mapping_layers=0):
  """-> (the oracle's weights by their names, our network)."""
  tables, _ = oracle('pulse')
  fields = tables['settings']['synth'][name]['kw']
  weights = tables['weights'][name]
  entries = [e for e in weights['entries'] if not e[0].endswith(BLUR)]
  state = rule_weights({**weights, 'entries': entries})
  for side in (8, 16, 32):
    state[f'blocks.{side}x{side}.conv0_up.{BLUR}'] = np.ones((1, 1, 3, 3))
  net = Generator(
    image_size=fields['resolution'],
    latent_size=fields['dlatent_size'],
    feature_base=fields['fmap_base'],
    most_features=fields['fmap_max'],
    mapping_layers=mapping_layers,
  )
  return state, net


@pytest.mark.parametrize('name', ['synth32', 'synth128'])
def test_a_synthesis_is_that_of_the_published_code(name, tmp_path):
  """Also where enlarging is a fused transposed convolution, at 128 pixels."""
  tables, arrays = oracle('pulse')
  state, net = synthesis(name)
  path = tmp_path / 'synthesis.pt'
  write_pytorch(path, state, zipped=False)
  params = stylegan.read_generator(net, synthesis=path)
  noise = [arrays[f'{name}/noise{i}'][:, 0] for i in range(net.num_layers)]
  image, seen = jax.jit(
    lambda *given: net.apply(
      {'params': params}, *given, method='image', capture_intermediates=True
    )
  )(arrays[f'{name}/dlatents'], noise)
  key = f'{name}/rgb'
  assert_matches(
    image.transpose(0, 3, 1, 2), arrays[key], tables['keys'][key]['tol']
  )
  for side in net.sides:
    block = seen['intermediates']['synthesis'][f'block_{side}']
    (x,) = block['__call__']
    key = f'{name}/block_{side}x{side}_mean_std'
    both = jnp.stack([x.mean(axis=(1, 2)), x.std(axis=(1, 2))])  # [2, B, C]
    assert_matches(both, arrays[key], tables['keys'][key]['tol'], key)


def test_a_mapping_is_that_of_the_published_code(tmp_path):
  tables, arrays = oracle('pulse')
  net = Generator(image_size=8, feature_base=8)
  path, other = tmp_path / 'mapping.pt', tmp_path / 'synthesis.pt'
  write_pytorch(path, rule_weights(tables['weights']['mapping']), zipped=True)
  write_pytorch(other, stylegan_state(net, 'synthesis'), zipped=True)
  params = stylegan.read_generator(net, synthesis=other, mapping=path)
  w = net.apply({'params': params}, arrays['mapping/z'], method='w_of_z')
  assert_matches(w, arrays['mapping/w'], tables['keys']['mapping/w']['tol'])


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda s: s.pop('torgb.bias'), 'lacks torgb.bias, so'),
    (lambda s: s.update(alpha=np.ones(1)), 'also holds alpha, so'),
    (
      lambda s: s.update({'torgb.weight': np.ones((4, 1, 1, 1))}),
      r'torgb.weight of shape \[4, 1, 1, 1\]',
    ),
    (lambda s: s.clear(), r'lacks blocks.* and 16 more'),
  ],
)
def test_a_file_of_another_network_is_refused_by_name(
  change, message, tmp_path
):
  net = Generator(image_size=8, latent_size=4, feature_base=4, mapping_layers=0)
  state, path = stylegan_state(net, 'synthesis'), tmp_path / 'a.pt'
  change(state)
  write_pytorch(path, state, zipped=True)
  with pytest.raises(ValueError, match=f'{re.escape(str(path))}.*{message}'):
    stylegan.read_generator(net, synthesis=path)


def test_a_mapping_network_needs_its_file(tmp_path):
  net = Generator(image_size=8, latent_size=4, feature_base=4)
  path = tmp_path / 'synthesis.pt'
  write_pytorch(path, stylegan_state(net, 'synthesis'), zipped=True)
  with pytest.raises(ValueError, match='mapping network, and no file'):
    stylegan.read_generator(net, synthesis=path)


def test_a_gaussian_fit_is_read_and_its_length_checked(tmp_path):
  fit = {'mean': np.arange(4.0), 'std': np.ones(4)}
  write_pytorch(tmp_path / 'fit.pt', fit, zipped=True)
  read = stylegan.read_fit(tmp_path / 'fit.pt', 4)
  np.testing.assert_array_equal(read['mean'], fit['mean'])
  with pytest.raises(ValueError, match='has mean of shape'):
    stylegan.read_fit(tmp_path / 'fit.pt', 8)
