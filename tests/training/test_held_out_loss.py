"""The loss of held-out images: always the same images, levels and noise."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support import tiny_run

from cdm.config import evaluated_images, loader
from cdm.methods import diffusion
from cdm.ops import keys
from cdm.training import eval_section, held_out_loss, program, step

IMAGES, SMALL, DAMAGED = 41, 7, 23  # two of the 41 cannot be used
BATCH = 16  # so that the third batch is not full


def loss(params, batch, *, key, train):
  """Denoises at the level of batch['u'], with the noise of batch['example']."""
  assert train is False
  logsnr = 16 * batch['u'] - 8
  x_0 = batch['image'].astype(jnp.float32) / 127.5 - 1
  eps = keys.normals(keys.example_keys(key, batch['example']), x_0.shape[1:])
  x_t = x_0 + jnp.exp(-logsnr / 2)[:, None, None, None] * eps
  losses = ((tiny_run.network(params, x_t) - x_0) ** 2).mean((1, 2, 3))
  return losses, {
    'logsnr': logsnr,
    'root': jnp.sqrt(losses),
    'mean': losses.mean(),
  }


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp('held_out')
  rng = np.random.default_rng(0)
  for n in range(IMAGES):
    side = 3 if n == SMALL else 4
    pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
    path = folder / f'{n:02d}.png'
    Image.fromarray(pixels).save(path)
    if n == DAMAGED:
      path.write_bytes(path.read_bytes()[:40])
  return loader.ConfigDict(
    dict(
      seed=0,
      method=dict(kind='diffusion'),
      eval_data=dict(kind='folder', path=str(folder), class_names=()),
      pipeline=dict(
        image_size=4,
        crop='center',
        filter='area',
        min_side=4,
        max_skip_fraction=0.1,
      ),
    )
  )


def params(seed=0):
  return tiny_run.init(jax.random.key(seed))


def evaluation(c, *, devices=8, accumulation=1, num_classes=None):
  """-> the function that evaluates, as a run of these devices has it."""
  mesh = tiny_run.mesh(devices)
  state = tiny_run.abstract_state(
    tiny_run.init, tiny_run.adam(), key=jax.random.key(0), mesh=mesh
  )
  assembled = types.SimpleNamespace(
    built=types.SimpleNamespace(
      method=types.SimpleNamespace(loss=loss, draw=diffusion.draw_batch),
      net=types.SimpleNamespace(num_classes=num_classes),
      boxes=lambda params: lambda tree: tree,  # nothing is split
    ),
    schedule=types.SimpleNamespace(batch_size=BATCH, accumulation=accumulation),
    mesh=mesh,
    state=state,
    evaluation=eval_section.Evaluation(every_steps=1, batches=3),
  )
  run = held_out_loss.make_held_out_loss(c, assembled)
  place = jax.tree.map(lambda leaf: leaf.sharding, state.params)

  def evaluate(raw, ema, stop_asked=lambda: False):
    return run(*(jax.device_put(x, place) for x in (raw, ema)), stop_asked)

  return evaluate


@pytest.fixture(scope='module')
def evaluate(config):
  return evaluation(config)


def alone(c, params):
  """-> [(loss, log-SNR)] of every image that counts, computed one by one."""
  _, read = evaluated_images.open_up_to(c, IMAGES)
  images, _, there = read(range(IMAGES))
  found = []
  for n in np.flatnonzero(there):
    key = jax.random.key(program.seed_of(c, program.HELD_OUT_SEED))
    draw_key, key = jax.random.split(jax.random.fold_in(key, n // BATCH))
    u = diffusion.draw_batch(draw_key, BATCH)['u']
    batch = {
      'image': images[n : n + 1],
      'u': u[n % BATCH][None],
      'example': jnp.array([n % BATCH]),
    }
    losses, scalars = loss(params, batch, key=key, train=False)
    found.append((float(losses[0]), float(scalars['logsnr'][0])))
  return found


def test_it_is_the_mean_over_the_images_that_count(config, evaluate):
  """Neither padding nor a small or damaged image is part of it."""
  raw, ema = params(0), params(1)
  found = evaluate(raw, ema)
  for prefix, tree in (('', raw), ('ema_', ema)):
    one_by_one = alone(config, tree)
    assert len(one_by_one) == IMAGES - 2
    losses = np.array([value for value, _ in one_by_one])
    np.testing.assert_allclose(
      found[f'held_out/{prefix}loss'], losses.mean(), rtol=1e-6
    )
    # So is a scalar of each example; one of a batch is no mean over images.
    np.testing.assert_allclose(
      found[f'held_out/{prefix}root'], np.sqrt(losses).mean(), rtol=1e-6
    )
    assert f'held_out/{prefix}mean' not in found
    bins = np.digitize([level for _, level in one_by_one], step.LEVEL_EDGES)
    for i, name in enumerate(step.LEVEL_NAMES):
      np.testing.assert_allclose(
        found[f'held_out/{prefix}loss_at_logsnr/{name}'],
        losses[bins == i].mean(),
        rtol=1e-6,
      )


def test_the_same_parameters_give_the_same_number_bit_for_bit(config, evaluate):
  """Also in a run that is started again, which builds it anew."""
  first = evaluate(params(), params(1))
  assert evaluate(params(), params(1)) == first
  assert evaluation(config)(params(), params(1)) == first
  assert first['held_out/loss'] != first['held_out/ema_loss']


@pytest.mark.parametrize('how', [dict(devices=1), dict(accumulation=2)])
def test_devices_and_microbatches_change_the_rounding_alone(
  config, evaluate, how
):
  other = evaluation(config, **how)(params(), params(1))
  assert other == pytest.approx(evaluate(params(), params(1)), rel=1e-5)


def test_a_stop_is_looked_for_before_every_batch(evaluate):
  asked = []

  def stop_asked():
    asked.append(True)
    return len(asked) == 2

  assert evaluate(params(), params(), stop_asked) is None
  assert len(asked) == 2


def test_more_damaged_images_than_training_allows_are_refused(config):
  strict = loader.ConfigDict(config.to_dict())
  strict.pipeline.max_skip_fraction = 0.01
  with pytest.raises(
    ValueError, match=r'config.eval_data: 1 of 48 .* The first: .*23\.png'
  ):
    evaluation(strict)


def test_without_evaluation_data_the_error_says_how_to_train(config):
  without = loader.ConfigDict(config.to_dict())
  without.eval_data.path = 'nowhere'
  with pytest.raises(
    ValueError, match=r"'nowhere' is not .* --config.eval.every_steps=0.$"
  ):
    evaluation(without)


def test_a_label_that_the_network_does_not_know_is_refused(config):
  labelled = loader.ConfigDict(config.to_dict())
  labelled.eval_data = dict(
    kind='synthetic', image_size=4, num_images=9, num_classes=4, seed=0
  )
  with pytest.raises(ValueError, match='the evaluation data has labels from 0'):
    evaluation(labelled, num_classes=3)


def test_fewer_images_than_asked_for_are_all_there_is(config):
  count, read = evaluated_images.open_up_to(config, 100)
  assert count == IMAGES
  there = read(range(30, 50))[2]
  assert there.tolist() == [n < IMAGES for n in range(30, 50)]
