import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import guidance, losses, process, schedules, weightings
from cdm.diffusion.parameterization import Prediction, predict

SHAPE = (4, 4, 4, 3)
SCHEDULE = schedules.cosine(4000)
T = jnp.asarray([0, 1, 1777, 3999])
WEIGHTS = {
  'min_snr': weightings.min_snr,
  'truncated_snr': weightings.truncated_snr,
  'sigmoid': weightings.sigmoid,
}


def pair():
  rng = np.random.default_rng(0)
  x_0 = jnp.asarray(rng.integers(0, 256, SHAPE) / 127.5 - 1)
  return x_0, jnp.asarray(rng.standard_normal(SHAPE))


def always(output, kind='eps', var=None):
  def denoise(x_t, logsnr):
    return predict(kind, output, x_t, logsnr=logsnr, var=var)

  return denoise


def bits(denoise, x_0, eps, t, schedule):
  """The variational term of step t, gradient through mean and variance."""
  logsnr = schedules.logsnr_at(schedule, t)
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  return losses.vb_terms(denoise(x_t, logsnr), x_0, x_t, t=t, schedule=schedule)


@pytest.mark.parametrize('target', ['eps', 'x_0', 'v'])
def test_a_perfect_denoiser_has_no_simple_loss(target):
  x_0, eps = pair()
  logsnr = jnp.asarray([-5.0, -1.0, 1.0, 5.0])
  for norm in (1, 2):
    loss = losses.simple(
      lambda x_t, logsnr: Prediction(x_0, eps),
      x_0,
      eps,
      logsnr=logsnr,
      target=target,
      norm=norm,
    )
    assert loss.shape == (4,) and loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, 0)


def test_the_simple_loss_is_the_mean_error_to_the_power_of_its_norm():
  x_0, eps = pair()
  logsnr = jnp.zeros(4)
  wrong = eps + 0.5
  for norm, expected in ((1, 0.5), (2, 0.25)):
    loss = losses.simple(always(wrong), x_0, eps, logsnr=logsnr, norm=norm)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_one_error_has_three_sizes():
  """An eps error e is -e sigma / alpha in x_0 and e / alpha in v."""
  x_0, eps = pair()
  logsnr = jnp.asarray([-2.0, -1.0, 1.0, 2.0])
  alpha, sigma = process.alpha_sigma(np.asarray(logsnr))
  for target, scale in (('eps', 1), ('x_0', sigma / alpha), ('v', 1 / alpha)):
    loss = losses.simple(
      always(eps + 0.1), x_0, eps, logsnr=logsnr, target=target
    )
    np.testing.assert_allclose(loss, (0.1 * scale) ** 2, rtol=1e-3)


def test_weights_are_those_of_the_papers():
  """In the space each paper states it: [MinSNR], [PD] sec. 4, [VDM++]."""
  logsnr = jnp.linspace(-8.0, 8.0, 33)
  snr = np.exp(np.asarray(logsnr, np.float64))
  for weight, target, expected in (
    (weightings.min_snr, 'eps', np.minimum(snr, 5) / snr),
    (weightings.min_snr, 'x_0', np.minimum(snr, 5)),
    (weightings.min_snr, 'v', np.minimum(snr, 5) / (snr + 1)),
    (weightings.truncated_snr, 'x_0', np.maximum(snr, 1)),
    (weightings.truncated_snr, 'eps', np.maximum(1, 1 / snr)),
    (weightings.truncated_snr, 'v', np.maximum(snr, 1) / (snr + 1)),
    (weightings.sigmoid, 'eps', 1 / (1 + snr)),
    (weightings.sigmoid, 'x_0', snr / (1 + snr)),
    (weightings.sigmoid, 'v', snr / (1 + snr) ** 2),
  ):
    np.testing.assert_allclose(
      weight(logsnr, target), expected, rtol=1e-5, err_msg=target
    )
  np.testing.assert_allclose(
    weightings.min_snr(logsnr, 'x_0', cap=2.0), np.minimum(snr, 2), rtol=1e-5
  )
  np.testing.assert_allclose(
    weightings.truncated_snr(logsnr, 'x_0', floor=0.1),
    np.maximum(snr, 0.1),
    rtol=1e-5,
  )
  # [SiD2] writes the sigmoid weight on x_0 as e^b sigmoid(logsnr - b).
  np.testing.assert_allclose(
    weightings.sigmoid(logsnr, 'x_0', bias=-3.0),
    np.exp(-3) / (1 + np.exp(-(np.asarray(logsnr, np.float64) + 3))),
    rtol=1e-5,
  )


