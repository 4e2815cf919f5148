"""What is minimised: per-example losses of a denoiser.

  L_simple = |target_hat - target|^p                  [DDPM] eq. 14, [SR3] eq. 6
  L_hybrid = L_simple + lambda L_vlb                            [IDDPM] eq. 16
  L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), t > 0     [DDPM] eq. 5
  L_0 = -log p(x_0 | x_1), a discretised Gaussian               [DDPM] eq. 13

Every loss returns [B]; the caller averages. Variational terms are in bits per
dimension. Their coefficients are gathered from tables made on the host in
float64, because neighbouring steps differ by less than float32 resolves.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import parameterization, process, schedules
from cdm.diffusion.parameterization import learned_log_variance
from cdm.diffusion.process import expand_like


def simple(denoise, x_0, eps, *, logsnr, target='eps', norm=2, weight=None):
  """L_simple, [DDPM] eq. 14; norm=1 is the SR3 variant, [SR3] eq. 6.

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_0: [B, H, W, C] clean images.
    eps: [B, H, W, C] standard normal noise.
    logsnr: [B].
    target: the space the error is measured in, 'eps', 'x_0' or 'v', whatever
      it is that the network predicts.
    norm: 1 or 2.
    weight: None, or `(logsnr [B], target) -> [B]`.

  Returns:
    [B] float32, mean over H, W, C.
  """
  if norm not in (1, 2):
    raise ValueError(f'norm is {norm}; use 1 or 2.')
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  error = _error(denoise(x_t, logsnr), x_0, eps, logsnr=logsnr, target=target)
  loss = _mean(jnp.abs(error) if norm == 1 else jnp.square(error))
  return loss if weight is None else weight(logsnr, target) * loss


def hybrid(
  denoise,
  x_0,
  eps,
  *,
  t,
  schedule,
  target='eps',
  vb_weight=0.001,
  rescale=False,
):
  """L_hybrid, [IDDPM] eq. 16: the bound teaches the variance alone.

  The bound is a sum over the chain and one term of it is drawn, so that term
  counts vb_weight times the length of the chain. The paper's class-conditional
  runs take that length as 1000 whatever T is: with vb_weight=0.001 the term
  is added as it stands (rescale_learned_sigmas=False in their code).

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction` with var.
    x_0: [B, H, W, C] images on the uint8 lattice in [-1, 1].
    eps: [B, H, W, C] standard normal noise.
    t: [B] int32 in 0..T-1.
    schedule: Schedule.
    target: space of the simple part.
    vb_weight: lambda.
    rescale: True multiplies the variational term by T / 1000.

  Returns:
    [B] float32.
  """
  logsnr = schedules.logsnr_at(schedule, t)
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  prediction = denoise(x_t, logsnr)
  error = _error(prediction, x_0, eps, logsnr=logsnr, target=target)
  fixed_mean = prediction._replace(
    x_0=jax.lax.stop_gradient(prediction.x_0),
    eps=jax.lax.stop_gradient(prediction.eps),
  )
  vb = vb_terms(fixed_mean, x_0, x_t, t=t, schedule=schedule)
  chain_length = schedule.num_steps if rescale else 1000
  return _mean(jnp.square(error)) + vb_weight * chain_length * vb


def vb_terms(prediction, x_0, x_t, *, t, schedule):
  """L_t for t > 0 and L_0 for t = 0, [DDPM] eq. 5.

  Args:
    prediction: Prediction at x_t.
    x_0: [B, H, W, C] images on the uint8 lattice in [-1, 1].
    x_t: [B, H, W, C].
    t: [B] int32 in 0..T-1; L_0 is the step from t = 0 to x_0.
    schedule: Schedule.

  Returns:
    [B] float32, bits per dimension.
  """
  at_t = _tables_at(schedule, t, x_0)
  mean, log_variance = reverse(prediction, x_t, t=t, schedule=schedule)
  # The means share their x_t part: subtracted whole, they would lose digits.
  shift = at_t.on_x_0 * (x_0 - prediction.x_0)
  kl = _normal_kl(shift, at_t.log_variance, log_variance)
  nll = -discretized_log_likelihood(
    x_0, mean=mean, log_scale=0.5 * log_variance
  )
  return _mean(jnp.where(expand_like(t == 0, x_0), nll, kl)) / np.log(2)


def reverse(prediction, x_t, *, t, schedule):
  """Mean and learned log variance of p(x_{t-1} | x_t), [DDPM] eq. 1.

  Args:
    prediction: Prediction at x_t, with var.
    x_t: [B, H, W, C].
    t: [B] int32 in 0..T-1.
    schedule: Schedule.

  Returns:
    (mean, log_variance), each [B, H, W, C].
  """
  at_t = _tables_at(schedule, t, x_t)
  mean = at_t.on_x_0 * prediction.x_0 + at_t.on_x_t * x_t
  if prediction.var is None:
    raise ValueError(
      'The denoiser predicts no variance; use a network with learned '
      'variance, or the simple loss.'
    )
  return mean, learned_log_variance(
    prediction.var, log_beta=at_t.log_beta, log_variance=at_t.log_variance
  )


def discretized_log_likelihood(x_0, *, mean, log_scale):
  """Log probability of a pixel's bin under a Gaussian, [DDPM] eq. 13.

  The bins are 2 / 255 wide, the two end ones reach to infinity. The normal
  CDF is the tanh approximation and probabilities are at least 1e-12, as in
  the DDPM and Improved DDPM code, to which bits per dimension are compared.

  Args:
    x_0: [B, H, W, C] on the uint8 lattice in [-1, 1].
    mean: [B, H, W, C].
    log_scale: log standard deviation, like x_0 or [B, 1, 1, 1].

  Returns:
    [B, H, W, C] in nats.
  """
  inverse_scale = jnp.exp(-log_scale)
  # Bins above the mean are mirrored to below it: near 1 the CDF has no digits
  # left to tell two ends of a bin apart.
  above_mean = x_0 > mean
  distance = -jnp.abs(x_0 - mean)
  far = _normal_cdf((distance - 1 / 255) * inverse_scale)
  near = _normal_cdf((distance + 1 / 255) * inverse_scale)
  lowest, highest = x_0 < -0.999, x_0 > 0.999
  far = jnp.where(jnp.where(above_mean, highest, lowest), 0, far)
  near = jnp.where(jnp.where(above_mean, lowest, highest), 1, near)
  return jnp.log(jnp.maximum(near - far, 1e-12))


# Weights by signal-to-noise ratio. Each is one function of log-SNR, stated as
# a weight on |eps_hat - eps|^2; the same loss measured in another space has
# errors scaled by 1 / SNR (x_0) or 1 / alpha^2 (v), so its weight is scaled
# back. Beyond +-60 a float32 x_t is x_0 or eps alone, so we clip there and
# need no case for infinities.


def min_snr(logsnr, target, *, cap=5.0):
  """Min-SNR, [MinSNR]: min(SNR, cap) on x_0. [B] -> [B]."""
  logsnr = _bounded(logsnr)
  return _weight(jnp.minimum(logsnr, np.log(cap)) - logsnr, logsnr, target)


def truncated_snr(logsnr, target, *, floor=1.0):
  """Truncated SNR, [PD] sec. 4: max(SNR, floor) on x_0. [B] -> [B]."""
  logsnr = _bounded(logsnr)
  return _weight(jnp.maximum(logsnr, np.log(floor)) - logsnr, logsnr, target)


def sigmoid(logsnr, target, *, bias=0.0):
  """Sigmoid weighting, [VDM++]: sigmoid(bias - logsnr) on eps.

  differs: the paper weights an integral over log-SNR. Levels here follow the
  training schedule, whose density multiplies this weight.
  """
  logsnr = _bounded(logsnr)
  return _weight(jax.nn.log_sigmoid(bias - logsnr), logsnr, target)


def _weight(log_weight_on_eps, logsnr, target):
  """Log weight of the eps error -> weight of the error in `target`."""
  to_target = {
    'eps': lambda: 0.0,
    'x_0': lambda: logsnr,
    'v': lambda: jax.nn.log_sigmoid(logsnr),  # log alpha^2
  }
  if target not in to_target:
    raise ValueError(f'target is {target!r}; use one of {[*to_target]}.')
  return jnp.exp(log_weight_on_eps + to_target[target]())


def _bounded(logsnr):
  return jnp.clip(logsnr, -60.0, 60.0)


def _error(prediction, x_0, eps, *, logsnr, target):
  wanted = parameterization.target(target, x_0, eps, logsnr=logsnr)
  given = parameterization.target(
    target, prediction.x_0, prediction.eps, logsnr=logsnr
  )
  return given - wanted


def _mean(values):
  """[B, ...] -> [B], in float32, or float64 if the values are."""
  dtype = jnp.promote_types(values.dtype, jnp.float32)
  return jnp.mean(values, axis=tuple(range(1, values.ndim)), dtype=dtype)


def _tables_at(schedule, t, x):
  """Posterior of step t: each [B, 1, 1, 1] in the dtype of x."""
  tables = process.posterior_tables(schedule.logsnr)
  return process.Posterior(
    *(expand_like(jnp.asarray(table, x.dtype)[t], x) for table in tables)
  )


def _normal_kl(shift, log_variance_1, log_variance_2):
  """KL(N(m_1, v_1) || N(m_2, v_2)) in nats, with shift = m_1 - m_2."""
  change = log_variance_1 - log_variance_2
  spread = jnp.expm1(change) - change  # v_1 / v_2 - 1 - log(v_1 / v_2)
  return 0.5 * (spread + jnp.square(shift) * jnp.exp(-log_variance_2))


def _normal_cdf(x):
  """The tanh approximation, (1 + tanh y) / 2, without its loss at y << 0."""
  # 0 or 1 to the last bit by 20; a power that overflows has NaN gradients.
  x = jnp.clip(x, -20.0, 20.0)
  y = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
  return jax.nn.sigmoid(2 * y)
