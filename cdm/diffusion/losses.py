"""Computes the training losses of a denoiser, one value per example.

  L_simple = |target_hat - target|^p                  [DDPM] eq. 14, [SR3] eq. 6
  L_multiscale = sum_s L^(s x s) / s, s = 32, 64, ..., d         [SiD] sec. 3.2
  L_hybrid = L_simple + lambda L_vlb                            [IDDPM] eq. 16
  L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), t > 0     [DDPM] eq. 5
  L_0 = -log p(x_0 | x_1), a discretised Gaussian               [DDPM] eq. 13

Every loss returns [B]; the caller averages. Variational terms are in bits per
dimension. Their coefficients are gathered from tables made on the host in
float64, because neighbouring steps differ by less than float32 resolves.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import parameterization, process, schedules
from cdm.diffusion.parameterization import (
  Denoiser,
  Kind,
  Prediction,
  learned_log_variance,
)
from cdm.diffusion.process import expand_like

# Side of the smallest average that the multiscale loss takes, [SiD] sec. 3.2.
_SMALLEST = 32


def simple(
  denoise: Denoiser,
  x_0: jax.Array,
  eps: jax.Array,
  *,
  logsnr: jax.Array,
  target: Kind = 'eps',
  norm: int = 2,
  weight: Callable[[jax.Array, Kind], jax.Array] | None = None,
) -> jax.Array:
  """L_simple, [DDPM] eq. 14; norm=1 is the SR3 variant, [SR3] eq. 6.

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_0: [B, H, W, C] clean images.
    eps: [B, H, W, C] standard normal noise.
    logsnr: [B].
    target: the quantity whose error is measured, 'eps', 'x_0', 'v' or an
      `Edm`; it may differ from what the network predicts.
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


def multiscale(
  denoise: Denoiser,
  x_0: jax.Array,
  eps: jax.Array,
  *,
  logsnr: jax.Array,
  target: Kind = 'eps',
  weight: Callable[[jax.Array, Kind], jax.Array] | None = None,
) -> jax.Array:
  """The multiscale loss of [SiD] sec. 3.2, sum_s 1/s L^(s x s).

  L^(s x s) is the mean square of the error after it is averaged over squares of
  pixels down to a side of s = 32, 64, ..., up to that of the image. What all
  pixels of a square have wrong in common so counts more than its detail, of
  which large images have the most.

  Args:
    denoise, x_0, eps, logsnr, target, weight: as in `simple`; H = W is one of
      the sides.

  Returns:
    [B] float32.

  Raises:
    ValueError: see `sides`.
  """
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  error = _error(denoise(x_t, logsnr), x_0, eps, logsnr=logsnr, target=target)
  loss = jnp.zeros(error.shape[0], jnp.promote_types(error.dtype, jnp.float32))
  for side in reversed(sides(error.shape[1])):
    if side < error.shape[1]:
      b, _, _, c = error.shape
      error = error.reshape(b, side, 2, side, 2, c).mean((2, 4))
    loss += _mean(jnp.square(error)) / side
  return loss if weight is None else weight(logsnr, target) * loss


def sides(image_size: int) -> list[int]:
  """Returns the sides over which `multiscale` sums, 32, 64, ..., image_size.

  Raises:
    ValueError: image_size is not 32 times 2, 4, 8 and so on.
  """
  found = [_SMALLEST]
  while found[-1] < image_size:
    found.append(2 * found[-1])
  if found[-1] != image_size or len(found) < 2:
    raise ValueError(
      f'The multiscale loss halves the error down to {_SMALLEST} pixels, but '
      f'an image of {image_size} is not {_SMALLEST} times 2, 4, 8 and so on.'
    )
  return found


def hybrid(
  denoise: Denoiser,
  x_0: jax.Array,
  eps: jax.Array,
  *,
  t: jax.Array,
  schedule: schedules.Schedule,
  target: Kind = 'eps',
  vb_weight: float = 0.001,
  rescale: bool = False,
) -> jax.Array:
  """L_hybrid, [IDDPM] eq. 16: the bound trains the variance only.

  The bound is a sum over the chain. Only one term of it is drawn, so that term
  counts vb_weight times the length of the chain. The paper's class-conditional
  runs take that length as 1000 for every T, so with vb_weight=0.001 the term is
  added with weight 1 (rescale_learned_sigmas=False in their code).

  Args:
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction` with var.
    x_0: [B, H, W, C] images on the uint8 lattice in [-1, 1].
    eps: [B, H, W, C] standard normal noise.
    t: [B] int32 in 0..T-1.
    schedule: the chain of T steps.
    target: as in `simple`, for the simple part.
    vb_weight: lambda.
    rescale: True multiplies the variational term by T / 1000.

  Returns:
    [B] float32.
  """
  logsnr = schedules.logsnr_at(schedule, t)
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  prediction = denoise(x_t, logsnr)
  error = _error(prediction, x_0, eps, logsnr=logsnr, target=target)
  vb = variance_bound(prediction, x_0, x_t, t=t, schedule=schedule)
  factor = bound_factor(schedule, vb_weight=vb_weight, rescale=rescale)
  return _mean(jnp.square(error)) + factor * vb


