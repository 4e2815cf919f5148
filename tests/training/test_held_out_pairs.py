"""Held-out images that a stage draws in training, beside bicubic."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run

from cdm.config import evaluated_images, loader, stage
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import keys, pair_scores, resize
from cdm.training import eval_section, held_out_pairs

C = loader.ConfigDict(
  dict(
    seed=0,
    eval_data=dict(
      kind='synthetic', image_size=16, num_images=30, num_classes=4, seed=0
    ),
    pipeline=dict(
      image_size=16,
      crop='center',
      filter='area',
      min_side=0,
      max_skip_fraction=0.0,
    ),
  )
)
LOWRES = Lowres(size=8, downsample='area', upsample='bicubic', augment='none')


def sample(params, *, keys, label, lowres):
  """Doubles every pixel, and adds noise of the image's own key."""
  assert label.shape == keys.shape
  x = resize.resize(lowres, 16, method='nearest')
  return x + params['noise'] * noise(keys)


def noise(image_keys):
  return keys.normals(image_keys, (16, 16, 3))


def evaluation(monkeypatch, *, devices=8, pairs=11):
  asked = []

  def build(c, sampler_steps):
    asked.append(sampler_steps)
    return types.SimpleNamespace(sample_in_training=sample)

  monkeypatch.setattr(stage, 'stage', build)
  mesh = tiny_run.mesh(devices)
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  assembled = types.SimpleNamespace(
    built=types.SimpleNamespace(
      lowres=LOWRES,
      net=types.SimpleNamespace(num_classes=4),
      is_array=False,
      boxes=lambda params: lambda tree: tree,  # nothing is split
    ),
    schedule=types.SimpleNamespace(batch_size=8, accumulation=1),
    mesh=mesh,
    state=types.SimpleNamespace(
      ema_params={
        'noise': jax.ShapeDtypeStruct((), jnp.float32, sharding=place)
      }
    ),
    evaluation=eval_section.Evaluation(num_pairs=pairs, sampler_steps=3),
  )
  run = held_out_pairs.make_held_out_pairs(C, assembled)
  assert asked == [3]

  def evaluate(level, stop_asked=lambda: False):
    ema = {'noise': jax.device_put(np.float32(level), place)}
    return run(None, ema, stop_asked)

  return evaluate


def test_the_scores_are_those_of_the_images_one_by_one(monkeypatch):
  """Eleven images, drawn eight at a time."""
  found = evaluation(monkeypatch)(0.0)
  images = evaluated_images.open_up_to(C, 11).read(range(11))[0]
  low = np.asarray(resize.resize_uint8(images, 8, method='area'))
  drawn = {
    '': low.repeat(2, axis=1).repeat(2, axis=2),
    '_bicubic': np.asarray(resize.resize_uint8(low, 16)),
  }
  for suffix, x in drawn.items():
    expected = {
      'psnr': pair_scores.psnr(x, images),
      'ssim': pair_scores.ssim(x, images),
      'consistency': pair_scores.consistency(x, low, method='area'),
    }
    for name, values in expected.items():
      assert found.pop(f'held_out/{name}{suffix}') == pytest.approx(
        values.mean(), rel=1e-6, abs=1e-12
      )
  assert not found


def test_the_noise_of_an_image_is_its_own_and_always_the_same(monkeypatch):
  """On one device as on eight, which draw in other batches."""
  evaluate = evaluation(monkeypatch)
  first = evaluate(0.2)
  assert evaluate(0.2) == first
  assert first['held_out/psnr'] < evaluate(0.1)['held_out/psnr']
  one = evaluation(monkeypatch, devices=1)(0.2)
  assert one == pytest.approx(first, rel=1e-6)


def test_a_stop_is_looked_for_before_every_batch(monkeypatch):
  answers = iter([False, True])
  assert evaluation(monkeypatch)(0.1, lambda: next(answers)) is None
  assert next(answers, None) is None


def test_fewer_images_than_pairs_are_scored_once_each(monkeypatch):
  found = evaluation(monkeypatch, pairs=1000)(0.1)
  all_of_them = evaluation(monkeypatch, pairs=30)(0.1)
  assert found == all_of_them
