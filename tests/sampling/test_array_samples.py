"""Samples of any channels: one array, in the units of the training data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.sampling import array_samples, cascade
from cdm.sampling.drawing_stage import Stage


def stage(**fields):
  """-> a base model whose image is its own noise, shrunk."""

  def sample(params, *, keys, **given):
    return 0.2 * jax.vmap(lambda key: jax.random.normal(key, (8, 8, 2)))(keys)

  params = {'unused': jnp.zeros(())}
  return Stage('base', 8, sample, params, channels=2, **fields)


def draw(out, *stages, num=5, batch_size=2, seed=0, **more):
  manifest = {'config': 'c', 'seed': seed, 'labels': None, 'stages': []}
  array_samples.draw_to_folder(
    out, stages, manifest=manifest, num=num, batch_size=batch_size, **more
  )
  return np.load(out / 'samples.npy')


def test_samples_are_in_the_units_of_the_training(tmp_path):
  unit = draw(tmp_path / 'unit', stage(is_array=True))
  values = draw(tmp_path / 'values', stage(is_array=True, values=(10.0, 30.0)))
  levels = draw(tmp_path / 'levels', stage())
  assert unit.shape == (5, 8, 8, 2) and unit.dtype == np.float32
  assert len(np.unique(unit)) > 256  # not rounded to levels
  np.testing.assert_allclose(values, 20 + 10 * unit, rtol=1e-5)
  assert levels.dtype == np.uint8
  np.testing.assert_allclose(levels, (unit + 1) * 127.5, atol=0.51)


def test_an_image_depends_on_its_number_and_the_seed_alone(tmp_path):
  base = stage(is_array=True)
  first = draw(tmp_path / 'a', base)
  np.testing.assert_array_equal(
    draw(tmp_path / 'b', base, num=3, batch_size=3), first[:3]
  )
  written = (tmp_path / 'a' / 'samples.npy').stat().st_mtime_ns
  draw(tmp_path / 'a', base)  # is there
  assert (tmp_path / 'a' / 'samples.npy').stat().st_mtime_ns == written
  with pytest.raises(ValueError, match='holds images of another manifest'):
    draw(tmp_path / 'a', base, seed=1)
  assert not (draw(tmp_path / 'a', base, seed=1, overwrite=True) == first).all()


def test_what_takes_rgb_images_refuses_such_a_stage():
  with pytest.raises(ValueError, match=r'arrays of 2 channel\(s\), and RGB'):
    cascade.sampler([stage(is_array=True)])
