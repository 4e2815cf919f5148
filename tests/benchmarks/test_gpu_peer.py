"""The peer's network and recipe are those of the public PyTorch SR3."""

import math

import numpy as np
import pytest
from support.oracles import assert_matches, oracle, rule_weights

torch = pytest.importorskip('torch', reason='PyTorch is not installed')

from benchmarks.gpu import peer_network, peer_training  # noqa: E402

NAMES = ('mid_attn', 'groups32', 'unconditional')


def of_oracle(name):
  """-> the network of one of the oracle's models, with its weights."""
  tables, arrays = oracle('sr3_unet')
  settings = tables['settings']['models'][name]
  fields = settings['kw']
  network = peer_network.PeerUNet(
    features=fields['inner_channel'],
    multipliers=fields['channel_mults'],
    num_blocks=fields['res_blocks'],
    attention_sizes=fields['attn_res'],
    image_size=fields['image_size'],
    in_channels=fields['in_channel'],
    groups=fields['norm_groups'],
    dropout=fields['dropout'],
  )
  state = rule_weights(tables['weights'][name])
  # Names and shapes must be exactly those of the public program.
  network.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
  return network.eval(), tables, arrays


@pytest.mark.parametrize('name', NAMES)
def test_the_network_gives_the_public_programs_numbers(name):
  network, tables, arrays = of_oracle(name)
  x = torch.from_numpy(arrays[f'{name}/x'])
  level = torch.from_numpy(arrays[f'{name}/noise_level'])
  with torch.no_grad():
    for precision in ('f32', 'f64'):
      key = f'{name}/out_{precision}'
      if precision == 'f64':
        network, x, level = network.double(), x.double(), level.double()
      out = network(x, level.reshape(-1)).numpy()
      assert_matches(out, arrays[key], tables['keys'][key]['tol'], key)
  expected = tables['settings']['measured'][name]['parameters']
  assert sum(p.numel() for p in network.parameters()) == expected


def test_the_network_of_16_to_128_has_the_public_configs_size():
  """By hand: the shapes of inner_channel 64, (1, 2, 4, 8, 8), 2 blocks."""
  with torch.device('meta'):
    network = peer_network.PeerUNet()
  assert network.downs[0].weight.shape == (64, 6, 3, 3)
  assert network.mid[0].res_block.block1.block[3].weight.shape[0] == 512
  attends = [
    layer.res_block.block2.block[3].out_channels
    for layer in [*network.downs, *network.ups]
    if getattr(layer, 'attn', None) is not None
  ]
  assert attends == [512] * 5  # at 16 pixels: two down, three up


def test_the_levels_are_those_of_the_schedule():
  """beta linear, gamma its running product; in float64 by logarithms."""
  levels = peer_training.Levels()
  log = 0.0
  for t in range(2000):
    log += math.log1p(-(1e-6 + t * (1e-2 - 1e-6) / 1999))
    if t in (0, 999, 1999):
      np.testing.assert_allclose(levels.gamma[t], math.exp(log), rtol=1e-9)
      np.testing.assert_allclose(
        levels.sqrt_gamma[t + 1], math.exp(log / 2), rtol=1e-9
      )
  drawn = levels.draw(np.random.default_rng(0), 64)
  assert drawn.max() - drawn.min() < 5e-3  # one step for the whole batch
  assert len(set(drawn)) > 32


def test_with_the_true_noise_the_chain_ends_at_the_image():
  """If the network tells the noise of x_0 exactly, sampling finds x_0."""
  levels = peer_training.Levels(50)
  image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
  x_0 = peer_training.to_tensor(image, 'cpu')

  class Oracle(torch.nn.Module):
    def forward(self, x, level):
      level = level.reshape(-1, 1, 1, 1)
      return (x[:, 3:] - level * x_0) / torch.sqrt(1 - level**2)

  drawn = peer_training.draw(Oracle(), image, levels, 2, 'cpu')
  assert np.abs(drawn.astype(int) - image).max() <= 1


def test_a_perfect_network_has_no_loss():
  x_0 = torch.zeros(2, 3, 8, 8)
  level = torch.tensor([0.6, 0.8])

  def perfect(x, level):  # x_t = sqrt(1 - level^2) eps of a black image
    return x[:, 3:] / torch.sqrt(1 - level.reshape(-1, 1, 1, 1) ** 2)

  assert peer_training.objective(perfect, x_0, x_0, level) < 1e-6
  blind = peer_training.objective(lambda x, _: 0 * x[:, 3:], x_0, x_0, level)
  # E|eps| of a standard normal number is sqrt(2 / pi).
  assert abs(float(blind) - math.sqrt(2 / math.pi)) < 0.1