@pytest.mark.parametrize('weight', WEIGHTS)
def test_a_weighted_loss_does_not_depend_on_the_space_it_is_measured_in(
  weight,
):
  x_0, eps = pair()
  logsnr = jnp.asarray([-3.0, -1.0, 1.0, 3.0])
  in_space = [
    losses.simple(
      always(eps + 0.1),
      x_0,
      eps,
      logsnr=logsnr,
      target=target,
      weight=WEIGHTS[weight],
    )
    for target in ('eps', 'x_0', 'v')
  ]
  np.testing.assert_allclose(in_space[1], in_space[0], rtol=1e-3)
  np.testing.assert_allclose(in_space[2], in_space[0], rtol=1e-3)


@pytest.mark.parametrize('weight', WEIGHTS)
def test_weights_are_finite_at_extreme_noise_levels(weight):
  logsnr = jnp.asarray([-np.inf, -100.0, 100.0, np.inf])
  for target in ('eps', 'x_0', 'v'):
    assert jnp.isfinite(WEIGHTS[weight](logsnr, target)).all()


def test_the_bound_teaches_the_variance_and_not_the_mean():
  x_0, eps = pair()

  def total(output, var, **options):
    loss = losses.hybrid(
      always(output, var=var), x_0, eps, t=T, schedule=SCHEDULE, **options
    )
    return loss.sum()

  var = jnp.full(SHAPE, 0.2)
  wrong = eps + 0.3

  def squares(output):
    logsnr = schedules.logsnr_at(SCHEDULE, T)
    return losses.simple(always(output), x_0, eps, logsnr=logsnr).sum()

  of_mean, of_var = jax.jit(jax.grad(total, argnums=(0, 1)))(wrong, var)
  np.testing.assert_allclose(
    of_mean, jax.jit(jax.grad(squares))(wrong), rtol=1e-6
  )
  assert (jnp.abs(of_var).max((1, 2, 3)) > 0).all()

  def bound(output):
    return bits(always(output, var=var), x_0, eps, T, SCHEDULE).sum()

  assert jnp.abs(jax.jit(jax.grad(bound))(wrong)).max() > 0


@pytest.mark.parametrize('rescale, factor', [(False, 1.0), (True, 4.0)])
def test_the_two_conventions_differ_by_t_over_1000(rescale, factor):
  x_0, eps = pair()
  denoise = always(eps + 0.3, var=jnp.zeros(SHAPE))
  at_t = dict(t=T, schedule=SCHEDULE)
  vb = bits(denoise, x_0, eps, **at_t)
  for weight in (0.001, 0.01):
    loss = losses.hybrid(
      denoise, x_0, eps, **at_t, vb_weight=weight, rescale=rescale
    )
    np.testing.assert_allclose(
      loss, 0.09 + weight / 0.001 * factor * vb, rtol=1e-4
    )


def test_the_kl_of_two_gaussians_is_their_kl():
  """Against numerical integration of p log(p / q) for one pixel law."""
  schedule = schedules.linear(10, beta_min=0.1, beta_max=0.3)
  t, x_0, x_t, x_0_hat = 4, 0.2, 0.5, -0.3
  law = process.posterior_tables(schedule.logsnr)
  x = np.linspace(-8, 8, 200_001)

  def density(mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(
      2 * np.pi * variance
    )

  p = density(
    law.on_x_0[t] * x_0 + law.on_x_t[t] * x_t, np.exp(law.log_variance[t])
  )
  q = density(
    law.on_x_0[t] * x_0_hat + law.on_x_t[t] * x_t, np.exp(law.log_beta[t])
  )
  inside = p > 1e-300
  ratio = np.log(p[inside] / q[inside])
  expected = np.trapezoid(p[inside] * ratio, x[inside]) / np.log(2)
  image = (1, 2, 2, 3)
  prediction = Prediction(
    jnp.full(image, x_0_hat), jnp.zeros(image), jnp.ones(image)
  )
  mine = losses.vb_terms(
    prediction,
    jnp.full(image, x_0),
    jnp.full(image, x_t),
    t=jnp.asarray([t]),
    schedule=schedule,
  )
  np.testing.assert_allclose(mine, [expected], rtol=1e-5)


def test_the_decoders_bins_share_out_all_probability():
  """Over the 256 values of a pixel, also far from the mean and in float32."""
  values = jnp.arange(256).reshape(256, 1, 1, 1) / 127.5 - 1
  for mean, scale in ((0.3, 0.05), (-1.4, 0.3), (0.999, 0.01), (0.0, 5.0)):
    log_p = losses.discretized_log_likelihood(
      values,
      mean=jnp.full_like(values, mean),
      log_scale=jnp.full_like(values, np.log(scale)),
    )
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, atol=2e-5)


def test_the_decoder_is_as_sharp_above_the_mean_as_below_it():
  """The normal law is even, and float32 keeps it so seven deviations out."""
  values = jnp.arange(1, 255).reshape(-1, 1, 1, 1) / 127.5 - 1
  given = dict(mean=jnp.zeros(()), log_scale=jnp.log(0.12))
  log_p = losses.discretized_log_likelihood(values, **given)
  mirrored = losses.discretized_log_likelihood(-values, **given)
  np.testing.assert_allclose(log_p, mirrored, atol=1e-3)
  assert jnp.unique(log_p).size > 110


