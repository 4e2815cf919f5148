"""Reference numbers of public programs, and real images beside the checkout.

The numbers lie in `tests/oracles`; its README says where they come from. The
images lie in `../shared/data`, which is optional: a test that needs them is
skipped without them.
"""

import json
import pathlib
import zlib

import numpy as np
import pytest

from cdm.models.unet import UNet

ORACLES = pathlib.Path(__file__).resolve().parents[1] / 'oracles'
DATA = ORACLES.parents[2] / 'shared' / 'data'


def oracle(name):
  """Returns (description dict, arrays) of `tests/oracles/NAME`."""
  description = (ORACLES / f'{name}.json').read_text(encoding='utf-8')
  return json.loads(description), np.load(ORACLES / f'{name}.npz')


def data(name):
  """Returns the path of `../shared/data/NAME`, or skips the test."""
  path = DATA / name
  if not path.exists():
    pytest.skip(f'../shared/data/{name} is not here')
  return path


def assert_matches(mine, stored, tol, name=''):
  """|mine - stored| <= atol + rtol |stored|, with tol = {'rtol', 'atol'}."""
  np.testing.assert_allclose(
    np.asarray(mine), stored, rtol=tol['rtol'], atol=tol['atol'], err_msg=name
  )


def rule_weights(weights):
  """Weights made from parameter names by the rule of the oracles' README.

  Args:
    weights: one `weights.<model>` object with `salt` and `entries`.

  Returns:
    {name: float32 array}, shapes and names as PyTorch has them.
  """
  made = {}
  for name, shape, kind, scale in weights['entries']:
    seed = zlib.crc32((weights['salt'] + name).encode('ascii'))
    n = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    value = {
      'normal': lambda n=n, s=scale: s * n,
      'one_plus_normal': lambda n=n, s=scale: 1 + s * n,
      'one_plus_abs': lambda n=n, s=scale: 1 + s * np.abs(n),
      'abs_normal': lambda n=n, s=scale: s * np.abs(n),
      'zero': lambda n=n: np.zeros(n.shape),
    }[kind]()
    made[name] = np.asarray(value, np.float32)
  return made


def adm_network(fields):
  """-> our network of a model of the oracle `adm_unet`.

  Args:
    fields: arguments of guided-diffusion's UNetModel, by its names.
  """
  return UNet(
    features=fields['model_channels'],
    multipliers=fields['channel_mult'],
    num_blocks=fields['num_res_blocks'],
    attention_resolutions=[
      fields['image_size'] // i for i in fields['attention_resolutions']
    ],
    num_heads=fields.get('num_heads', 1),
    head_features=fields.get('num_head_channels'),
    resample='biggan' if fields['resblock_updown'] else 'conv',
    embedding='film' if fields['use_scale_shift_norm'] else 'additive',
    num_classes=fields['num_classes'],
    learned_variance=fields['out_channels'] == 6,
  )
