import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.oracles import oracle

from cdm.diffusion import schedules
from cdm.methods import lowres_conditioning
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import pixels, resize

# One compilation instead of one per operation.
augment_train = jax.jit(
  lowres_conditioning.augment_train, static_argnames='lowres'
)


def new_key(seed=0):
  return jax.random.key(seed)


def pictures(n=4, size=32, seed=0):
  image = np.random.default_rng(seed).integers(0, 256, (n, size, size, 3))
  return np.uint8(image)


def test_low_res_images_are_what_pillow_writes_to_a_file():
  _, stored = oracle('resize')
  x_0 = pixels.to_float(stored['in/big256'][None])
  z_0 = lowres_conditioning.downsample(x_0, Lowres(size=64))
  pillow = stored['pil_uint8/256to64/bicubic']
  np.testing.assert_array_equal(pixels.to_uint8(z_0[0]), pillow)
  np.testing.assert_array_equal(pixels.to_float(pillow), z_0[0])


@pytest.mark.parametrize('method', resize.METHODS)
def test_low_res_images_have_the_bits_of_a_previous_stage_s_samples(method):
  """White noise overshoots under bicubic and lanczos3, so clipping is seen."""
  x_0 = pixels.to_float(pictures())
  lowres = Lowres(size=8, downsample=method)
  z_0 = jax.jit(lambda x: lowres_conditioning.downsample(x, lowres))(x_0)
  written_and_read = pixels.to_float(np.asarray(pixels.to_uint8(z_0)))
  np.testing.assert_array_equal(z_0, written_and_read)
  assert z_0.shape == (4, 8, 8, 3) and z_0.dtype == jnp.float32


def test_without_augmentation_nothing_changes_and_the_level_is_zero():
  z_0 = pixels.to_float(pictures(size=8))
  lowres = Lowres(size=8)
  z, level = augment_train(z_0, lowres, key=new_key())
  np.testing.assert_array_equal(z, z_0)
  np.testing.assert_array_equal(level, np.zeros(4))


def test_the_cosine_level_is_improved_ddpm_s_alpha_bar():
  """alpha_bar = cos^2((u + 0.008) / 1.008 pi / 2), over its value at 0."""
  u = np.linspace(0.01, 0.99, 99)
  signal = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
  alpha_bar = signal / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
  expected = np.log(alpha_bar / (1 - alpha_bar))
  lowres = Lowres(size=8)
  host = lowres_conditioning.level_logsnr(u, lowres)
  np.testing.assert_allclose(host, expected, atol=1e-10)
  device = lowres_conditioning.level_logsnr(jnp.asarray(u), lowres)
  np.testing.assert_allclose(device, expected, rtol=2e-6, atol=2e-6)


def test_discrete_levels_are_the_steps_of_the_stage_before():
  """CDM's z_s is the chain of the base model stopped at step s of T."""
  _, stored = oracle('diffusion_discrete')
  alpha_bar = stored['cos/alphas_cumprod']  # [T]
  steps = len(alpha_bar)
  lowres = Lowres(size=8, num_levels=steps)
  s = np.arange(1, steps + 1)
  logsnr = lowres_conditioning.level_logsnr(s / steps, lowres)
  np.testing.assert_allclose(1 / (1 + np.exp(-logsnr)), alpha_bar, rtol=1e-9)
  assert lowres_conditioning.level_logsnr(np.float64(0), lowres) == np.inf


@pytest.mark.parametrize('num_levels', [None, 50])
def test_log_snr_falls_with_the_level_on_host_and_device(num_levels):
  lowres = Lowres(size=8, num_levels=num_levels)
  level = np.arange(51) / 50
  logsnr = lowres_conditioning.level_logsnr(level, lowres)
  assert np.all(np.diff(logsnr) < 0)
  device = jax.jit(lambda x: lowres_conditioning.level_logsnr(x, lowres))(
    jnp.asarray(level)
  )
  np.testing.assert_allclose(device, logsnr, rtol=1e-5, atol=1e-5)