def variance_bound(
  prediction: Prediction,
  x_0: jax.Array,
  x_t: jax.Array,
  *,
  t: jax.Array,
  schedule: schedules.Schedule,
) -> jax.Array:
  """Returns `vb_terms` without a gradient through the mean.

  Args:
    prediction: the denoiser's prediction at x_t, with var.
    x_0, t, schedule: as in `hybrid`.
    x_t: [B, H, W, C].

  Returns:
    [B] float32, bits per dimension.
  """
  fixed_mean = prediction._replace(
    x_0=jax.lax.stop_gradient(prediction.x_0),
    eps=jax.lax.stop_gradient(prediction.eps),
  )
  return vb_terms(fixed_mean, x_0, x_t, t=t, schedule=schedule)


def bound_factor(
  schedule: schedules.Schedule, *, vb_weight: float, rescale: bool
) -> float:
  """Returns the factor of one term of the bound in `hybrid`."""
  return vb_weight * (schedule.num_steps if rescale else 1000)


def vb_terms(
  prediction: Prediction,
  x_0: jax.Array,
  x_t: jax.Array,
  *,
  t: jax.Array,
  schedule: schedules.Schedule,
) -> jax.Array:
  """Returns the bound's term L_t, [DDPM] eq. 5; L_0 where t = 0.

  Args:
    prediction: the denoiser's prediction at x_t.
    x_0: [B, H, W, C] images on the uint8 lattice in [-1, 1].
    x_t: [B, H, W, C].
    t: [B] int32 in 0..T-1; L_0 is the step from t = 0 to x_0.
    schedule: the chain of T steps.

  Returns:
    [B] float32, bits per dimension.
  """
  at_t = _tables_at(schedule, t, x_0)
  mean, log_variance = reverse_gaussian(prediction, x_t, t=t, schedule=schedule)
  # The two means share their x_t part, so only the x_0 parts are subtracted:
  # the difference of the whole means would lose digits.
  shift = at_t.on_x_0 * (x_0 - prediction.x_0)
  kl = _normal_kl(shift, at_t.log_variance, log_variance)
  nll = -discretized_log_likelihood(
    x_0, mean=mean, log_scale=0.5 * log_variance
  )
  return _mean(jnp.where(expand_like(t == 0, x_0), nll, kl)) / np.log(2)


def reverse_gaussian(
  prediction: Prediction,
  x_t: jax.Array,
  *,
  t: jax.Array,
  schedule: schedules.Schedule,
) -> tuple[jax.Array, jax.Array]:
  """Returns mean and learned log variance of p(x_{t-1} | x_t), [DDPM] eq. 1.

  Args:
    prediction: the denoiser's prediction at x_t, with var.
    x_t: [B, H, W, C].
    t: [B] int32 in 0..T-1.
    schedule: the chain of T steps.

  Returns:
    (mean, log_variance), each [B, H, W, C].

  Raises:
    ValueError: the prediction has no var.
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


def discretized_log_likelihood(
  x_0: jax.Array, *, mean: jax.Array, log_scale: jax.Array
) -> jax.Array:
  """Returns log probabilities of pixels' bins under Gaussians, [DDPM] eq. 13.

  The bins are 2 / 255 wide; the first and the last extend to infinity. The
  normal CDF is the tanh approximation and probabilities are at least 1e-12, as
  in the DDPM and Improved DDPM code, so that bits per dimension are comparable.

  Args:
    x_0: [B, H, W, C] on the uint8 lattice in [-1, 1].
    mean: [B, H, W, C].
    log_scale: log standard deviation, like x_0 or [B, 1, 1, 1].

  Returns:
    [B, H, W, C] in nats.
  """
  inverse_scale = jnp.exp(-log_scale)
  # Bins above the mean are mirrored to below it, because near 1 the CDF has no
  # digits left to tell the two ends of a bin apart.
  above_mean = x_0 > mean
  distance = -jnp.abs(x_0 - mean)
  far = _normal_cdf((distance - 1 / 255) * inverse_scale)
  near = _normal_cdf((distance + 1 / 255) * inverse_scale)
  lowest, highest = x_0 < -0.999, x_0 > 0.999
  far = jnp.where(jnp.where(above_mean, highest, lowest), 0, far)
  near = jnp.where(jnp.where(above_mean, lowest, highest), 1, near)
  return jnp.log(jnp.maximum(near - far, 1e-12))


def _error(prediction, x_0, eps, *, logsnr, target):
  truth = parameterization.target(target, x_0, eps, logsnr=logsnr)
  predicted = parameterization.target(
    target, prediction.x_0, prediction.eps, logsnr=logsnr
  )
  return predicted - truth


def _mean(values):
  """[B, ...] -> [B], in float32, or in float64 if the values are float64."""
  dtype = jnp.promote_types(values.dtype, jnp.float32)
  return jnp.mean(values, axis=tuple(range(1, values.ndim)), dtype=dtype)


def _tables_at(schedule, t, x):
  """Returns the `Posterior` of step t, each [B, 1, 1, 1] in x's dtype."""
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
  """The tanh approximation (1 + tanh y) / 2, without its loss at y << 0."""
  # At +-20 the CDF is 0 or 1 to the last bit. Without the clip x**3 could
  # overflow, which has NaN gradients.
  x = jnp.clip(x, -20.0, 20.0)
  y = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
  return jax.nn.sigmoid(2 * y)
