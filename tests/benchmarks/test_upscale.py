"""The peers of enlarging have the published shapes, and the table is right."""

import pytest

from benchmarks import upscale


def test_the_peers_have_the_published_numbers_of_parameters():
  torch = pytest.importorskip('torch')
  from benchmarks import upscale_networks

  for name, network in upscale_networks.NETWORKS.items():
    net = network()
    count = sum(p.numel() for p in net.parameters())
    assert count == upscale_networks.PARAMETERS[name]
    with torch.inference_mode():
      assert net(torch.zeros(1, 3, 5, 4)).shape == (1, 3, 20, 16)


def test_ratios_are_to_the_first_row():
  rows = [
    {'program': 'ours', 'seconds': [2.0, 1.0, 9.0], 'parameters': 1000},
    {'program': 'theirs', 'seconds': [5.0], 'peak_bytes': 2e9},
  ]
  assert upscale.table(rows).splitlines()[2:] == [
    '| ours | 1,000 | 2.00 | 1.00 to 9.00 |  | 1.00 |',
    '| theirs |  | 5.00 | 5.00 to 5.00 | 2,000 | 2.50 |',
  ]
