"""Groups of parameters with a learning rate of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny_run

from cdm.training import group_rates, optimizer

PARAMS = tiny_run.init(jax.random.key(0))
RATES = (('^down/bias$', 0), ('^down', 0.1))


def after(rates, *, steps=3, **options):
  """-> the parameters after some updates with the same large gradients."""
  tx = optimizer.make_optimizer(
    optimizer.AdamOptions(learning_rate=1e-2, group_rates=rates, **options)
  )
  params, state = PARAMS, tx.init(PARAMS)
  for _ in range(steps):
    grads = jax.tree.map(lambda p: 5 * jnp.ones_like(p) + p, PARAMS)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def test_a_group_moves_by_its_factor_of_what_it_would_move():
  """The first group that matches decides; 0 freezes, exactly."""
  plain, state = after(())
  own, grouped = after(RATES)
  moved = jax.tree.map(lambda a, b: np.asarray(a - b), plain, PARAMS)
  found = jax.tree.map(lambda a, b: np.asarray(a - b), own, PARAMS)
  np.testing.assert_allclose(
    found['down']['kernel'], 0.1 * moved['down']['kernel'], rtol=1e-3
  )
  np.testing.assert_array_equal(own['down']['bias'], PARAMS['down']['bias'])
  tiny_run.assert_same(own['up'], plain['up'])
  # A run may take groups on, because its state has the same tree.
  assert jax.tree.structure(state) == jax.tree.structure(grouped)


def test_the_weight_decay_of_a_group_has_its_factor_too():
  given = dict(kind='adamw', weight_decay=1.0, eps=1e9)  # all but the decay
  plain, _ = after((), steps=1, **given)
  own, _ = after((('down/kernel', 0.5),), steps=1, **given)
  start = np.asarray(PARAMS['down']['kernel'])
  np.testing.assert_allclose(
    own['down']['kernel'] - start,
    0.5 * (np.asarray(plain['down']['kernel']) - start),
    rtol=1e-3,
    atol=1e-7,
  )


def test_a_frozen_gradient_does_not_count_where_gradients_are_clipped():
  tx = optimizer.make_sgd(
    optimizer.SgdOptions(
      learning_rate=1.0, clip_norm=2.0, group_rates=(('^a$', 0),)
    )
  )
  grads = {'a': jnp.full(4, 100.0), 'b': jnp.array([0.6, 0.8])}
  assert not bool(tx.is_clipped(grads))
  updates, _ = tx.update(grads, tx.init(grads), grads)
  np.testing.assert_array_equal(updates['a'], 0)
  np.testing.assert_allclose(updates['b'], [-1.14, -1.52], rtol=1e-6)
  assert bool(tx.is_clipped({'a': grads['a'], 'b': jnp.array([3.0, 0.0])}))


def test_a_frozen_parameter_stays_though_its_gradient_is_not_finite():
  grads = jax.tree.map(lambda p: p * jnp.nan, PARAMS)
  for tree in (
    group_rates.without_frozen(grads, (('', 0.0),)),
    group_rates.scaled(grads, (('', 0.0),)),
  ):
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(tree))


def test_a_run_says_how_many_parameters_each_group_takes():
  assert group_rates.summary(group_rates.read(RATES), PARAMS) == [
    "'^down/bias$': frozen, 8 parameters in 1 arrays",
    "'^down': learning rate times 0.1, 384 parameters in 1 arrays",
  ]


@pytest.mark.parametrize(
  ('rates', 'message'),
  [
    ((('nothing', 0.1),), "'nothing', which matches no parameter; names are"),
    ((('down', 1.0), ('down/bias', 2.0)), 'an earlier group takes'),
    ((('', 0.0),), 'freezes every parameter'),
    ((('(', 1.0),), 'not a regular expression'),
    ((('down', -1.0),), 'factor of at least 0'),
    ((('down', float('nan')),), 'factor of at least 0'),
    (('down', 0.1), "has 'down'; a group is"),
  ],
)
def test_groups_that_no_run_can_mean_are_refused(rates, message):
  with pytest.raises(ValueError, match=message):
    group_rates.summary(group_rates.read(rates), PARAMS)


def test_what_is_frozen_is_not_projected_either():
  params = {
    'a': {'kernel': jnp.full(3, 2.0)},
    'b': {'kernel': jnp.full(3, 2.0)},
  }
  rates = group_rates.read((('^a/', 0.0), ('^b/', 0.5)))

  def halve(tree):
    return jax.tree.map(lambda x: x / 2, tree)

  found = group_rates.but_frozen(halve, rates)(params)
  np.testing.assert_array_equal(found['a']['kernel'], params['a']['kernel'])
  np.testing.assert_array_equal(found['b']['kernel'], 1.0)
  assert group_rates.but_frozen(halve, ()) is halve
  assert group_rates.but_frozen(None, rates) is None