def test_losses_and_gradients_are_finite_however_wrong_the_network():
  x_0, eps = pair()
  for schedule in (
    SCHEDULE,
    schedules.linear(2000, beta_min=1e-6, beta_max=1e-2),
  ):
    t = jnp.asarray([0, 1, 1000, schedule.num_steps - 1])

    def total(output, var, schedule=schedule, t=t):
      denoise = always(output, var=var)
      hybrid = losses.hybrid(denoise, x_0, eps, t=t, schedule=schedule)
      clipped = bits(guidance.clip_x_0(denoise), x_0, eps, t, schedule)
      return (hybrid + schedule.num_steps * clipped).sum()

    of_total = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    for wrong in (0.0, 1e3, -1e6):
      value, grads = of_total(jnp.full(SHAPE, wrong), jnp.full(SHAPE, 0.9))
      assert jnp.isfinite(value)
      assert all(jnp.isfinite(grad).all() for grad in grads)


def test_the_decoder_has_a_gradient_even_of_absurd_means():
  """Every example is decoded, also those whose term is the KL."""
  x_0, _ = pair()

  def total(mean, log_scale):
    return losses.discretized_log_likelihood(
      x_0, mean=mean, log_scale=log_scale
    ).sum()

  grads = jax.jit(jax.grad(total, argnums=(0, 1)))(
    jnp.full(SHAPE, 1e20), jnp.full(SHAPE, -7.0)
  )
  assert all(jnp.isfinite(grad).all() for grad in grads)


def test_low_precision_outputs_are_averaged_in_float32():
  x_0, eps = (x.astype(jnp.bfloat16) for x in pair())
  loss = losses.simple(
    always(eps + 1), x_0, eps, logsnr=jnp.zeros(4, jnp.bfloat16)
  )
  assert loss.dtype == jnp.float32


def test_bad_loss_options_are_named():
  x_0, eps = pair()
  at_t = dict(t=T, schedule=SCHEDULE)
  with pytest.raises(ValueError, match='norm is 3; use 1 or 2'):
    losses.simple(always(eps), x_0, eps, logsnr=jnp.zeros(4), norm=3)
  with pytest.raises(ValueError, match='The denoiser predicts no variance'):
    losses.hybrid(always(eps), x_0, eps, **at_t)
  with pytest.raises(ValueError, match="target is 'score'"):
    weightings.min_snr(jnp.zeros(4), 'score')


@pytest.mark.parametrize('size', [64, 128])
def test_the_multiscale_loss_averages_down_to_32_pixels(size):
  """[SiD] sec. 3.2 by loops: sum over s = 32, ..., d of mean square / s."""
  rng = np.random.default_rng(0)
  x_0, eps, wrong = (rng.standard_normal((2, size, size, 3)) for _ in range(3))
  expected = np.zeros(2)
  side = 32
  while side <= size:
    k = size // side
    for n in range(2):
      squares = []
      for i in range(side):
        for j in range(side):
          part = wrong[n, i * k : (i + 1) * k, j * k : (j + 1) * k]
          squares.append(part.mean((0, 1)) ** 2)
      expected[n] += np.mean(squares) / side
    side *= 2
  logsnr = jnp.asarray([-1.0, 2.0])
  x_0, eps, wrong = (jnp.asarray(x, jnp.float32) for x in (x_0, eps, wrong))
  found = losses.multiscale(always(eps + wrong), x_0, eps, logsnr=logsnr)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  weighted = losses.multiscale(
    always(eps + wrong),
    x_0,
    eps,
    logsnr=logsnr,
    weight=lambda logsnr, target: 3.0 + logsnr,
  )
  np.testing.assert_allclose(weighted, [2 * found[0], 5 * found[1]], rtol=1e-5)


@pytest.mark.parametrize('size', [8, 32, 48, 96])
def test_a_multiscale_loss_of_other_sizes_is_refused(size):
  with pytest.raises(ValueError, match=f'an image of {size} is not 32 times'):
    losses.sides(size)


def test_the_bound_can_be_added_to_a_weighted_simple_loss():
  x_0, eps = pair()
  denoise = always(eps + 0.3, var=jnp.zeros(SHAPE))
  logsnr = schedules.logsnr_at(SCHEDULE, T)
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  bound = losses.variance_bound(
    denoise(x_t, logsnr), x_0, x_t, t=T, schedule=SCHEDULE
  )
  whole = losses.hybrid(denoise, x_0, eps, t=T, schedule=SCHEDULE)
  np.testing.assert_allclose(whole - bound, 0.09, rtol=1e-3)
