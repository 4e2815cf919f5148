"""Partition rules apply to the statistics of Adafactor, which lack an axis."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec
from support import tiny_run

from cdm.distributed import device_mesh, factored_statistics, partitioning
from cdm.training import disk_space, optimizer, step
from cdm.training import state as states

# The longest axis is another one in each; the bias is not factored.
SHAPES = {
  'conv': {'kernel': (3, 3, 16, 32), 'bias': (32,)},
  'up': {'kernel': (1, 1, 64, 8)},
  'dense': {'kernel': (16, 16)},
}


def shapes():
  tx = optimizer.make_adafactor(
    optimizer.AdafactorOptions(learning_rate=1.0, min_size_to_factor=8)
  )

  def init(key):
    return jax.tree.map(
      jnp.zeros, SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )

  return states.shapes(init, tx, key=jax.random.key(0))


def specs(rules):
  """-> {name: spec} of the arrays that are split."""
  mesh = tiny_run.mesh(2, 2, 2)
  placed = partitioning.state_sharding(shapes(), mesh, rules)
  return {
    partitioning.parameter_name(path): place.spec
    for path, place in jax.tree_util.tree_leaves_with_path(placed)
    if any(place.spec)
  }


def test_a_rule_for_a_kernel_splits_its_rows_and_columns_by_their_axes():
  found = specs(
    (
      ('conv/kernel$', (None, None, 'fsdp', 'tensor')),
      ('up/kernel$', (None, None, 'fsdp', 'tensor')),
      ('dense/kernel$', ('fsdp', 'tensor')),
    )
  )
  state = {
    name.split('/', 2)[2]: tuple(spec)
    for name, spec in found.items()
    if name.startswith('opt_state/')
  }
  assert state == {
    'v_row/conv/kernel': (None, None, 'fsdp'),  # without the 32
    'v_col/conv/kernel': (None, None, 'tensor'),  # without the 16
    'v_row/up/kernel': (None, None, 'tensor'),  # without the 64
    'v_col/up/kernel': (None, None, 'fsdp'),  # without the 8
    'v_row/dense/kernel': ('fsdp',),
    'v_col/dense/kernel': ('tensor',),
  }
  assert found['params/conv/kernel'] == PartitionSpec(
    None, None, 'fsdp', 'tensor'
  )


@pytest.mark.parametrize('split', ['all', 'optimizer'])
def test_the_default_rules_fit_a_factored_state(split):
  mesh = tiny_run.mesh(2, 2, 2)
  rules = partitioning.default_rules(shapes(), mesh, split=split)
  partitioning.check_rules(rules, shapes())
  assert any('v_row/conv' in name for name in specs(rules))


def test_an_array_of_another_shape_keeps_the_rule():
  params = {'params/a': (4, 8)}
  spec = ('fsdp', None)
  for name, shape in (
    ('opt_state/0/mu/a', (4, 8)),
    ('opt_state/0/v/a', (4, 8)),  # not factored
    ('opt_state/0/v_row/b', (4,)),  # of no parameter
    ('opt_state/0/v_row/a', (5,)),  # nobody's
  ):
    assert factored_statistics.entries(name, shape, spec, params) == spec


def test_a_checkpoint_of_a_factored_state_is_counted_by_its_shapes():
  sizes = {
    field: disk_space.checkpoint_bytes(getattr(shapes(), field))
    for field in ('params', 'ema_params', 'opt_state')
  }
  conv, up, dense = 9 * 16 * 32, 64 * 8, 16 * 16
  assert sizes['params'] == sizes['ema_params'] == 4 * (conv + 32 + up + dense)
  # Rows and columns, the bias in full, three times [1] of what is not kept
  # and two of the bias's, the counts of the moments and of the schedule.
  floats = 9 * (16 + 32) + (64 + 8) + (16 + 16) + 32 + 3 + 2
  assert sizes['opt_state'] == 4 * (floats + 2)


@pytest.mark.parametrize('kind', ['adafactor', 'bfloat16'])
def test_a_split_state_is_updated_as_on_one_device(kind):
  """Rows and columns are means over axes that devices share."""
  if kind == 'adafactor':
    tx = optimizer.make_adafactor(
      optimizer.AdafactorOptions(learning_rate=1e-2, min_size_to_factor=8)
    )
  else:
    tx = tiny_run.adam(moment_dtype='bfloat16')
  ends = []
  for shape, rules in (((1, 1, 1), ()), ((2, 2, 2), tiny_run.RULES)):
    mesh = tiny_run.mesh(*shape)
    now = tiny_run.init_state(
      tiny_run.init, tx, key=jax.random.key(0), mesh=mesh, rules=rules
    )
    update = step.make_step(
      tiny_run.noiseless,
      tx,
      mesh=mesh,
      ema_decay=0.99,
      shardings=states.shardings_of(now),
    )
    for index in range(3):
      batch = device_mesh.shard_batch(tiny_run.batch_at(index), mesh)
      now, _ = update(now, batch)
    ends.append(now)
  one, split = ends
  tiny_run.assert_same(one.params, split.params, rtol=1e-3, atol=1e-5)
  if kind == 'bfloat16':  # rounded by the same random numbers
    (_, mine, *_), (_, other, *_) = one.opt_state, split.opt_state
    tiny_run.assert_same(
      jax.tree.map(lambda v: v.astype(jnp.float32), mine.nu),
      jax.tree.map(lambda v: v.astype(jnp.float32), other.nu),
      rtol=1e-2,
      atol=1e-12,
    )
  else:
    row = split.opt_state[0].v_row['up']['kernel']
    column = split.opt_state[0].v_col['up']['kernel']
    assert row.shape == (8,) and row.sharding.is_fully_replicated
    assert column.shape == (48,) and tuple(column.sharding.spec) == ('fsdp',)
