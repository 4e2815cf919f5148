"""The cascade: what passes between stages, and what an image depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.methods import diffusion, lowres_conditioning
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import keys as ops_keys
from cdm.ops import pixels, resize
from cdm.sampling import cascade
from cdm.sampling.cascade import Stage


def noise_like(keys, size):
  return jax.vmap(lambda key: jax.random.normal(key, (size, size, 3)))(keys)


def base(size=4, **kw):
  """A base model that draws tanh of white noise, or stops early at z_s."""

  def sample(params, *, keys, label=None, stop_logsnr=None, **_):
    x = jnp.tanh(params * noise_like(keys, size))
    if label is not None:
      x = x * 0 + (label[:, None, None, None] / 10.0 - 1.0)
    if stop_logsnr is not None:
      x = x * 0 + stop_logsnr
    return x

  return Stage(
    name='base', image_size=size, sample=sample, params=jnp.float32(0.5), **kw
  )


def sr(size=8, low=4, augment='none', name='sr', **kw):
  """A stage that magnifies its input, so that its input can be seen."""

  def sample(params, *, keys, lowres, label=None, level=None, **_):
    return resize.resize(lowres, size, method='nearest') * params

  return Stage(
    name=name,
    image_size=size,
    sample=sample,
    params=jnp.float32(1.0),
    lowres=Lowres(size=low, augment=augment),
    **kw,
  )


def draw(stages, indices, seed=0, label=None):
  drawn = cascade.sampler(stages)(seed, indices, label)
  return [np.asarray(images) for images in drawn]


def test_image_n_depends_on_seed_and_n_only():
  stages = [base(), sr(augment='noise', level=0.3)]
  whole = draw(stages, np.arange(6))
  part = draw(stages, np.array([5, 2]))
  for all_images, some in zip(whole, part, strict=True):
    np.testing.assert_array_equal(some, all_images[[5, 2]])


def test_another_seed_gives_other_images():
  a, b = (draw([base()], np.arange(3), seed=s)[0] for s in (0, 1))
  assert (a != b).mean() > 0.9


def test_stages_never_share_noise():
  """Two base-like stages with one key would draw the same noise."""
  keys = ops_keys.image_keys(0, np.arange(2))
  first, second = ops_keys.stage_keys(keys, 0), ops_keys.stage_keys(keys, 1)
  a, b = (np.asarray(noise_like(k, 8)).ravel() for k in (first, second))
  assert abs(np.corrcoef(a, b)[0, 1]) < 0.2


def test_the_second_stage_draws_with_the_keys_of_the_second():
  def sample(params, *, keys, **_):
    return 0.2 * noise_like(keys, 8)

  indices = np.arange(2)
  x = draw([base(), sr()._replace(sample=sample)], indices)[1]
  keys = ops_keys.stage_keys(ops_keys.image_keys(0, indices), 1)
  np.testing.assert_array_equal(x, pixels.to_uint8(0.2 * noise_like(keys, 8)))


@pytest.mark.parametrize('use', [diffusion.X_T, diffusion.STEP_NOISE])
def test_the_noise_of_augmentation_is_none_of_the_task(use):
  keys = ops_keys.image_keys(0, np.arange(2))
  z = cascade.super_resolve(
    sr(size=8, low=8, augment='noise', level=1.0),
    jnp.float32(1.0),
    jnp.zeros((2, 8, 8, 3)),
    keys=keys,
    label=None,
  )
  other = noise_like(ops_keys.stage_keys(keys, use), 8)  # folded in alike
  assert abs(np.corrcoef(np.ravel(z), np.ravel(other))[0, 1]) < 0.2


def test_what_a_stage_is_given_went_through_uint8():
  pictures = draw([base(), sr()], np.arange(3))
  low, high = pictures
  np.testing.assert_array_equal(high, low.repeat(2, axis=1).repeat(2, axis=2))


def test_non_truncated_noise_has_the_variance_of_its_level():
  """q(z_s | z_0) with z_0 = 0: standard deviation sigma_s, [CDM] alg. 2."""
  level = 0.3
  stage = sr(size=64, low=64, augment='noise', level=level)
  n = 4
  x = cascade.super_resolve(
    stage,
    jnp.float32(1.0),
    jnp.zeros((n, 64, 64, 3)),
    keys=ops_keys.image_keys(3, np.arange(n)),
    label=None,
  )
  # alpha_bar of the cosine schedule in closed form, [IDDPM] eq. 17.
  alpha_bar = (
    np.cos((level + 0.008) / 1.008 * np.pi / 2)
    / np.cos(0.008 / 1.008 * np.pi / 2)
  ) ** 2
  assert float(x.std()) == pytest.approx(np.sqrt(1 - alpha_bar), rel=0.01)


def test_a_truncated_stage_is_stopped_at_the_level_of_its_successor():
  seen = {}

  def sample(params, *, keys, label=None, stop_logsnr=None, **_):
    seen['stop'] = stop_logsnr
    return noise_like(keys, 4) * 3.0

  first = base()._replace(sample=sample)
  # A quarter of its input, so that what is beyond -1..1 can be seen.
  second = sr(augment='noise', level=0.25, truncated=True)
  second = second._replace(params=jnp.float32(0.25))
  _, high = draw([first, second], np.arange(2))
  expected = lowres_conditioning.level_logsnr(np.float64(0.25), second.lowres)
  assert seen['stop'] == pytest.approx(float(expected))
  # z_s was neither clipped nor noised again on its way.
  keys = ops_keys.stage_keys(ops_keys.image_keys(0, np.arange(2)), 0)
  z_s = np.asarray(noise_like(keys, 4)) * 3.0
  np.testing.assert_array_equal(
    high, np.asarray(pixels.to_uint8(z_s / 4)).repeat(2, 1).repeat(2, 2)
  )


def test_a_stage_in_the_middle_is_stopped_as_well():
  seen = {}

  def sample(params, *, lowres, stop_logsnr=None, **_):
    seen['stop'] = stop_logsnr
    return resize.resize(lowres, 8, method='nearest')

  third = sr(16, 8, augment='noise', level=0.25, truncated=True, name='third')
  draw([base(), sr()._replace(sample=sample), third], np.arange(1))
  expected = lowres_conditioning.level_logsnr(np.float64(0.25), third.lowres)
  assert seen['stop'] == pytest.approx(float(expected))


@pytest.mark.parametrize(('num_levels', 'told'), [(None, 0.33), (10, 0.3)])
def test_a_stage_is_told_the_level_it_was_trained_on(num_levels, told):
  def sample(params, *, lowres, level, **_):
    return level

  stage = sr(augment='noise', level=0.33)._replace(
    sample=sample,
    lowres=Lowres(4, augment='noise', num_levels=num_levels),
  )
  level = cascade.super_resolve(
    stage,
    jnp.float32(1.0),
    jnp.zeros((2, 4, 4, 3)),
    keys=ops_keys.image_keys(0, np.arange(2)),
    label=None,
  )
  np.testing.assert_allclose(level, [told, told], rtol=1e-6)


def test_labels_reach_only_the_stages_that_take_them():
  label = jnp.array([0, 10, 20])
  x = draw([base(num_classes=21), sr()], np.arange(3), label=label)[0]
  assert x[:, 0, 0, 0].tolist() == [0, 128, 255]
  assert len(np.unique(draw([base()], np.arange(3), label=label)[0])) > 3


@pytest.mark.parametrize('num_classes', [None, 21])
def test_so_it_is_for_super_resolution(num_classes):
  def sample(params, *, lowres, label=None, **_):
    if label is None:
      label = jnp.full(lowres.shape[0], 20)
    return jnp.ones((1, 8, 8, 3)) * (label[:, None, None, None] / 10.0 - 1.0)

  stage = sr(num_classes=num_classes)._replace(sample=sample)
  x = draw([base(), stage], np.arange(2), label=jnp.array([0, 10]))[1]
  expected = [255, 255] if num_classes is None else [0, 128]
  assert x[:, 0, 0, 0].tolist() == expected


@pytest.mark.parametrize(
  ('stages', 'message'),
  [
    ([sr()], r"'sr' is the first of the cascade but needs a 4-px input"),
    ([base(), base()], r"follows 'base' but takes no low-res input"),
    (
      [base(64), sr(64, 32)],
      r"'base' makes 64-px images but stage 'sr' takes 32-px input",
    ),
    (
      [base(num_classes=10), sr(num_classes=12)],
      r'disagree about the number of classes \(base: 10, sr: 12\)',
    ),
    ([base(), sr(level=0.2)], r"was trained with augment='none'; use level 0"),
    ([base(), sr(augment='noise', level=1.2)], r'level 1\.2; a level is'),
    (
      [
        base(residual=True),
        sr(augment='noise', level=0.2, truncated=True),
      ],
      r"'base' diffuses a residual",
    ),
    (
      [
        base(),
        sr(augment='noise', level=0.2, truncated=True)._replace(
          start_level=0.5
        ),
      ],
      'start at its enlarged low-res image.*truncated=False',
    ),
    (
      [base(stops=False), sr(augment='noise', level=0.2, truncated=True)],
      r"'base' has no noise levels, so it cannot stop early",
    ),
  ],
)
def test_stages_that_do_not_fit_are_named(stages, message):
  with pytest.raises(ValueError, match=message):
    cascade.check(stages)
  with pytest.raises(ValueError, match=message):
    cascade.sampler(stages)


def test_a_level_beyond_training_is_refused():
  stage = sr(augment='noise', level=0.8)
  stage = stage._replace(lowres=Lowres(4, augment='noise', max_level=0.5))
  with pytest.raises(ValueError, match=r'trained on levels up to 0\.5'):
    cascade.check([base(), stage])
  cascade.check([base(), stage._replace(level=0.5)])
