"""Preconditioning, log-normal levels and a learned weight, in a whole program.

On one device and on eight, with parameters split and in microbatches.
"""

import functools

import jax
import numpy as np
import pytest
from whole.test_mesh import tiny

from cdm.config import datasets
from cdm.distributed import device_mesh, partitioning
from cdm.training import state as states

OBJECTIVE = {
  'model__condition_on': 'logsnr',
  'method__prediction': 'edm',
  'method__levels': 'log_normal',
  'method__weighting': 'uncertainty',
}


@functools.cache
def ran(data, fsdp, tensor, accumulation=1, steps=2, **more):
  """-> (program, last state, scalars of every step)."""
  given = {'train__accumulation': accumulation} | OBJECTIVE | more
  c, made = tiny(data, fsdp, tensor, **given)
  rows = device_mesh.local_rows(made.mesh, c.train.batch_size)
  batches = datasets.training_batches(
    c, datasets.open_source(c.train_data), seed=1, rows=rows
  )
  state = states.make_state(
    made.built.method.init, made.tx, key=made.key, abstract=made.state
  )
  seen = []
  for _ in range(steps):
    batch = device_mesh.shard_batch(next(batches), made.mesh)
    state, scalars = made.step(state, batch)
    seen.append({k: scalars[k] for k in ('loss', 'weighted_loss')})
  batches.close()
  return made, state, jax.device_get(seen)


@pytest.fixture(scope='module')
def trained():
  return ran(
    *(1, 1, 1),
    steps=50,
    model__features=16,
    model__patch_size=1,
    train__batch_size=16,
    optimizer__learning_rate=0.005,
  )


def test_the_loss_falls(trained):
  _, _, seen = trained
  weighted = [float(one['weighted_loss']) for one in seen]
  assert np.isfinite(weighted).all()
  assert np.mean(weighted[-10:]) < 0.75 * np.mean(weighted[:10])
  # ... and what is minimised falls further, below 0 in the end.
  assert seen[0]['loss'] == pytest.approx(seen[0]['weighted_loss'])
  assert all(one['loss'] < one['weighted_loss'] for one in seen[-10:])


def test_a_learned_weight_is_trained_and_averaged(trained):
  _, state, _ = trained
  for tree in (state.params, state.ema_params):
    assert np.abs(tree['loss_uncertainty']['kernel']).max() > 1e-3


@pytest.mark.parametrize('layout', [(2, 2, 2, 2)], ids=str)
def test_a_layout_gives_the_numbers_of_one_device(layout):
  _, expected, wanted = ran(1, 1, 1)
  made, mine, found = ran(*layout)
  for name in ('loss', 'weighted_loss'):
    np.testing.assert_allclose(
      [one[name] for one in found], [one[name] for one in wanted], rtol=1e-5
    )
  a, b = (s.params['loss_uncertainty']['kernel'] for s in (mine, expected))
  np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())
  places = partitioning.state_sharding(made.state, made.mesh, made.rules)
  assert places.params['loss_uncertainty']['kernel'].is_fully_replicated
  assert any(
    not place.is_fully_replicated for place in jax.tree.leaves(places.params)
  )
