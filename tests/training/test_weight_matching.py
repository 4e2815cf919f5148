"""Which array of one network a parameter of another starts from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.checkpointing import reader
from cdm.models.unet import UNet
from cdm.training import weight_matching
from cdm.training.weight_matching import LABEL_TABLE, Network

TABLE = np.arange(10, dtype=np.float32).reshape(5, 2)  # four classes, null


def classes(names, *, null=True, width=2, count=None):
  """-> Network of a table of classes alone."""
  count = len(names) if count is None else count
  return Network({LABEL_TABLE: (count + null, width)}, count, null, names)


def made(matching, name, **arrays):
  """-> the array that a rule makes of the source's."""
  names, make = matching.made[name]
  given = {key.replace('__', '/'): jnp.asarray(v) for key, v in arrays.items()}
  assert set(names) == set(given)
  return np.asarray(make(given))


def test_arrays_of_the_same_names_and_shapes_are_taken():
  shapes = {'conv_in/kernel': (3, 3, 3, 8), 'norm_out/scale': (8,)}
  found = weight_matching.match(Network(shapes), Network(shapes))
  assert found.taken == {name: name for name in shapes}
  assert found.agrees and not found.notes


def test_what_differs_is_named():
  found = weight_matching.match(
    Network({'a/kernel': (2,), 'b/kernel': (3,), 'c/kernel': (4,)}),
    Network({'a/kernel': (2,), 'b/kernel': (5,), 'd/kernel': (4,)}),
  )
  assert not found.agrees
  assert found.differing == {'b/kernel': ((3,), (5,))}
  assert found.missing == ['d/kernel']
  assert found.unused == ['c/kernel']


def test_a_learned_weight_of_the_loss_is_no_part_of_a_network():
  plain = Network({'mid/kernel': (3,)})
  weighted = Network({**plain.shapes, 'loss_uncertainty/u/kernel': (8,)})
  found = weight_matching.match(weighted, plain)
  assert found.agrees and found.taken == {'mid/kernel': 'mid/kernel'}
  assert found.notes == ['the learned weight of the loss is left out']
  found = weight_matching.match(plain, weighted)
  assert found.agrees and found.fresh == ['loss_uncertainty/u/kernel']
  found = weight_matching.match(weighted, weighted)
  assert found.taken.keys() == weighted.shapes.keys() and not found.notes


def test_a_mean_becomes_that_of_a_network_that_draws_details():
  own = {'conv_in/kernel': (3, 3, 48, 8), 'block_0/conv1/bias': (8,)}
  target = {f'mean/{name}': shape for name, shape in own.items()}
  target |= {'detail/conv_in/kernel': (3, 3, 24, 4)}
  found = weight_matching.match(Network(own), Network(target))
  assert found.agrees
  assert found.taken == {f'mean/{name}': name for name in own}
  assert found.fresh == ['detail/conv_in/kernel']
  assert found.notes == ['it becomes the mean, over which details are drawn']
  # A run that draws details starts from another of its kind.
  assert (
    weight_matching.match(Network(target), Network(target)).taken.keys()
    == target.keys()
  )
  other = own | {'block_1/conv1/bias': (8,)}
  assert not weight_matching.match(Network(other), Network(target)).agrees


def levels(*sizes):
  """-> {name: shape} of a network with feature maps of these sizes."""
  names = [f'{s}_{size}_block_0/w' for size in sizes for s in ('down', 'up')]
  for fine, coarse in zip(sizes, sizes[1:], strict=False):
    names += [f'down_{fine}_to_{coarse}/w', f'up_{coarse}_to_{fine}/w']
  return dict.fromkeys([*names, 'mid_block_0/w'], (1,))


def test_at_another_resolution_levels_correspond_in_order():
  found = weight_matching.match(
    Network(levels(64, 32, 16)), Network(levels(128, 64, 32))
  )
  assert found.agrees
  assert found.taken['down_128_block_0/w'] == 'down_64_block_0/w'
  assert found.taken['down_64_to_32/w'] == 'down_32_to_16/w'
  assert found.taken['up_32_to_64/w'] == 'up_16_to_32/w'
  assert found.taken['mid_block_0/w'] == 'mid_block_0/w'
  assert found.notes == [
    'feature maps of 64, 32, 16 become those of 128, 64, 32'
  ]


