"""Meshes, rules and the split of a batch; eight CPU devices."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from support import tiny_run

from cdm.distributed import device_mesh, partitioning


def abstract(mesh, rules=()):
  key = jax.random.key(0)
  return tiny_run.abstract_state(
    tiny_run.init, tiny_run.adam(), key=key, mesh=mesh, rules=rules
  )


def specs(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {partitioning.parameter_name(p): x.sharding.spec for p, x in leaves}


def test_the_first_rule_that_matches_decides_and_the_rest_is_replicated():
  rules = (('^params/up/', ()), ('kernel$', (None, 'fsdp')))
  found = specs(abstract(tiny_run.mesh(2, 4), rules))
  assert found['params/up/kernel'] == PartitionSpec()
  for name in ('params/down', 'ema_params/down', 'opt_state/1/mu/up'):
    assert found[f'{name}/kernel'] == PartitionSpec(None, 'fsdp')
    assert found[f'{name}/bias'] == PartitionSpec()
  assert found['step'] == found['key'] == PartitionSpec()


def test_optimizer_and_ema_can_be_sharded_alone():
  rules = (('^(opt_state|ema_params)/.*kernel', (['data', 'fsdp'],)),)
  found = specs(abstract(tiny_run.mesh(2, 2, 2), rules))
  assert found['params/up/kernel'] == PartitionSpec()
  assert found['opt_state/1/nu/up/kernel'] == PartitionSpec(('data', 'fsdp'))


@pytest.mark.parametrize(
  ('rule', 'message'),
  [
    (('kernel', ('model',)), "mesh axis 'model'; known axes are"),
    (('bias', (None, 'fsdp')), r'2 entries, but .*bias has shape \[8\]'),
    (('up/kernel', ('fsdp',)), r'shape \[6, 48\]: its axis of 6 does not'),
  ],
)
def test_a_rule_that_does_not_fit_names_the_parameter(rule, message):
  tree = {
    'down': {'bias': jax.ShapeDtypeStruct((8,), np.float32)},
    'up': {'kernel': jax.ShapeDtypeStruct((6, 48), np.float32)},
  }
  with pytest.raises(ValueError, match=message):
    partitioning.state_sharding(tree, tiny_run.mesh(2, 4), (rule,))


def test_no_device_ever_holds_more_than_its_part_of_the_state():
  """The state is made in place: every shard has the shape that was planned."""
  mesh = tiny_run.mesh(2, 4)
  made = tiny_run.init_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(0),
    mesh=mesh,
    rules=tiny_run.RULES,
  )
  for tree in (made.params, made.ema_params, made.opt_state[1].mu):
    for shard in tree['up']['kernel'].addressable_shards:
      assert shard.data.shape == (8, 12)


def test_the_mesh_does_not_change_the_parameters_a_run_starts_with():
  one, eight = (
    tiny_run.init_state(
      tiny_run.init,
      tiny_run.adam(),
      key=jax.random.key(3),
      mesh=mesh,
      rules=rules,
    )
    for mesh, rules in (
      (tiny_run.mesh(1), ()),
      (tiny_run.mesh(2, 4), tiny_run.RULES),
    )
  )
  tiny_run.assert_same(one, eight)


def test_default_rules_split_large_arrays_and_no_others():
  mesh = device_mesh.make_mesh(data=1, fsdp=4, tensor=2)
  tree = {
    'kernel': jax.ShapeDtypeStruct((3, 3, 8, 16), np.float32),
    'two_axes': jax.ShapeDtypeStruct((3, 8, 12, 6), np.float32),
    'fsdp_alone': jax.ShapeDtypeStruct((4, 5), np.float32),
    'odd': jax.ShapeDtypeStruct((5, 7), np.float32),
    'bias': jax.ShapeDtypeStruct((16,), np.float32),
  }
  rules = partitioning.default_rules(tree, mesh)
  places = partitioning.state_sharding(tree, mesh, rules)
  shards = {k: places[k].shard_shape(tree[k].shape) for k in tree}
  assert shards == {
    'kernel': (3, 3, 2, 8),  # an axis each, where both fit
    'two_axes': (3, 8, 3, 3),  # the longest axis that divides over fsdp
    'fsdp_alone': (1, 5),
    'odd': (5, 7),
    'bias': (16,),
  }


def test_the_parameters_can_stay_whole_while_moments_and_ema_are_split():
  mesh = tiny_run.mesh(1, 8)
  rules = partitioning.default_rules(abstract(mesh), mesh, split='optimizer')
  found = specs(abstract(mesh, rules))
  assert found['params/up/kernel'] == PartitionSpec()
  for name in ('ema_params', 'opt_state/1/mu', 'opt_state/1/nu'):
    assert 'fsdp' in str(found[f'{name}/up/kernel'])
  assert partitioning.default_rules(abstract(mesh), mesh, split='none') == ()
  with pytest.raises(ValueError, match='known are all, optimizer, none'):
    partitioning.default_rules(abstract(mesh), mesh, split='some')


@pytest.mark.parametrize(
  ('rule', 'message'),
  [
    (('convolution', ()), "'convolution', which matches no name; names are"),
    (('(', ()), 'not a regular expression: '),
    (('kernel',), 'a rule is'),
    (('kernel', ('model',)), "mesh axis 'model'"),
  ],
)
def test_a_rule_of_a_config_that_cannot_be_used_is_refused(rule, message):
  with pytest.raises(ValueError, match=message):
    partitioning.check_rules((rule,), abstract(tiny_run.mesh(1)))


def test_a_mesh_of_data_alone_splits_no_parameter():
  mesh = device_mesh.make_mesh()
  tree = {'kernel': jax.ShapeDtypeStruct((8, 16), np.float32)}
  assert partitioning.default_rules(tree, mesh) == ()
