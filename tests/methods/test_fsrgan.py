"""FSRNet and FSRGAN: their losses, and two players in one sharded step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run

from cdm.distributed import device_mesh, parameter_gather
from cdm.methods import fsrgan, lowres_conditioning
from cdm.methods.fsrgan import FsrganOptions
from cdm.methods.lowres_conditioning import Lowres
from cdm.models.discriminator import Discriminator
from cdm.models.fsrnet import FsrNet
from cdm.ops import pixels
from cdm.training import state, step

SIZE, BATCH = 8, 8
NET = dict(
  features=4,
  prior_features=4,
  coarse_blocks=0,  # compiling is what costs
  encoder_blocks=1,
  decoder_blocks=0,
  hourglasses=1,
  hourglass_depth=0,
  norm_groups=2,
)
LOWRES = Lowres(size=4)


def method(
  adversarial=0.3, features=None, lowres=LOWRES, r1_weight=0.5, num_maps=0
):
  return fsrgan.fsrgan(
    FsrNet(**NET, num_maps=num_maps),
    Discriminator(features=4) if adversarial else None,
    FsrganOptions(adversarial_weight=adversarial, r1_weight=r1_weight),
    image_size=SIZE,
    lowres=lowres,
    features=features,
  )


def batch_of(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
    'label': np.zeros(BATCH, np.int32),
  }


def moved(params):
  """-> parameters off the zeros that the networks begin with."""
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return tree.unflatten(
    x + 0.1 * jax.random.normal(key, x.shape)
    for x, key in zip(leaves, keys, strict=True)
  )


@functools.cache
def params_of(adversarial=True, num_maps=0):
  made = method(0.3 if adversarial else 0.0, num_maps=num_maps)
  return moved(jax.jit(made.init)(jax.random.key(0)))


def loss_of(made, params, batch, train=True):
  return jax.jit(functools.partial(made.loss, train=train))(
    params, batch, key=jax.random.key(3)
  )


def test_fsrnet_scores_the_coarse_and_the_fine_image_alike():
  """A new one returns the enlarged image twice: 1/2 and 1/2 of its error."""
  made, batch = method(adversarial=0.0), batch_of()
  params = jax.jit(made.init)(jax.random.key(0))
  assert set(params) == {'generator'}
  value, scalars = loss_of(made, params, batch)
  y = pixels.to_float(batch['image'])
  z_0 = lowres_conditioning.downsample(y, LOWRES)
  x = lowres_conditioning.upsample(z_0, SIZE, LOWRES)
  np.testing.assert_allclose(
    value, ((y - x) ** 2).mean(axis=(1, 2, 3)), rtol=1e-5
  )
  np.testing.assert_allclose(scalars['coarse_loss'], value / 2, rtol=1e-5)
  assert set(scalars) == {'coarse_loss', 'fine_loss'}


def test_the_combined_gradient_is_that_of_each_player_apart():
  """The other player, and the images shown to it, are constants there."""
  made, batch, params = method(), batch_of(), params_of()
  net, other = FsrNet(**NET), Discriminator(features=4)
  y = pixels.to_float(batch['image'])
  z_0 = lowres_conditioning.downsample(y, LOWRES)
  x = lowres_conditioning.upsample(z_0, SIZE, LOWRES)

  def together(params):
    return made.loss(params, batch, key=jax.random.key(3), train=True)[0].mean()

  def of_generator(g):
    output = net.apply({'params': g}, x)
    logit = other.apply({'params': params['discriminator']}, output.image, x)
    error = ((y - output.coarse) ** 2 + (y - output.image) ** 2).mean() / 2
    return error - 0.3 * jax.nn.log_sigmoid(logit).mean()

  fake = net.apply({'params': params['generator']}, x).image

  def of_discriminator(d):
    def logit(image):
      return other.apply({'params': d}, image, x)

    slope = jax.grad(lambda image: logit(image).sum())(y)
    penalty = 0.25 * (slope**2).sum(axis=(1, 2, 3))
    told = jax.nn.log_sigmoid(logit(y)) + jax.nn.log_sigmoid(-logit(fake))
    return (penalty - told).mean()

  found = jax.jit(jax.grad(together))(params)
  for player, loss in (
    ('generator', of_generator),
    ('discriminator', of_discriminator),
  ):
    expected = jax.jit(jax.grad(loss))(params[player])
    tiny_run.assert_same(found[player], expected, rtol=1e-3, atol=1e-6)


def test_the_perceptual_loss_is_weighed_and_reported():
  plain = method(adversarial=0.0)
  made = method(adversarial=0.0, features=lambda image: image[:, ::2, ::2] * 3)
  params, batch = params_of(adversarial=False), batch_of()
  value, scalars = loss_of(made, params, batch)
  without, _ = loss_of(plain, params, batch)
  np.testing.assert_allclose(
    value - without, 0.1 * scalars['perceptual_loss'], rtol=1e-3
  )
  assert (scalars['perceptual_loss'] > 0).all()


def test_maps_of_faces_are_learnt_where_a_batch_has_them():
  made, params = method(0.0, num_maps=2), params_of(False, 2)
  maps = np.ones((BATCH, SIZE // 2, SIZE // 2, 2), np.float32)
  without, scalars = loss_of(made, params, batch_of())
  assert 'prior_loss' not in scalars
  value, scalars = loss_of(made, params, batch_of() | {'prior': maps})
  np.testing.assert_allclose(
    value - without, scalars['prior_loss'], rtol=1e-4, atol=1e-6
  )
  assert (scalars['prior_loss'] > 0).all()
  # As a pipeline gives them.
  stored = np.full(maps.shape, 255, np.uint8)
  again, _ = loss_of(made, params, batch_of() | {'prior': stored})
  np.testing.assert_allclose(again, value, rtol=1e-6)


def test_an_image_is_clipped_and_has_nothing_random():
  made, params = method(), params_of()
  low = jnp.linspace(-1, 1, 2 * 48).reshape(2, 4, 4, 3)
  far = jax.tree.map(lambda x: 3 * x, params)
  draw = jax.jit(made.sample)
  one = draw(far, keys=jax.random.split(jax.random.key(0), 2), lowres=low)
  two = draw(far, keys=jax.random.split(jax.random.key(1), 2), lowres=low)
  np.testing.assert_array_equal(one, two)
  assert float(jnp.abs(one).max()) == 1.0


def test_noise_that_the_network_is_not_told_of_is_refused():
  with pytest.raises(ValueError, match="augment is 'noise'.*none or blur"):
    method(lowres=Lowres(size=4, augment='noise'))


@pytest.mark.parametrize(
  'name', ['adversarial_weight', 'r1_weight', 'perceptual_weight']
)
def test_a_weight_below_zero_is_refused(name):
  with pytest.raises(ValueError, match=f'method.{name} is -1.0; it must be'):
    fsrgan.check(FsrganOptions(**{name: -1.0}), LOWRES)


# --- Two players in one step

BLURRED = Lowres(size=4, augment='blur', blur_fraction=0.5)


def run(shape, *, rules=(), accumulation=1, layerwise=False):
  """-> (state after two steps, rows of scalars) on a mesh of this shape."""
  made, mesh = method(lowres=BLURRED), tiny_run.mesh(*shape)
  tx = tiny_run.adam(learning_rate=1e-3, warmup_steps=0, eps=1e-3)
  now = tiny_run.init_state(
    made.init, tx, key=jax.random.key(0), mesh=mesh, rules=rules
  )
  loss = made.loss
  if layerwise:
    loss = parameter_gather.LayerwiseLoss(
      made.loss, FsrNet(**NET).parameter_dtype, is_sum=True
    )
  update = step.make_step(
    loss,
    tx,
    mesh=mesh,
    ema_decay=0.9,
    accumulation=accumulation,
    shardings=state.shardings_of(now),
    draw=made.draw,
  )
  rows = []
  for seed in (0, 1):
    placed = device_mesh.shard_batch(batch_of(seed), mesh)
    now, scalars = update(now, placed)
    rows.append(jax.tree.map(float, scalars))
  return now, rows


@functools.cache
def on_one():
  return run((1, 1, 1))


@pytest.mark.parametrize(
  ('shape', 'more'),
  [
    ((2, 1, 1), {'accumulation': 2}),
    (
      (2, 2, 2),
      {
        'rules': (('conv.*kernel$', (None, None, None, 'fsdp')),),
        'layerwise': True,
      },
    ),
  ],
)
def test_the_mesh_changes_the_speed_not_the_game(shape, more):
  """Both players and their averages, and what the log line says of them."""
  one, expected = on_one()
  other, rows = run(shape, **more)
  tiny_run.assert_same(other.params, one.params, rtol=1e-3, atol=2e-5)
  tiny_run.assert_same(other.ema_params, one.ema_params, rtol=1e-3, atol=2e-5)
  for mine, theirs in zip(rows, expected, strict=True):
    assert mine == pytest.approx(theirs, rel=2e-3, abs=1e-5)


def test_both_players_move_in_one_step_and_both_are_in_the_state():
  now, (row, _) = on_one()
  made = method(lowres=BLURRED)
  before = tiny_run.init_state(
    made.init,
    tiny_run.adam(learning_rate=1e-3, warmup_steps=0, eps=1e-3),
    key=jax.random.key(0),
    mesh=tiny_run.mesh(1, 1, 1),
  )
  for player in ('generator', 'discriminator'):
    for tree in (now.params, now.ema_params):
      pairs = zip(
        *map(jax.tree.leaves, (tree[player], before.params[player])),
        strict=True,
      )
      assert any((a != b).any() for a, b in pairs)
  for name in (
    *('generator_loss', 'discriminator_loss', 'adversarial_loss'),
    *('logit_original', 'logit_generated', 'discriminator_accuracy'),
    *('spread_generated', 'spread_original', 'r1_penalty'),
  ):
    assert np.isfinite(row[name]), name
  assert row['loss'] == pytest.approx(
    row['generator_loss'] + row['discriminator_loss'], rel=1e-5
  )