def test_a_level_more_is_missing_and_the_others_correspond_by_size():
  found = weight_matching.match(
    Network(levels(64, 32)), Network(levels(128, 64, 32))
  )
  assert found.taken['down_64_block_0/w'] == 'down_64_block_0/w'
  assert set(found.missing) == {
    *('down_128_block_0/w', 'up_128_block_0/w'),
    *('down_128_to_64/w', 'up_64_to_128/w'),
  }


def test_classes_start_from_their_name_and_new_ones_from_the_mean():
  found = weight_matching.match(
    classes(['cat', 'dog', 'cow', 'emu']), classes(['emu', 'yak', 'cat'])
  )
  table = made(found, LABEL_TABLE, label__embedding=TABLE)
  mean = TABLE[:4].mean(0)
  np.testing.assert_array_equal(table, [TABLE[3], mean, TABLE[0], TABLE[4]])
  assert found.agrees
  assert found.notes == [
    '2 of 3 classes start from the class of their name in the source, which '
    'has 4, and 1 from the mean of its classes'
  ]


def test_a_null_row_that_the_source_lacks_starts_from_the_mean():
  found = weight_matching.match(
    classes(['cat', 'dog'], null=False), classes(['cat', 'dog'])
  )
  table = made(found, LABEL_TABLE, label__embedding=TABLE[:2])
  np.testing.assert_array_equal(table, [*TABLE[:2], TABLE[:2].mean(0)])


@pytest.mark.parametrize('names', [None, ['cat', 'dog']])
def test_the_same_classes_are_taken_as_they_are(names):
  """Without names, or where some labels have none, rows go by their index."""
  network = classes(names, count=3)
  assert weight_matching.match(network, network).taken == {
    LABEL_TABLE: LABEL_TABLE
  }


def test_another_number_of_classes_without_names_is_a_difference():
  found = weight_matching.match(
    classes(None, count=4), classes(['a', 'b'], count=2)
  )
  assert found.differing == {LABEL_TABLE: ((5, 2), (3, 2))}


# --- With a network: what is added as an input changes nothing at first.

SIZE = 8


def unet(**fields):
  return UNet(
    features=8, multipliers=(1,), num_blocks=1, norm_groups=4, **fields
  )


def inputs(net, *, lowres=None, seed=0):
  """-> arguments of a network: two images, without a label."""
  x = jax.random.normal(jax.random.key(seed), (2, SIZE, SIZE, 3))
  given = {'x': x, 'noise': jnp.array([0.5, 30.0])}
  if net.num_classes is not None:
    given['label'] = jnp.full(2, net.num_classes)  # the null class
  if lowres is not None:
    given['lowres'] = lowres * x[::-1]
  if net.lowres_level:
    given['lowres_level'] = jnp.array([0.2, 0.9])
  return given


@functools.cache
def source():
  """-> (network with labels, parameters none of which is zero)."""
  net = unet(num_classes=4, null_class=True, patch_size=2)
  params = random(net, inputs(net), seed=1)
  return net, params


def random(net, given, seed):
  shapes = jax.eval_shape(
    lambda key: net.init(key, **given, train=False), jax.random.key(0)
  )['params']
  leaves, tree = jax.tree.flatten(shapes)
  rng = np.random.default_rng(seed)
  return jax.tree.unflatten(
    tree, [rng.normal(0, 0.3, x.shape).astype(np.float32) for x in leaves]
  )


def flat(params):
  return reader._leaves_by_name(params)


def started(net, given):
  """-> (parameters that start from those of `source`, Matching)."""
  old_net, old = source()
  fresh = random(net, given, seed=2)
  networks = [
    Network(reader.shapes(p), n.num_classes, n.null_class, None, n.patch_size)
    for n, p in ((old_net, old), (net, fresh))
  ]
  found = weight_matching.match(*networks)
  assert found.agrees

  def choose(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name in found.taken:
      return flat(old)[found.taken[name]]
    if name in found.made:
      return found.made[name][1](
        {k: jnp.asarray(v) for k, v in flat(old).items()}
      )
    assert name in found.fresh
    return leaf

  return jax.tree_util.tree_map_with_path(choose, fresh)


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'num_classes': 4, 'null_class': True, 'lowres_level': True},
  ],
  ids=['without labels', 'with a low-res input'],
)
def test_a_network_begins_by_computing_what_its_source_computes(fields):
  old_net, old = source()
  net = unet(patch_size=2, **fields)
  given = inputs(net, lowres=5.0 if net.lowres_level else None)
  params = started(net, given)
  expected = jax.jit(
    lambda p: old_net.apply({'params': p}, **inputs(old_net), train=False)
  )(old)
  out = jax.jit(lambda p: net.apply({'params': p}, **given, train=False))(
    params
  )
  assert np.abs(expected).max() > 0.1
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_labels_that_the_source_lacks_start_from_zero():
  found = weight_matching.match(Network({}), classes(('a', 'b')))
  assert found.agrees
  np.testing.assert_array_equal(made(found, LABEL_TABLE), np.zeros((3, 2)))
  assert found.notes == ['labels are a new input, and start with weight zero']


