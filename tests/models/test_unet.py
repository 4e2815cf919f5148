"""The U-Net: its size, its wiring, its inputs, its errors.

That its numbers are right is shown in test_unet.py.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.models import layers
from cdm.models.unet import UNet
from cdm.models.unet_plan import plan

# Compiles several times faster; the numbers are the same to rounding.
FAST = {'xla_backend_optimization_level': 0}

TINY = UNet(
  features=8,
  multipliers=(1, 2),
  num_blocks=1,
  attention_resolutions=(4,),
  num_heads=2,
  norm_groups=4,
)


def normal(seed, shape, scale=1.0):
  rng = np.random.default_rng(seed)
  return np.asarray(scale * rng.standard_normal(shape), np.float32)


def inputs(size=(8, 8), batch=2, **given):
  """Images and t, and whatever else is given, by position and by name."""
  return (normal(1, (batch, *size, 3)), jnp.arange(batch) * 300.0), given


def shapes(net, args, given):
  init = functools.partial(net.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), *args, **given)


def randomised(net, args, given):
  """Parameters of which none is zero, so that everything shows."""
  leaves, tree = jax.tree.flatten(shapes(net, args, given))
  values = [
    normal(i, a.shape, 1 / math.sqrt(max(math.prod(a.shape[:-1]), 4)))
    for i, a in enumerate(leaves)
  ]
  return jax.tree.unflatten(tree, values)


def run(net, variables, args, given, **options):
  def apply(variables, args, given):
    return net.apply(variables, *args, **given, **options)

  options.setdefault('train', False)
  return jax.jit(apply, compiler_options=FAST)(variables, args, given)


# --- Size


def parameters(net, size, *, lowres=False):
  """The number of parameters; allocates none."""
  x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  given = {'lowres': x} if lowres else {}
  if net.num_classes:
    given['label'] = jax.ShapeDtypeStruct((1,), jnp.int32)
  noise = jax.ShapeDtypeStruct((1,), jnp.float32)
  tree = shapes(net, (x, noise), given)
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  'size, features, multipliers, num_blocks, stated, additive, film',
  [
    (128, 128, (1, 2, 4, 8, 8), 3, 550, 561, 575),
    (256, 128, (1, 2, 4, 4, 8, 8), 3, 625, 617, 634),
    (512, 64, (1, 2, 4, 8, 8, 16, 16), 3, 625, 610, 618),
    (1024, 16, (1, 2, 4, 8, 16, 32, 32, 32), 2, 150, 149, 150),
  ],
)
def test_sr3_has_the_parameters_that_its_paper_states(
  size, features, multipliers, num_blocks, stated, additive, film
):
  """[SR3] tab. A.1, in millions; within 4% with the additive embedding."""
  counts = {}
  for embedding in ('additive', 'film'):
    net = UNet(
      features,
      multipliers,
      num_blocks,
      attention_resolutions=(16,),
      embedding=embedding,
      skip_rescale=True,
      condition_on='sqrt_alpha_bar',
    )
    counts[embedding] = parameters(net, size, lowres=True)
  assert round(counts['additive'] / 1e6) == additive
  assert round(counts['film'] / 1e6) == film
  assert abs(counts['additive'] / 1e6 / stated - 1) < 0.04


ADM = dict(head_features=64, num_classes=1000, learned_variance=True)
IDDPM = dict(
  num_heads=4, resample='conv', num_classes=1000, learned_variance=True
)
DDPM = dict(resample='conv', embedding='additive', attention_resolutions=(16,))


@pytest.mark.parametrize(
  'name, size, net, expected',
  [
    (  # 295.9M
      '[ADM] ImageNet 64',
      64,
      UNet(192, (1, 2, 3, 4), 3, attention_resolutions=(32, 16, 8), **ADM),
      295_904_454,
    ),
    (  # 554M
      '[ADM] ImageNet 256',
      256,
      UNet(
        256, (1, 1, 2, 2, 4, 4), 2, attention_resolutions=(32, 16, 8), **ADM
      ),
      553_838_086,
    ),
    (
      '[ADM] ImageNet 512',
      512,
      UNet(
        256,
        (0.5, 1, 1, 2, 2, 4, 4),
        2,
        attention_resolutions=(32, 16, 8),
        **ADM,
      ),
      558_997_638,
    ),
    (
      '[ADM] 64 -> 256 upsampler',
      256,
      UNet(
        192,
        (1, 1, 2, 2, 4, 4),
        2,
        attention_resolutions=(32, 16, 8),
        **ADM | dict(head_features=None, num_heads=4),
      ),
      311_795_910,
    ),
    (  # 270M
      '[IDDPM] ImageNet 64',
      64,
      UNet(192, (1, 2, 3, 4), 3, attention_resolutions=(16, 8), **IDDPM),
      273_049_350,
    ),
    (  # 280M
      '[IDDPM] 64 -> 256 upsampler',
      256,
      UNet(192, (1, 1, 2, 2, 4, 4), 2, attention_resolutions=(16, 8), **IDDPM),
      279_792_390,
    ),
    # 35.7M and 114M in [DDPM] app. B.
    ('[DDPM] CIFAR-10', 32, UNet(128, (1, 2, 2, 2), 2, **DDPM), 35_746_307),
    (
      '[DDPM] 256',
      256,
      UNet(128, (1, 1, 2, 2, 4, 4), 2, **DDPM),
      113_673_219,
    ),
  ],
)
def test_networks_are_counted_as_their_own_code_counts_them(
  name, size, net, expected
):
  """Counted by running openai/guided-diffusion and openai/improved-diffusion
  at the flags of their README; [DDPM]'s by the latter's code."""
  assert parameters(net, size, lowres='->' in name) == expected


# --- Wiring


def test_the_names_read_as_a_drawing():
  net = TINY.clone(num_classes=3, lowres_level=True)
  level = dict(lowres_level=jnp.zeros(2), lowres=jnp.zeros((2, 8, 8, 3)))
  args, given = inputs(label=jnp.zeros(2, int), **level)
  params = shapes(net, args, given)['params']
  assert set(params) == {
    'noise',
    'label',
    'lowres_level',
    'conv_in',
    'down_8_block_0',
    'down_8_to_4',
    'down_4_block_0',
    'down_4_attention_0',
    'mid_block_0',
    'mid_attention',
    'mid_block_1',
    'up_4_block_0',
    'up_4_attention_0',
    'up_4_block_1',
    'up_4_attention_1',
    'up_4_to_8',
    'up_8_block_0',
    'up_8_block_1',
    'norm_out',
    'conv_out',
  }
  assert set(params['down_4_block_0']) == {
    'norm1', 'conv1', 'film', 'norm2', 'conv2', 'skip',
  }  # fmt: skip
  assert set(params['mid_attention']) == {'norm', 'qkv', 'out'}


def test_a_map_that_is_not_square_is_named_by_both_sides():
  args, given = inputs(size=(8, 4))
  net = TINY.clone(attention_resolutions=(8,), resample='plain', num_blocks=2)
  params = shapes(net, args, given)['params']
  assert 'down_8x4_attention_1' in params
  assert 'down_4x2_block_1' in params
  assert not [name for name in params if '_to_' in name]  # plain learns none


def test_every_level_has_one_block_more_on_the_way_up():
  net = TINY.clone(multipliers=(1, 2, 4), num_blocks=(1, 3, 2))
  params = shapes(net, *inputs())['params']
  for side, n in ((8, 1), (4, 3), (2, 2)):
    down = [name for name in params if name.startswith(f'down_{side}_block')]
    up = [name for name in params if name.startswith(f'up_{side}_block')]
    assert (len(down), len(up)) == (n, n + 1)


def test_a_fresh_network_predicts_zero():
  net = TINY.clone(
    multipliers=(1,), attention_resolutions=(), learned_variance=True
  )
  args, given = inputs()
  init = functools.partial(net.init, train=False)
  init = jax.jit(init, compiler_options=FAST)
  variables = init(jax.random.key(0, impl='rbg'), *args)
  for name, module in variables['params'].items():
    for last in ('conv2', 'out'):
      if last in module:
        assert not np.any(module[last]['kernel']), (name, last)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
    jnp.dtype('float32')
  }
  out = run(net, variables, args, given)
  assert out.shape == (2, 8, 8, 6)
  np.testing.assert_array_equal(out, 0)


def test_every_input_of_an_image_matters_to_that_image_alone():
  net = TINY.clone(
    num_classes=3, null_class=True, lowres_level=True, condition_on='logsnr'
  )
  args, given = inputs(
    label=jnp.array([0, 1]),
    lowres=normal(2, (2, 8, 8, 3)),
    lowres_level=jnp.array([0.1, 0.4]),
  )
  variables = randomised(net, args, given)
  apply = jax.jit(
    lambda *args, **given: net.apply(variables, *args, **given, train=False),
    compiler_options=FAST,
  )
  before = apply(*args, **given)
  (x, noise), first = args, jnp.array([1, 0])
  everything = {'x': x, 'noise': noise, **given}
  changes = {
    'x': x * jnp.array([0.5, 1]).reshape(2, 1, 1, 1),
    'noise': noise + first,
    # The null class is the row after the last.
    'label': jnp.array([3, 1]),
    'lowres': given['lowres'] * jnp.array([0.5, 1]).reshape(2, 1, 1, 1),
    'lowres_level': jnp.array([0.11, 0.4]),
  }
  assert changes.keys() == everything.keys()
  rows = variables['params']['label']['embedding']
  assert rows.shape == (4, 32)
  for name, value in changes.items():
    after = apply(**everything | {name: value})
    assert np.abs(after[0] - before[0]).max() > 1e-3, name
    np.testing.assert_allclose(after[1], before[1], atol=1e-5, err_msg=name)


def noise_embedding(net, noise):
  """-> [B, E], what the network makes of its second argument."""
  args = jnp.zeros((len(noise), 8, 8, 3)), jnp.asarray(noise, jnp.float32)
  variables = randomised(net, args, {})

  @functools.partial(jax.jit, compiler_options=FAST)
  def embed(*args):  # the rest of the network is dropped as unused
    _, captured = net.apply(
      variables,
      *args,
      train=False,
      capture_intermediates=lambda module, _: module.name == 'noise',
      mutable='intermediates',
    )
    return captured['intermediates']['noise']['__call__'][0]

  return embed(*args)


@pytest.mark.parametrize('condition_on', ['t', 'sqrt_alpha_bar', 'logsnr'])
def test_neighbouring_noise_levels_are_told_apart(condition_on):
  """Over the 1000 levels of the cosine schedule, without any scale given."""
  t = np.arange(1000)
  noise = t
  if condition_on != 't':
    alpha_bar = np.cos((((t + 1) / 1000 + 0.008) / 1.008) * np.pi / 2) ** 2
    noise = np.log(alpha_bar / (1 - alpha_bar))[:-1]
  emb = noise_embedding(TINY.clone(condition_on=condition_on), noise)
  steps = np.linalg.norm(emb[1:] - emb[:-1], axis=-1)
  strangers = np.linalg.norm(emb[::-1] - emb, axis=-1)
  assert steps.min() > 1e-4 * np.median(strangers)
  assert np.median(steps) > 0.1 * np.median(strangers)


def test_a_given_scale_multiplies_what_is_embedded():
  t = np.arange(10)
  np.testing.assert_allclose(
    noise_embedding(TINY.clone(condition_scale=0.25), 4 * t),
    noise_embedding(TINY, t),
    atol=1e-5,
  )


def test_a_patch_is_seen_as_a_pixel():
  """patch_size 2 is the same network on images of 12 channels."""
  args, given = inputs(size=(16, 16), lowres=normal(2, (2, 16, 16, 3)))
  net = TINY.clone(patch_size=2)
  variables = randomised(net, args, given)
  mine = run(net, variables, args, given)

  both = np.concatenate([args[0], given['lowres']], axis=-1)
  pixels = layers.space_to_depth(jnp.asarray(both), 2)  # [2, 8, 8, 24]
  plain = TINY.clone(out_channels=12)
  expected = run(
    plain, variables, (pixels[..., :12], args[1]), {'lowres': pixels[..., 12:]}
  )
  np.testing.assert_allclose(
    mine, layers.depth_to_space(expected, 2), atol=1e-5
  )
  assert plan(net, (16, 16))[0].size == (8, 8)


def test_bfloat16_stays_close_to_float32():
  net = TINY.clone(num_classes=3, learned_variance=True, skip_rescale=True)
  args, given = inputs(label=jnp.array([0, 2]))
  variables = randomised(net, args, given)
  full = run(net, variables, args, given)
  half = run(net.clone(dtype='bfloat16'), variables, args, given)
  assert full.dtype == half.dtype == jnp.float32
  assert full.std() > 0.1
  error = np.abs(half - full).max() / full.std()
  assert 1e-4 < error < 0.05, error  # measured: 0.02
  params = shapes(net.clone(dtype='bfloat16'), args, given)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype('float32')
  }


def test_all_but_the_last_convolution_compute_in_bfloat16():
  """A float32 input of one block would make every later skip float32."""
  args, given = inputs(lowres=normal(2, (2, 8, 8, 3)))
  for resample in ('biggan', 'conv'):
    net = TINY.clone(dtype='bfloat16', resample=resample)
    variables = shapes(net, args, given)
    apply = functools.partial(net.apply, train=False)
    jaxpr = jax.make_jaxpr(apply)(variables, *args, **given)
    dtypes = [
      eqn.outvars[0].aval.dtype.name
      for eqn in jaxpr.eqns
      if eqn.primitive.name in ('conv_general_dilated', 'concatenate')
      and eqn.outvars[0].aval.ndim == 4
    ]
    # The first joins the image and its lowres, before any layer.
    assert set(dtypes[1:-1]) == {'bfloat16'}
    assert dtypes[-1] == 'float32'


# --- Training


def test_every_attention_takes_the_form_of_the_field():
  """Blocks are computed in a loop, and nothing else of the network is."""
  args, given = inputs()

  def loops(form):
    net = TINY.clone(attention=form)
    apply = functools.partial(net.apply, **given, train=False)
    program = jax.make_jaxpr(apply)(shapes(net, args, given), *args)
    return str(program).count('scan[')

  assert (loops('auto'), loops('plain'), loops('blocked')) == (0, 0, 4)


def test_remat_recomputes_as_named_and_changes_no_gradient():
  args, given = inputs()
  probe = normal(7, (2, 8, 8, 3))

  def loss(net):
    def loss(variables, rng):
      rngs = {'dropout': rng}
      out = net.apply(variables, *args, **given, train=True, rngs=rngs)
      return jnp.vdot(out, probe)

    return loss

  def remade(net, variables):
    """-> how often the gradient convolves and multiplies matrices."""
    jaxpr = str(jax.make_jaxpr(jax.grad(loss(net)))(variables, rng))
    return jaxpr.count('conv_general_dilated['), jaxpr.count('dot_general[')

  rng = jax.random.key(3)
  # 10 blocks, 2 of which resample, and 4 attentions.
  whole = randomised(TINY, args, given)
  marks = str(jax.make_jaxpr(loss(TINY.clone(remat='full')))(whole, rng))
  assert marks.count('policy=<function nothing_saveable') == 14

  net = TINY.clone(multipliers=(1,), attention_resolutions=(), dropout=0.3)
  variables = randomised(net, args, given)
  none, some, full = (
    remade(net.clone(remat=remat), variables)
    for remat in ('none', 'convolutions', 'full')
  )
  # One attention, in the middle: its weights and what they sum.
  assert some[0] == none[0] and 0 < some[1] - none[1] <= 2
  assert full[0] > some[0] and full[1] > some[1]

  expected, *others = (
    jax.jit(jax.grad(loss(net.clone(remat=remat))), compiler_options=FAST)(
      variables, rng
    )
    for remat in ('none', 'convolutions', 'full')
  )
  for other in others:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
        a, b, atol=1e-5 * max(np.abs(b).max(), 1)
      ),
      other,
      expected,
    )


def test_dropout_acts_on_its_own_level_and_in_training_only():
  """Level 0 never drops, level 1 does; the middle has the last level's."""
  args, given = inputs()
  net = TINY.clone(dropout=(0.0, 0.5))
  variables = randomised(net, args, given)

  @functools.partial(jax.jit, static_argnames='train', compiler_options=FAST)
  def blocks(rng, train):
    _, captured = net.apply(
      variables,
      *args,
      **given,
      train=train,
      rngs={'dropout': rng},
      capture_intermediates=lambda module, _: '_block_' in (module.name or ''),
      mutable='intermediates',
    )
    return {
      name: captured['intermediates'][name]['__call__'][0]
      for name in ('down_8_block_0', 'down_4_block_0', 'mid_block_0')
    }

  still = blocks(jax.random.key(1), train=False)
  one = blocks(jax.random.key(1), train=True)
  two = blocks(jax.random.key(2), train=True)
  for name in still:
    drops = name != 'down_8_block_0'
    assert np.allclose(one[name], still[name], atol=1e-4) != drops, name
    assert np.allclose(one[name], two[name], atol=1e-4) != drops, name
  # The way up follows the same plan.
  assert [level.dropout for level in plan(net, (8, 8))] == [0.0, 0.5]


