"""Outside truth beside the checkout: stored oracles and real images.

The folder `../shared` is optional; a test that needs it is skipped without it.
"""

import json
import pathlib
import zlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3] / 'shared'


def oracle(name):
  """-> (description dict, arrays) of `../shared/oracles/NAME`, or skips."""
  path = ROOT / 'oracles' / f'{name}.json'
  if not path.exists():
    pytest.skip(f'{path} is not here')
  arrays = path.with_suffix('.npz')
  return json.loads(path.read_text()), np.load(arrays)


def data(name):
  """-> path of `../shared/data/NAME`, or skips."""
  path = ROOT / 'data' / name
  if not path.exists():
    pytest.skip(f'{path} is not here')
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
