"""One update: its arithmetic, its randomness, and the mesh under it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run

from cdm.distributed import device_mesh
from cdm.ops import keys as arrays
from cdm.training import state, step


def fresh(mesh, rules=()):
  return tiny_run.init_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(0),
    mesh=mesh,
    rules=rules,
  )


def place(index, mesh):
  return device_mesh.shard_batch(tiny_run.batch_at(index), mesh)


def run(step_fn, mesh, steps=3, rules=()):
  now, rows = fresh(mesh, rules), []
  for i in range(steps):
    now, scalars = step_fn(now, place(i, mesh))
    rows.append(jax.device_get(scalars))
  return now, rows


def test_a_step_of_linear_regression_is_the_one_computed_by_hand():
  """loss = mean (x w - y)^2 over a batch that eight devices share."""
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(16, 3)), rng.normal(size=16)
  y[5] += 40  # one device alone would clip; the mean must be clipped instead
  w = np.array([0.5, -1.0, 2.0])

  def loss(params, batch, *, key, train):
    assert train
    return (batch['x'] @ params['w'] - batch['y']) ** 2, {}

  mesh, tx = tiny_run.mesh(8), tiny_run.adam(warmup_steps=0, clip_norm=1.0)
  start = tiny_run.init_state(
    lambda key: {'w': jnp.asarray(w, jnp.float32)},
    tx,
    key=jax.random.key(0),
    mesh=mesh,
  )
  batch = {'x': x.astype(np.float32), 'y': y.astype(np.float32)}
  update = step.make_step(loss, tx, mesh=mesh, ema_decay=0.9)
  after, scalars = update(start, device_mesh.shard_batch(batch, mesh))

  residual = x @ w - y
  g = 2 * (residual[:, None] * x).mean(axis=0)
  clipped = g * min(1.0, 1.0 / np.linalg.norm(g))
  w_1 = w - 1e-2 * clipped / (np.abs(clipped) + 1e-8)  # Adam's first step
  assert np.linalg.norm(g) > 1.0
  np.testing.assert_allclose(scalars['loss'], (residual**2).mean(), rtol=1e-5)
  np.testing.assert_allclose(scalars['grad_norm'], np.linalg.norm(g), rtol=1e-5)
  np.testing.assert_allclose(after.params['w'], w_1, rtol=1e-6)
  np.testing.assert_allclose(
    after.opt_state[1].mu['w'], 0.1 * clipped, rtol=1e-5
  )
  np.testing.assert_allclose(
    scalars['param_norm'], np.linalg.norm(w_1), rtol=1e-6
  )
  np.testing.assert_allclose(scalars['learning_rate'], 1e-2, rtol=1e-6)
  # Warm-up: the first update of the average keeps a tenth of the start.
  np.testing.assert_allclose(
    after.ema_params['w'], 0.1 * w + 0.9 * w_1, rtol=1e-6
  )
  assert int(after.step) == 1


def test_every_step_draws_fresh_noise():
  mesh, update = tiny_run.mesh(8), tiny_run.step()
  now, noise = fresh(mesh), []
  for _ in range(4):
    now, scalars = update(now, place(0, mesh))  # the same batch every time
    noise.append(float(scalars['noise']))
  assert len(set(noise)) == 4


def test_the_same_state_and_batch_give_the_same_next_state():
  mesh, update = tiny_run.mesh(8), tiny_run.step()
  first, rows = run(update, mesh)
  second, again = run(update, mesh)
  tiny_run.assert_same(first, second)
  assert [r['loss'] for r in rows] == [r['loss'] for r in again]


@pytest.mark.parametrize(
  ('shape', 'rules'), [((1, 1, 1), ()), ((2, 2, 2), tiny_run.RULES)]
)
def test_the_mesh_changes_the_speed_not_the_numbers(shape, rules):
  eight, rows = run(tiny_run.step(), tiny_run.mesh(8))
  mesh = tiny_run.mesh(*shape)
  placed = state.shardings_of(fresh(mesh, rules))
  update = step.make_step(
    tiny_run.loss, tiny_run.adam(), mesh=mesh, ema_decay=0.99, shardings=placed
  )
  other, others = run(update, mesh, rules=rules)
  tiny_run.assert_same(eight, other, rtol=1e-4, atol=1e-6)
  assert jax.tree.map(lambda x: x.sharding, other) == placed
  for mine, theirs in zip(rows, others, strict=True):
    np.testing.assert_allclose(mine['loss'], theirs['loss'], rtol=1e-5)
    np.testing.assert_allclose(mine['noise'], theirs['noise'], rtol=1e-3)


def test_accumulation_gives_what_the_whole_batch_gives():
  mesh = tiny_run.mesh(4)
  whole, rows = run(tiny_run.step(tiny_run.noiseless, (4, 1, 1)), mesh)
  parts, others = run(tiny_run.step(tiny_run.noiseless, (4, 1, 1), 4), mesh)
  tiny_run.assert_same(whole, parts, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    [r['loss'] for r in rows], [r['loss'] for r in others], rtol=1e-6
  )
  np.testing.assert_allclose(
    [r['grad_norm'] for r in rows], [r['grad_norm'] for r in others], rtol=1e-5
  )


@pytest.mark.parametrize('shape', [(1, 1, 1), (2, 1, 1), (2, 2, 2)])
def test_each_example_draws_its_own_noise_wherever_it_is(shape):
  """By fold_in(key, n), in any microbatch of any device; each comes once."""
  mesh = tiny_run.mesh(*shape)

  def loss(params, batch, *, key, train):
    keys = arrays.example_keys(key, batch['example'])
    noise = arrays.normals(keys, ())
    seen = (2.0 ** batch['label']).astype(jnp.float32)
    return params['w'] * noise, {'noise': noise * seen, 'seen': seen}

  tx = tiny_run.adam()
  now = tiny_run.init_state(
    lambda key: {'w': jnp.float32(1.0)}, tx, key=jax.random.key(5), mesh=mesh
  )
  key = jax.random.split(jax.random.fold_in(now.key, 0))[1]
  drawn = arrays.normals(arrays.example_keys(key, jnp.arange(16)), ())
  batch = {'label': np.arange(16, dtype=np.int32)}
  update = step.make_step(loss, tx, mesh=mesh, ema_decay=0.9, accumulation=4)
  _, scalars = update(now, device_mesh.shard_batch(batch, mesh))
  np.testing.assert_allclose(scalars['loss'], drawn.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    scalars['noise'], (drawn * 2.0 ** np.arange(16)).mean(), rtol=1e-4
  )
  np.testing.assert_allclose(scalars['grad_norm'], abs(drawn.mean()), rtol=1e-5)
  assert float(scalars['seen']) * 16 == 2**16 - 1


def test_what_is_drawn_for_the_batch_is_dealt_out_to_its_parts():
  """Once per step, over all 16; every microbatch gets its own four of them."""
  mesh, tx = tiny_run.mesh(2), tiny_run.adam()

  def loss(params, batch, *, key, train):
    seen = 2.0 ** batch['number']
    return params['w'] * jnp.ones_like(seen), {'seen': seen}

  def draw(key, n):
    return {'number': jax.random.permutation(key, n).astype(jnp.float32)}

  now = tiny_run.init_state(
    lambda key: {'w': jnp.float32(1.0)}, tx, key=jax.random.key(0), mesh=mesh
  )
  update = step.make_step(
    loss, tx, mesh=mesh, ema_decay=0.9, accumulation=4, draw=draw
  )
  batch = device_mesh.shard_batch({'label': np.arange(16)}, mesh)
  _, scalars = update(now, batch)
  assert float(scalars['seen']) * 16 == 2**16 - 1


def test_what_is_drawn_for_the_batch_has_a_key_of_its_own():
  """split(fold_in(key, step))[0]: the loss has the other, other steps others.

  So the mean of what was drawn is known.
  """
  mesh, tx = tiny_run.mesh(2), tiny_run.adam()

  def loss(params, batch, *, key, train):
    drawn = batch['drawn']
    return params['w'] * jnp.ones_like(drawn), {'drawn': drawn}

  def draw(key, n):
    return {'drawn': jax.random.normal(key, (n,))}

  now = tiny_run.init_state(
    lambda key: {'w': jnp.float32(1.0)}, tx, key=jax.random.key(5), mesh=mesh
  )
  keys = [jax.random.split(jax.random.fold_in(now.key, i))[0] for i in range(2)]
  expected = [float(jax.random.normal(key, (16,)).mean()) for key in keys]
  update = step.make_step(
    loss, tx, mesh=mesh, ema_decay=0.9, accumulation=4, draw=draw
  )
  found = []
  for _ in range(2):
    batch = device_mesh.shard_batch({'label': np.arange(16)}, mesh)
    now, scalars = update(now, batch)
    found.append(float(scalars['drawn']))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_loss_is_reported_by_noise_level():
  """Bins sum what np.histogram finds; empty ones count nothing."""
  logsnr = np.array([-9, -7, -3, 0, 1, 1.5, 30, 40], np.float32)
  losses = np.arange(1.0, 9.0, dtype=np.float32)

  def loss(params, batch, *, key, train):
    return params['w'] * batch['loss'], {'logsnr': batch['logsnr']}

  mesh, tx = tiny_run.mesh(8), tiny_run.adam()
  now = tiny_run.init_state(
    lambda key: {'w': jnp.float32(1.0)}, tx, key=jax.random.key(0), mesh=mesh
  )
  update = step.make_step(loss, tx, mesh=mesh, ema_decay=0.9)
  batch = device_mesh.shard_batch({'loss': losses, 'logsnr': logsnr}, mesh)
  _, scalars = update(now, batch)
  edges = [-np.inf, -6, -2, 2, 6, np.inf]
  totals, _ = np.histogram(logsnr, edges, weights=losses)
  counts, _ = np.histogram(logsnr, edges)
  found = [scalars[f'loss_at_logsnr/{name}'] for name in step.LEVEL_NAMES]
  np.testing.assert_allclose([f.total for f in found], totals, rtol=1e-6)
  np.testing.assert_allclose([f.count for f in found], counts)
  assert 'logsnr' not in scalars


def regression(params, batch, *, key, train):
  return (batch['x'] @ params['w'] - batch['y']) ** 2, {}


def regress(batches, **options):
  """-> (states after each of some steps, scalars) of least squares."""
  mesh = tiny_run.mesh(1)
  tx = tiny_run.adam(warmup_steps=0, **options)
  now = tiny_run.init_state(
    lambda key: {'w': jnp.ones(3)}, tx, key=jax.random.key(0), mesh=mesh
  )
  update = step.make_step(regression, tx, mesh=mesh, ema_decay=0.9)
  states, rows = [jax.device_get(now.replace(key=None))], []
  for batch in batches:
    now, scalars = update(now, device_mesh.shard_batch(batch, mesh))
    states.append(jax.device_get(now.replace(key=None)))
    rows.append(jax.device_get(scalars))
  return states, rows


def regression_batches(*spoilt, count=4):
  rng = np.random.default_rng(3)
  batches = []
  for index in range(count):
    y = rng.normal(size=8).astype(np.float32)
    if index in spoilt:
      y[0] = np.nan
    x = rng.normal(size=(8, 3)).astype(np.float32)
    batches.append({'x': x, 'y': y})
  return batches


def test_a_step_that_is_not_finite_is_counted_and_changes_nothing_else():
  """Of the moments, too; the schedule of the rate goes on with the steps."""
  states, rows = regress(
    regression_batches(1), skip_nonfinite=2, decay='step', decay_at=(2,)
  )
  assert [float(row['skipped_steps']) for row in rows] == [0, 1, 0, 0]
  tiny_run.assert_same(states[1].params, states[2].params)
  tiny_run.assert_same(states[1].ema_params, states[2].ema_params)
  clipping, adam, schedule = states[2].opt_state
  tiny_run.assert_same(states[1].opt_state[1], adam)
  assert int(states[2].step) == int(schedule.count) == 2
  rates = [float(row['learning_rate']) for row in rows]
  np.testing.assert_allclose(rates, [1e-2, 1e-2, 1e-3, 1e-3], rtol=1e-6)
  moved = np.abs(states[3].params['w'] - states[2].params['w'])
  assert 0 < moved.max() < 5e-3  # by the rate of step 3, not of step 2
  assert np.isfinite(states[4].params['w']).all()
  assert all(np.isfinite(row['param_norm']) for row in rows)


def test_without_the_option_a_step_that_is_not_finite_spoils_the_state():
  states, rows = regress(regression_batches(1, count=2))
  assert 'skipped_steps' not in rows[1]
  assert np.isnan(states[2].params['w']).all()


def test_steps_say_whether_their_gradient_was_clipped():
  _, rows = regress(regression_batches(), clip_norm=3.0)
  norms = [float(row['grad_norm']) for row in rows]
  clipped = [float(row['clip_fraction']) for row in rows]
  assert clipped == [float(norm > 3.0) for norm in norms]
  assert set(clipped) == {0.0, 1.0}
  _, rows = regress(regression_batches(count=1), clip_norm=None)
  assert 'clip_fraction' not in rows[0]


def test_the_state_is_donated_and_nothing_is_held_twice():
  mesh, update = tiny_run.mesh(8), tiny_run.step()
  before = fresh(mesh)
  # The average starts as a copy with memory of its own: donating it together
  # with the parameters would fail otherwise.
  assert before.params['up']['kernel'] is not before.ema_params['up']['kernel']
  update(before, place(0, mesh))
  assert before.params['up']['kernel'].is_deleted()
  assert before.ema_params['up']['kernel'].is_deleted()


def test_a_batch_that_cannot_be_accumulated_is_refused():
  mesh = tiny_run.mesh(8)
  update = tiny_run.step(tiny_run.noiseless, (8, 1, 1), 3)
  with pytest.raises(ValueError, match='8 devices times 3 .* e.g. 24'):
    update(fresh(mesh), place(0, mesh))


def test_a_loss_that_averages_by_itself_is_refused():
  mesh = tiny_run.mesh(8)

  def loss(params, batch, *, key, train):
    losses, scalars = tiny_run.noiseless(params, batch, key=key, train=train)
    return losses.mean(), scalars

  update = step.make_step(loss, tiny_run.adam(), mesh=mesh, ema_decay=0.9)
  with pytest.raises(ValueError, match=r'one number per example, \[16\]'):
    update(fresh(mesh), place(0, mesh))