@pytest.mark.parametrize('null', [True, False])
def test_labels_that_are_no_longer_an_input_leave_a_row_in_the_bias(null):
  bias = weight_matching.NOISE_BIAS
  source = classes(('a', 'b', 'c', 'd'), null=null)
  source = source._replace(shapes={**source.shapes, bias: (2,)})
  found = weight_matching.match(source, Network({bias: (2,)}))
  assert found.agrees and LABEL_TABLE not in found.unused
  table = TABLE if null else TABLE[:4]
  row = TABLE[4] if null else TABLE[:4].mean(axis=0)
  given = {'label__embedding': table, 'noise__dense2__bias': [10.0, 20.0]}
  np.testing.assert_allclose(made(found, bias, **given), row + [10, 20])
  assert ('null row' in found.notes[0]) is null


@pytest.mark.parametrize(
  ('own', 'other'), [((3,), (2,)), ((2,), (3,)), ((3,), (3,)), (None, (2,))]
)
def test_a_bias_of_another_shape_can_take_no_row_of_labels(own, other):
  bias = weight_matching.NOISE_BIAS
  source = classes(('a', 'b'))
  shapes = {**source.shapes} | ({} if own is None else {bias: own})
  found = weight_matching.match(
    source._replace(shapes=shapes), Network({bias: other})
  )
  assert LABEL_TABLE in found.unused and not found.notes


@pytest.mark.parametrize(
  ('source', 'target'), [(None, None), (('a', 'b'), None), (None, ('a', 'b'))]
)
def test_as_many_classes_without_names_are_the_same_classes(source, target):
  found = weight_matching.match(
    classes(source, count=2, null=False), classes(target, count=2)
  )
  assert found.agrees
  table = made(found, LABEL_TABLE, label__embedding=TABLE[:2])
  np.testing.assert_allclose(table, [*TABLE[:2], TABLE[:2].mean(axis=0)])
  wider = weight_matching.match(
    classes(source, count=2), classes(target, count=2, width=3)
  )
  assert wider.differing == {LABEL_TABLE: ((3, 2), (3, 3))}


def conv_in(channels, *, features=8, side=3, **fields):
  return Network(
    {weight_matching.CONV_IN: (side, side, channels, features)}, **fields
  )


@pytest.mark.parametrize(
  ('source', 'target'),
  [
    (conv_in(4), conv_in(7)),  # the source is no network of images alone
    (conv_in(6), conv_in(3)),
    (conv_in(3), conv_in(6, features=9)),
    (conv_in(3), conv_in(6, side=5)),
    (conv_in(12, patch_size=2), conv_in(24)),
    (conv_in(3), conv_in(24, patch_size=2)),
  ],
)
def test_other_input_channels_are_a_difference(source, target):
  found = weight_matching.match(source, target)
  assert list(found.differing) == [weight_matching.CONV_IN]
  assert not found.made and not found.notes


@pytest.mark.parametrize('patch_size', [1, 2])
def test_added_channels_of_every_pixel_have_weight_zero(patch_size):
  squares = patch_size**2
  found = weight_matching.match(
    conv_in(3 * squares, features=1, side=1, patch_size=patch_size),
    conv_in(6 * squares, features=1, side=1, patch_size=patch_size),
  )
  kernel = np.arange(1.0, 3 * squares + 1).reshape(1, 1, -1, 1)
  wide = made(found, weight_matching.CONV_IN, conv_in__kernel=kernel)
  pixels = wide.reshape(squares, 6)
  np.testing.assert_array_equal(pixels[:, :3].ravel(), kernel.ravel())
  assert not pixels[:, 3:].any()