def test_level_zero_is_clean_bit_for_bit_and_level_one_is_noise_alone():
  z_0 = pixels.to_float(pictures(2, 8))
  eps = jax.random.normal(new_key(), z_0.shape)
  lowres = Lowres(size=8, augment='noise')
  level = jnp.array([0.0, 1.0])
  z = lowres_conditioning.augment_at(z_0, lowres, level=level, eps=eps)
  np.testing.assert_array_equal(z[0], z_0[0])
  np.testing.assert_array_equal(z[1], eps[1])


def test_noise_has_the_declared_variance_at_low_resolution():
  lowres = Lowres(size=16, augment='noise')
  z_0 = jnp.full((256, 16, 16, 3), 0.5)
  z, level = augment_train(z_0, lowres, key=new_key())
  alpha_bar = np.cos((np.float64(level) + 0.008) / 1.008 * np.pi / 2) ** 2
  mean, std = np.mean(z, axis=(1, 2, 3)), np.std(z, axis=(1, 2, 3))
  np.testing.assert_allclose(mean, 0.5 * np.sqrt(alpha_bar), atol=0.16)
  np.testing.assert_allclose(std, np.sqrt(1 - alpha_bar), atol=0.11)
  # Pixel by pixel: noise added after upsampling would be drawn larger.
  eps = z - mean[:, None, None, None]
  neighbours = np.mean(eps[:, :, 1:] * eps[:, :, :-1]) / np.mean(eps**2)
  assert abs(neighbours) < 0.01


@pytest.mark.parametrize('num_levels', [None, 1000])
def test_levels_fill_zero_to_the_maximum_once_per_slice_of_the_batch(
  num_levels,
):
  lowres = Lowres(size=2, augment='noise', max_level=0.5, num_levels=num_levels)
  _, level = augment_train(jnp.zeros((64, 2, 2, 3)), lowres, key=new_key())
  slices = np.floor(np.sort(level) / 0.5 * 64)
  assert np.abs(slices - np.arange(64)).max() <= (num_levels is not None)
  if num_levels is not None:
    steps = np.float64(level) * num_levels
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_every_discrete_step_is_drawn_and_the_clean_one_too():
  lowres = Lowres(size=1, augment='noise', num_levels=4)
  _, level = augment_train(jnp.zeros((50, 1, 1, 3)), lowres, key=new_key())
  steps, counts = np.unique(np.round(level * 4), return_counts=True)
  np.testing.assert_array_equal(steps, np.arange(5))
  np.testing.assert_array_equal(counts, [10] * 5)


def test_the_level_of_an_image_tells_nothing_about_its_time():
  """Both are stratified; drawn in order they would rise together."""
  t_key, key = jax.random.split(new_key())
  u = schedules.stratified(t_key, 1024)
  _, level = augment_train(
    jnp.zeros((1024, 1, 1, 1)), Lowres(size=1, augment='noise'), key=key
  )
  assert abs(np.corrcoef(u, level)[0, 1]) < 0.1
  assert abs(np.corrcoef(np.arange(1024), level)[0, 1]) < 0.1


def test_blur_touches_the_declared_share_of_examples_and_no_other_bit():
  z_0 = pixels.to_float(pictures(64, 8))
  lowres = Lowres(size=8, augment='blur', blur_fraction=0.25)
  z, level = augment_train(z_0, lowres, key=new_key())
  touched = np.any(np.asarray(z != z_0), axis=(1, 2, 3))
  assert 15 <= touched.sum() <= 17
  assert not np.all(touched[:16])  # not simply the first ones
  np.testing.assert_array_equal(level, np.zeros(64))


def test_the_blur_has_a_sigma_of_its_own_range():
  """An impulse shows the kernel: its side weight is e = exp(-1 / 2 s^2)."""
  z_0 = jnp.zeros((64, 9, 9, 1)).at[:, 4, 4].set(1.0)
  lowres = Lowres(
    size=9, augment='blur', blur_sigma=(0.4, 0.6), blur_fraction=1.0
  )
  z, _ = augment_train(z_0, lowres, key=new_key())
  sigma = np.sqrt(-0.5 / np.log(z[:, 4, 5, 0] / z[:, 4, 4, 0]))
  assert 0.4 <= sigma.min() < 0.43 and 0.57 < sigma.max() <= 0.6
  outside = np.asarray(z).copy()
  outside[:, 3:6, 3:6] = 0  # 3x3 and no more
  assert not outside.any()
  np.testing.assert_allclose(np.sum(z, axis=(1, 2, 3)), 1.0, atol=1e-5)


