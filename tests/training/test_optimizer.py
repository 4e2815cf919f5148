"""The optimizers against Adam and SGD as published, in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdm.training import optimizer, rmsprop


def make_adam(num_steps=None, **options):
  return optimizer.make_optimizer(optimizer.AdamOptions(**options), num_steps)


def make_sgd(num_steps=None, **options):
  return optimizer.make_sgd(optimizer.SgdOptions(**options), num_steps)


def make_rmsprop(num_steps=None, **options):
  return optimizer.make_rmsprop(rmsprop.RmspropOptions(**options), num_steps)


def adam(start, gradients, *, rates, clip, b1=0.9, b2=0.999, eps=1e-8):
  """Kingma and Ba 2015, alg. 1, on one vector; clipping by Pascanu 2013."""
  x, m, v = np.array(start, np.float64), 0.0, 0.0
  for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
    g = np.asarray(g, np.float64)
    g = g * min(1.0, clip / np.linalg.norm(g))
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    x = x - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
  return x


def run(tx, start, gradients):
  params = {'a': jnp.asarray(start[:2]), 'b': jnp.asarray(start[2:])}
  opt_state = tx.init(params)
  for g in gradients:
    grads = {'a': jnp.asarray(g[:2]), 'b': jnp.asarray(g[2:])}
    updates, opt_state = tx.update(grads, opt_state, params)
    params = {k: params[k] + updates[k] for k in params}
  return np.concatenate([params['a'], params['b']])


def test_it_is_adam_with_linear_warm_up_and_global_clipping():
  rng = np.random.default_rng(0)
  # Norms on both sides of the limit: Adam forgives a scale that all share.
  gradients = rng.normal(size=(12, 5)) * np.geomspace(0.05, 20, 12)[:, None]
  gradients = gradients.astype(np.float32)
  start = rng.normal(size=5).astype(np.float32)
  rates = 0.1 * np.minimum(1.0, np.arange(1, 13) / 4)
  tx = make_adam(learning_rate=0.1, warmup_steps=4, clip_norm=1)
  mine = run(tx, start, gradients)
  truth = adam(start, gradients, rates=rates, clip=1.0)
  # float32 knows 1 - 0.999 to 5e-5 only, which is a part of the first rates.
  np.testing.assert_allclose(mine, truth, rtol=0, atol=1e-5)
  np.testing.assert_allclose(tx.learning_rate(jnp.arange(12)), rates, rtol=1e-6)
  unclipped = adam(start, gradients, rates=rates, clip=np.inf)
  assert np.abs(mine - unclipped).max() > 1e-2


def test_the_rate_stays_after_warm_up_unless_it_decays_as_a_cosine():
  fields = dict(learning_rate=2.0, warmup_steps=10, num_steps=110)
  steps = np.array([0, 9, 10, 60, 110, 200])
  constant = make_adam(**fields)
  cosine = make_adam(**fields, decay='cosine')
  np.testing.assert_allclose(
    constant.learning_rate(steps), [0.2, 2, 2, 2, 2, 2], rtol=1e-6
  )
  np.testing.assert_allclose(
    cosine.learning_rate(steps), [0.2, 2, 2, 1, 0, 0], rtol=1e-6, atol=1e-6
  )


def test_without_warm_up_the_first_step_has_the_whole_rate():
  tx = make_adam(learning_rate=3e-4)
  np.testing.assert_allclose(tx.learning_rate(0), 3e-4, rtol=1e-6)


def test_weight_decay_pulls_kernels_and_spares_biases():
  tx = make_adam(learning_rate=0.1, kind='adamw', weight_decay=0.5)
  params = {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}
  zero = {'kernel': jnp.zeros((2, 2)), 'bias': jnp.zeros(2)}
  updates, _ = tx.update(zero, tx.init(params), params)
  np.testing.assert_allclose(updates['kernel'], -0.05, rtol=1e-6)
  np.testing.assert_array_equal(updates['bias'], 0.0)


def test_moments_are_float32_whatever_the_gradients_are():
  tx = make_adam(learning_rate=0.1, clip_norm=1.0)
  params = {'w': jnp.ones(3)}
  _, moments, *_ = tx.init(params)
  assert moments.mu['w'].dtype == moments.nu['w'].dtype == jnp.float32


def sgd(start, gradients, *, rates, momentum, nesterov, decay):
  """Sutskever et al. 2013 as torch.optim.SGD states it; L2 on the first two."""
  x, v = np.array(start, np.float64), 0.0
  kernel = np.array([1, 1, 0, 0, 0])
  for g, rate in zip(gradients, rates, strict=True):
    g = np.asarray(g, np.float64) + decay * kernel * x
    v = momentum * v + g
    x = x - rate * (g + momentum * v if nesterov else v)
  return x


@pytest.mark.parametrize('nesterov', [True, False])
def test_it_is_sgd_with_momentum_and_weight_decay_of_kernels(nesterov):
  rng = np.random.default_rng(1)
  gradients = rng.normal(size=(12, 5)).astype(np.float32)
  start = rng.normal(size=5).astype(np.float32)
  rates = 0.1 * np.minimum(1.0, np.arange(1, 13) / 4)
  given = dict(momentum=0.9, nesterov=nesterov)
  tx = make_sgd(learning_rate=0.1, warmup_steps=4, weight_decay=0.3, **given)
  params = {'w': jnp.asarray(start[:2])[None], 'b': jnp.asarray(start[2:])}
  opt_state = tx.init(params)
  for g in gradients:
    grads = {'w': jnp.asarray(g[:2])[None], 'b': jnp.asarray(g[2:])}
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
  mine = np.concatenate([params['w'][0], params['b']])
  truth = sgd(start, gradients, rates=rates, decay=0.3, **given)
  np.testing.assert_allclose(mine, truth, rtol=0, atol=2e-6)


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_it_is_rmsprop_as_tensorflow_states_it(momentum):
  """tf.train.RMSPropOptimizer: mean squares from 1, eps inside the root."""
  rng = np.random.default_rng(2)
  gradients = rng.normal(size=(12, 5)).astype(np.float32)
  start = rng.normal(size=5).astype(np.float32)
  given = dict(learning_rate=0.1, b2=0.95, momentum=momentum, eps=1e-2)
  x, s, v = np.array(start, np.float64), 1.0, 0.0
  for g in gradients.astype(np.float64):
    s = 0.95 * s + 0.05 * g**2
    v = momentum * v + 0.1 * g / np.sqrt(s + 1e-2)
    x = x - v
  mine = run(make_rmsprop(**given), start, gradients)
  np.testing.assert_allclose(mine, x, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(b2=1.0), 'b2 is 1.0; .* below 1'),
    (dict(momentum=1.0), 'momentum is 1.0; .* below 1'),
    (dict(eps=0.0), 'eps is 0.0; .* above 0'),
    (dict(initial_scale=-1.0), 'initial_scale is -1.0; .* at least 0'),
    (dict(kind='adam'), "kind is 'adam'"),
  ],
)
def test_a_field_of_rmsprop_that_does_not_fit_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    make_rmsprop(**(dict(learning_rate=1e-3) | fields))


def test_the_rate_falls_by_the_factor_at_the_steps_named():
  tx = make_sgd(
    learning_rate=2.0,
    warmup_steps=4,
    decay='step',
    decay_at=(10, 20),
    decay_factor=0.5,
  )
  np.testing.assert_allclose(
    tx.learning_rate(np.array([0, 3, 9, 10, 19, 20, 99])),
    [0.5, 2, 2, 1, 1, 0.5, 0.5],
    rtol=1e-6,
  )


def make_adafactor(num_steps=None, **options):
  return optimizer.make_adafactor(
    optimizer.AdafactorOptions(**options), num_steps
  )


def adafactor(start, gradients, *, rate, parameter_scale):
  """Shazeer and Stern alg. 4, sec. 6 to 8, on one matrix, in NumPy float64."""
  x = np.array(start, np.float64)
  rows, columns = np.zeros(x.shape[0]), np.zeros(x.shape[1])
  for t, g in enumerate(np.asarray(gradients, np.float64)):
    b2 = 1 - (t + 1.0) ** -0.8
    rows = b2 * rows + (1 - b2) * (g**2 + 1e-30).mean(axis=1)
    columns = b2 * columns + (1 - b2) * (g**2 + 1e-30).mean(axis=0)
    u = g / np.sqrt(np.outer(rows, columns) / rows.mean())
    u = u / max(1.0, np.sqrt((u**2).mean()))
    scale = max(1e-3, np.sqrt((x**2).mean())) if parameter_scale else 1.0
    x = x - rate * scale * u
  return x


@pytest.mark.parametrize('parameter_scale', [True, False])
def test_it_is_adafactor_as_published_and_as_optax_has_it(parameter_scale):
  rng = np.random.default_rng(2)
  gradients = (
    rng.normal(size=(6, 4, 7)) * np.geomspace(3, 0.1, 6)[:, None, None]
  )
  gradients = gradients.astype(np.float32)
  start = rng.normal(size=(4, 7)).astype(np.float32)
  given = dict(learning_rate=0.1, scale_by_parameter=parameter_scale)
  own = make_adafactor(min_size_to_factor=4, **given)
  theirs = optax.adafactor(
    0.1,
    min_dim_size_to_factor=4,
    multiply_by_parameter_scale=parameter_scale,
  )
  ends = []
  for tx in (own, theirs):
    params = {'w': jnp.asarray(start)}
    state = tx.init(params)
    for g in gradients:
      updates, state = tx.update({'w': jnp.asarray(g)}, state, params)
      params = optax.apply_updates(params, updates)
    ends.append(params['w'])
  truth = adafactor(start, gradients, rate=0.1, parameter_scale=parameter_scale)
  np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)
  np.testing.assert_allclose(ends[0], truth, rtol=1e-5, atol=1e-6)


def test_adafactor_takes_momentum_decay_and_clipping_of_its_own():
  tx = make_adafactor(
    learning_rate=0.1,
    momentum=0.9,
    moment_dtype='bfloat16',
    weight_decay=0.5,
    clip_norm=1.0,
    scale_by_parameter=False,
  )
  params = {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}
  state = tx.init(params)
  dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(state)}
  assert dtypes == {'float32', 'bfloat16', 'int32'}
  grads = {'kernel': jnp.ones((2, 2)), 'bias': jnp.zeros(2)}
  updates, _ = tx.update(grads, state, params)
  # The update is 1, its average 0.1; then half of the kernel, times the rate.
  np.testing.assert_allclose(updates['kernel'], -0.06, rtol=1e-2)
  np.testing.assert_array_equal(updates['bias'], 0.0)
  assert bool(tx.is_clipped(grads))


def test_a_factored_state_is_a_fraction_of_that_of_adam():
  params = {'kernel': jnp.zeros((3, 3, 256, 128))}

  def floats(tx):
    return sum(leaf.size for leaf in jax.tree.leaves(tx.init(params)))

  assert floats(make_adam(learning_rate=1.0)) > 2 * 3 * 3 * 256 * 128
  assert floats(make_adafactor(learning_rate=1.0)) < 3 * 3 * (256 + 128) + 10


def test_both_moments_are_bfloat16_where_the_section_says_so():
  tx = make_adam(learning_rate=0.1, moment_dtype='bfloat16')
  (moments, *_) = tx.init({'w': jnp.ones(3)})
  assert moments.mu['w'].dtype == moments.nu['w'].dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(b2_exponent=0.0), 'b2_exponent is 0.0; .* at most 1'),
    (dict(min_size_to_factor=0), 'min_size_to_factor is 0; .* above 0'),
    (dict(update_clip=-1.0), 'update_clip is -1.0; .* above 0'),
    (dict(momentum=1.0), 'momentum is 1.0'),
    (dict(moment_dtype='float16'), "moment_dtype is 'float16'; known are"),
    (dict(skip_nonfinite=-1), 'skip_nonfinite is -1; .* at least 0'),
    (dict(kind='adam'), "kind is 'adam'"),
  ],
)
def test_a_field_of_adafactor_that_does_not_fit_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    make_adafactor(learning_rate=1e-3, **fields)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      dict(momentum=1.0),
      'momentum is 1.0; it must be .* at least 0 and below 1',
    ),
    (dict(momentum=0.0), 'use --config.optimizer.nesterov=False'),
    (dict(clip_norm=0.0), 'clip_norm is 0.0; .* above 0: .* None does not'),
    (dict(decay='step'), r'decay_at is \(\) with'),
    (dict(decay_at=(3,)), r"decay_at is \(3,\) with decay='constant'"),
    (dict(decay='step', decay_at=(5, 5)), r'\(5, 5\) .* increasing'),
    (dict(decay='step', decay_at=(5,), decay_factor=1.5), 'factor is 1.5'),
    (dict(kind='lars'), "kind is 'lars'"),
  ],
)
def test_a_field_of_sgd_that_does_not_fit_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    make_sgd(learning_rate=1e-3, **fields)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(kind='adan'), "kind is 'adan'; known kinds are"),
    (dict(decay='stairs'), "decay is 'stairs'; known are"),
    (dict(decay='cosine'), 'needs a larger num_steps than None'),
    (dict(decay='cosine', warmup_steps=9, num_steps=9), 'num_steps than 9'),
    (dict(clip_norm=0.0), 'clip_norm is 0.0; .* above 0: .* None does not'),
    (dict(warmup_steps=-1), 'use 0 or more'),
    (dict(weight_decay=0.1), 'use --config.optimizer.kind=adamw'),
  ],
)
def test_a_field_that_does_not_fit_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    make_adam(learning_rate=1e-3, **fields)


@pytest.mark.parametrize('make', [make_adam, make_sgd])
@pytest.mark.parametrize('rate', [-1e-4, 0.0, np.nan, np.inf, '1e-4', True])
def test_a_rate_that_no_run_can_mean_is_refused_with_the_reason(make, rate):
  message = (
    rf'config.optimizer.learning_rate is {rate!r}; it must be finite and above'
    ' 0: a negative rate climbs the loss.* --config.optimizer.learning_rate='
  )
  with pytest.raises(ValueError, match=message):
    make(learning_rate=rate)


@pytest.mark.parametrize('value', [-0.5, np.nan, np.inf])
@pytest.mark.parametrize('key', ['b1', 'b2', 'eps', 'weight_decay'])
def test_no_field_of_adam_may_be_negative_or_not_finite(key, value):
  with pytest.raises(ValueError, match=f'config.optimizer.{key} is {value}'):
    make_adam(learning_rate=1e-3, kind='adamw', **{key: value})


def test_a_gradient_as_long_as_the_limit_is_not_clipped():
  tx = make_adam(learning_rate=0.1, clip_norm=5.0)
  for last, clipped in ((0.0, False), (4.0, False), (4.001, True)):
    assert bool(tx.is_clipped({'w': jnp.asarray([3.0, last])})) is clipped
  assert make_adam(learning_rate=0.1).is_clipped is None