# --- Errors


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(resample='bigan'), "resample is 'bigan'; known are biggan, conv"),
    (dict(embedding='add'), "embedding is 'add'; known are film, additive"),
    (dict(condition_on='snr'), "condition_on is 'snr'; known are t, sqrt_al"),
    (dict(dtype='float16'), "dtype is 'float16'; known are float32, bfloat16"),
    (
      dict(num_heads=3),
      'num_heads is 3, which does not divide the 16 channels',
    ),
    (
      dict(num_heads=1, head_features=12),
      'head_features is 12, which does not divide the 16 channels',
    ),
    (dict(head_features=8), 'num_heads is 2 and head_features is 8; give one'),
    (dict(dropout=(0.1, 0.2, 0.3)), 'dropout has 3 values for 2 levels'),
    (dict(num_blocks=(1,)), 'num_blocks has 1 values for 2 levels'),
    (dict(num_blocks=(1, 0)), 'every level needs one block or more'),
    (dict(num_blocks=2**31), 'num_blocks is 2147483648; .* up to 1000'),
    (dict(num_heads=0), 'num_heads is 0; it must be from 1 to'),
    (dict(features=10**12), 'features is 1000000000000; it must be from 1'),
    (dict(dropout=1.0), r'dropout is 1\.0; a rate must be at least 0'),
    (dict(dropout=(0.1, -0.1)), r'dropout is \(0\.1, -0\.1\); a rate must'),
    (dict(norm_eps=0.0), r'norm_eps is 0\.0; it must be above 0'),
    (dict(multipliers=()), 'multipliers is empty'),
    (dict(multipliers=(1, 0)), r'multipliers is \(1, 0\); every level'),
    (dict(null_class=True), 'null_class is True, but num_classes is None'),
    (
      dict(attention_resolutions=(4, 16)),
      r'has \[16\], but the feature maps are \[8, 4\]',
    ),
    (dict(multipliers=(1, 2, 2, 2, 2)), 'both sides must be multiples of 16'),
    (
      dict(patch_size=3),
      '8x8 pixels; with 2 levels and patch_size 3 both sides',
    ),
    (dict(out_channels=1), 'Images have 3 channels; this network has 1'),
    (dict(num_classes=5), 'label is needed, but was not given'),
    (dict(lowres_level=True), 'lowres_level is needed, but was not given'),
  ],
)
def test_a_field_that_does_not_fit_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    shapes(TINY.clone(**fields), *inputs())


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(x=np.zeros((8, 8, 3))), r'shape \(8, 8, 3\); expected \[B, H, W, C'),
    (
      dict(x=np.zeros((2, 8, 7, 3)), lowres=np.zeros((2, 8, 7, 3))),
      '7x8 pixels; with 2 levels',
    ),
    (dict(x=np.zeros((2, 8, 8, 4))), 'Images have 4 channels'),
    (dict(noise=np.zeros(3)), r'noise has shape \(3,\); expected one per imag'),
    (dict(noise=np.zeros((2, 1))), r'noise has shape \(2, 1\)'),
    (
      dict(label=np.zeros(2, int)),
      'label is given, but not used: the field nu',
    ),
    (dict(lowres=None), 'lowres has 0 channels; this network was initialised'),
    (dict(lowres=np.zeros((2, 8, 8, 1))), 'lowres has 1 channels; this networ'),
    (dict(lowres=np.zeros((2, 4, 4, 3))), r'lowres has shape \(2, 4, 4, 3\)'),
    (dict(lowres_level=np.zeros(2)), 'lowres_level is given, but not used'),
    (
      dict(x=np.zeros((2, 16, 16, 3)), lowres=np.zeros((2, 16, 16, 3))),
      'Images of 16x16 .* of 16; this network was initialised with one of 8',
    ),
  ],
)
def test_an_input_that_does_not_fit_is_named(change, message):
  """Of a network that was made with lowres, at 8 px."""
  args, given = inputs(lowres=np.zeros((2, 8, 8, 3)))
  net = TINY.clone(attention_resolutions=())
  variables = shapes(net, args, given)
  everything = {'x': args[0], 'noise': args[1], **given, **change}
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      functools.partial(net.apply, train=False), variables, **everything
    )


def test_a_network_without_lowres_refuses_it():
  args, given = inputs()
  variables = shapes(TINY, args, given)
  apply = functools.partial(TINY.apply, train=False)
  with pytest.raises(ValueError, match='3 channels.* 0, without lowres'):
    jax.eval_shape(apply, variables, *args, lowres=np.zeros((2, 8, 8, 3)))