@pytest.mark.parametrize('augment', ['none', 'blur'])
def test_sampling_never_blurs(augment):
  z_0 = pixels.to_float(pictures(2, 8))
  lowres = Lowres(size=8, augment=augment, blur_fraction=1.0)
  z = lowres_conditioning.augment_at(z_0, lowres, level=jnp.zeros(2), eps=z_0)
  np.testing.assert_array_equal(z, z_0)


@pytest.mark.parametrize('augment', ['noise', 'blur'])
def test_the_mesh_changes_no_draw(augment):
  """The same numbers from one device and from eight, under jit."""
  z_0 = pixels.to_float(pictures(16, 8))
  lowres = Lowres(size=8, augment=augment)
  alone = augment_train(z_0, lowres, key=new_key())
  mesh = jax.make_mesh(
    (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  z_0 = jax.device_put(z_0, spread)
  together = augment_train(z_0, lowres, key=new_key())
  for mine, theirs in zip(together, alone, strict=True):
    np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_upsampling_is_linear_so_noise_is_not_clipped():
  z = 3.0 * jax.random.normal(new_key(), (2, 8, 8, 3))
  lowres = Lowres(size=8, upsample='bicubic')
  u = lowres_conditioning.upsample(z, 32, lowres)
  assert u.shape == (2, 32, 32, 3) and np.abs(u).max() > 3.0
  image = Image.fromarray(np.asarray(z[0, :, :, 0]))
  pillow = image.resize((32, 32), Image.Resampling.BICUBIC)
  np.testing.assert_allclose(u[0, :, :, 0], np.asarray(pillow), atol=1e-5)


@pytest.mark.parametrize('method', ['area', 'bicubic'])
def test_a_mirrored_picture_has_a_mirrored_low_res_image(method):
  """So a flip in the data pipeline turns the pair."""
  x_0 = pixels.to_float(pictures(4, 16))
  lowres = Lowres(size=4, downsample=method)
  z_0 = lowres_conditioning.downsample(x_0, lowres)
  mirrored = lowres_conditioning.downsample(x_0[:, :, ::-1], lowres)
  np.testing.assert_array_equal(mirrored, z_0[:, :, ::-1])


def test_the_level_fed_to_the_network_is_one_it_was_trained_on():
  lowres = Lowres(size=4, augment='noise', num_levels=4)
  assert lowres_conditioning.nearest_level(0.3, lowres) == 0.25
  assert lowres_conditioning.nearest_level(0.3, Lowres(size=4)) == 0.3


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(downsample='cubic'), "lowres.downsample is 'cubic'.*'bicubic'"),
    (dict(upsample='box'), "lowres.upsample is 'box'.*'area'"),
    (dict(augment='gauss'), "lowres.augment is 'gauss'.*'noise'"),
    (dict(noise_schedule='linear'), "lowres.noise_schedule.*'cosine'"),
    (dict(size=0), 'lowres.size is 0'),
    (dict(max_level=1.5), r'lowres.max_level is 1.5.*0 < max_level <= 1'),
    (dict(max_level=0.0), "lowres.max_level.*augment='none'"),
    (dict(num_levels=0), 'lowres.num_levels is 0'),
    (dict(blur_sigma=(0.6, 0.4)), r'lowres.blur_sigma is \(0.6, 0.4\)'),
    (dict(blur_fraction=2.0), 'lowres.blur_fraction is 2.0'),
  ],
)
def test_a_value_that_cannot_be_used_is_named(fields, message):
  with pytest.raises(ValueError, match=message):
    Lowres(**{'size': 8, **fields})


@pytest.mark.parametrize('shape', [(1, 32, 24, 3), (1, 4, 4, 3)])
def test_images_that_cannot_be_shrunk_are_refused(shape):
  with pytest.raises(ValueError, match=r'cannot be shrunk to lowres.size = 8'):
    lowres_conditioning.downsample(jnp.zeros(shape), Lowres(size=8))
