"""ResNet-50 equals torchvision's, and learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle, rule_weights

from cdm.models import resnet
from cdm.models.resnet import ResNet50


@pytest.fixture(scope='module')
def stored():
  """-> (keys, arrays, variables)."""
  description, arrays = oracle('resnet50')
  state = rule_weights(description['weights'])
  return description['keys'], arrays, resnet.from_pytorch(state, ResNet50())


@pytest.mark.parametrize('name', ['preset', 'seeded_160x192'])
def test_features_and_logits_equal_torchvisions(stored, name):
  keys, arrays, variables = stored
  x = resnet.normalise(arrays[f'img/{name}'][None])

  @jax.jit
  def apply(variables, x):
    return ResNet50().apply(variables, x, train=False, mutable='intermediates')

  output, kept = apply(variables, x)
  mine = {'pool2048': output.pool, 'logits': output.logits}
  for layer, value in kept['intermediates'].items():
    if f'{name}/{layer}' in keys:
      mine[layer] = value[0].mean(axis=(1, 2))
  assert len(mine) == 6
  for layer, value in mine.items():
    key = f'{name}/{layer}'
    assert_matches(value[0], arrays[key], keys[key]['tol'], key)


def small(**fields):
  return ResNet50(num_classes=2, blocks=(1, 1), features=8, **fields)


@pytest.mark.parametrize('variant', resnet.VARIANTS)
def test_it_learns_two_classes(variant):
  key = jax.random.key(0)
  label = jnp.arange(16) % 2
  x = jax.random.normal(key, (16, 16, 16, 3)) * 0.3
  x = x + jnp.where(label == 1, 1.0, -1.0)[:, None, None, None]
  net = small(variant=variant)
  variables = net.init(jax.random.key(1), x, train=False)
  before = variables['batch_stats']

  @jax.jit
  def step(variables):
    def loss(params):
      given = {'params': params, 'batch_stats': variables['batch_stats']}
      output, new = net.apply(given, x, train=True, mutable='batch_stats')
      one_hot = jax.nn.one_hot(label, 2)
      log_p = jax.nn.log_softmax(output.logits)
      return -(one_hot * log_p).sum(axis=-1).mean(), new['batch_stats']

    grad = jax.value_and_grad(loss, has_aux=True)
    (value, stats), grads = grad(variables['params'])
    params = jax.tree.map(lambda p, g: p - 0.1 * g, variables['params'], grads)
    return {'params': params, 'batch_stats': stats}, value

  losses = []
  for _ in range(25):
    variables, value = step(variables)
    losses.append(float(value))
  assert losses[0] > 0.5 and losses[-1] < 0.05
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), before, variables['batch_stats']
  )
  assert all(np.asarray(v) > 0 for v in jax.tree.leaves(moved))


def test_the_variants_share_parameters_and_halve_in_different_places():
  made = small().init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
  made = jax.tree.map(lambda x: jnp.abs(x) + 0.1, made)
  x = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
  results = [
    small(variant=v).apply(made, x, train=False).pool for v in resnet.VARIANTS
  ]
  assert not np.allclose(*results)


def test_half_precision_stays_close():
  x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
  made = small().init(jax.random.key(1), x, train=False)
  full, half = (
    small(dtype=dtype).apply(made, x, train=False).pool
    for dtype in (jnp.float32, jnp.bfloat16)
  )
  assert half.dtype == jnp.float32
  np.testing.assert_allclose(full, half, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
  ('change', 'complaint'),
  [
    (
      {'fc.bias': None},
      'fc.bias is missing: these are not the weights of a ResNet',
    ),
    ({'extra': np.ones(2)}, '1 parameters .* no place for, first extra'),
    ({'fc.bias': np.ones(3)}, r'fc.bias is \(3,\) in our layout; .*\(2,\)'),
  ],
)
def test_weights_of_another_network_are_refused(change, complaint):
  names = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
  names |= {'mean': 'running_mean', 'var': 'running_var'}
  state = {}
  for (_, *modules, leaf), shape in resnet._shapes(small()).items():
    if leaf == 'kernel':
      shape = (
        shape[::-1]
        if len(shape) == 2
        else tuple(shape[i] for i in (3, 2, 0, 1))
      )
    name = '.'.join(modules).replace('_', '.')
    state[f'{name}.{names[leaf]}'] = np.ones(shape, np.float32)
  resnet.from_pytorch(state, small())
  state = {k: v for k, v in (state | change).items() if v is not None}
  with pytest.raises(ValueError, match=complaint):
    resnet.from_pytorch(state, small())


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(variant='v2'), "variant is 'v2'; known are v1, v1.5"),
    (dict(dtype='float33'), "dtype is 'float33'; known are float32, bfl"),
    (dict(blocks=()), r'blocks is \(\); give the number of blocks'),
    (dict(blocks=(1, 0)), r'blocks is \(1, 0\); give the number of blocks'),
    (dict(num_classes=0), 'num_classes is 0; it must be at least 1'),
  ],
)
def test_a_field_that_no_network_can_have_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    resnet.check(small().clone(**fields))
