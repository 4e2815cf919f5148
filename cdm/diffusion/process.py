"""Defines the forward process q and its posterior, as functions of log-SNR.

  alpha^2 = sigmoid(logsnr),  sigma^2 = sigmoid(-logsnr)
  q(x_t | x_0) = N(alpha_t x_0, sigma_t^2)                      [DDPM] eq. 4
  q(x_s | x_t, x_0) = N(on_x_0 x_0 + on_x_t x_t, variance)      [DDPM] eq. 6

Here s is earlier (less noisy) than t. NumPy inputs give NumPy float64 results;
any other input is computed by jax.numpy in its own dtype.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def alpha_sigma(logsnr):
  """Returns the signal and noise scales; alpha^2 + sigma^2 = 1.

  Args:
    logsnr: any shape; +inf is x_0 itself (1, 0), -inf is pure noise (0, 1).

  Returns:
    alpha, sigma: like logsnr.
  """
  xp = jnp
  if isinstance(logsnr, np.ndarray | np.generic | float):
    xp, logsnr = np, np.asarray(logsnr, np.float64)
  # The exponent is halved before exp, so that a float32 scale reaches 0 only
  # beyond a log-SNR of +-170.
  alpha = xp.exp(-0.5 * xp.logaddexp(0.0, -logsnr))
  sigma = xp.exp(-0.5 * xp.logaddexp(0.0, logsnr))
  return alpha, sigma


def q_sample(
  x_0: jax.Array, eps: jax.Array, *, logsnr: jax.Array | np.ndarray
) -> jax.Array:
  """Draws x_t ~ q(x_t | x_0), [DDPM] eq. 4.

  Args:
    x_0: [B, H, W, C] clean images in [-1, 1].
    eps: [B, H, W, C] standard normal noise.
    logsnr: [B] log signal-to-noise ratio of t.

  Returns:
    x_t: [B, H, W, C].
  """
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_0))  # [B, 1, 1, 1]
  return alpha * x_0 + sigma * eps


class Posterior(NamedTuple):
  """Coefficients of q(x_s | x_t, x_0) and of q(x_t | x_s), float64 arrays.

  Attributes:
    on_x_0, on_x_t: the posterior mean is on_x_0 * x_0 + on_x_t * x_t.
    log_variance: log of the posterior variance, [DDPM] eq. 7.
    log_beta: log of the variance of q(x_t | x_s), the larger one.
  """

  on_x_0: np.ndarray
  on_x_t: np.ndarray
  log_variance: np.ndarray
  log_beta: np.ndarray


def posterior(*, logsnr_t: np.ndarray, logsnr_s: np.ndarray) -> Posterior:
  """Returns coefficients of the step from t to s < t, [DDPM] eq. 7 in log-SNR.

  They are computed on the host in float64, because they depend on the
  difference of two neighbouring log-SNRs, which float32 does not resolve.

  Args:
    logsnr_t: any shape, finite.
    logsnr_s: like logsnr_t and greater; +inf is x_0 (then log_variance is
      -inf).

  Returns:
    Posterior, each array like logsnr_t.
  """
  logsnr_t = np.asarray(logsnr_t, np.float64)
  logsnr_s = np.asarray(logsnr_s, np.float64)
  alpha_t, _ = alpha_sigma(logsnr_t)
  alpha_s, _ = alpha_sigma(logsnr_s)
  change = logsnr_t - logsnr_s  # log(SNR_t / SNR_s) < 0
  # 1 - SNR_t / SNR_s, the part of the noise in x_t that is new since s.
  fresh = -np.expm1(change)
  return Posterior(
    on_x_0=alpha_s * fresh,
    on_x_t=alpha_s / alpha_t * np.exp(change),
    log_variance=np.log(fresh) - np.logaddexp(0.0, logsnr_s),
    log_beta=np.log(fresh) - np.logaddexp(0.0, logsnr_t),
  )


def posterior_tables(logsnr: np.ndarray) -> Posterior:
  """Returns the posterior of every step t -> t - 1 of a discrete chain.

  Args:
    logsnr: [T] strictly decreasing; index 0 is one step from x_0.

  Returns:
    Posterior of [T] tables. log_variance[0] would be -inf and is a copy of
    entry 1 ([IDDPM] code): it is the scale of the decoder p(x_0 | x_1).
  """
  logsnr = np.asarray(logsnr, np.float64)
  earlier = np.concatenate([[np.inf], logsnr[:-1]])
  tables = posterior(logsnr_t=logsnr, logsnr_s=earlier)
  # A chain of one step has no entry 1, so beta is its only variance.
  log_variance = tables.log_variance.copy()
  log_variance[0] = (
    tables.log_variance[1] if len(logsnr) > 1 else tables.log_beta[0]
  )
  return tables._replace(log_variance=log_variance)


def expand_like(a, x):
  """Appends singleton axes to a [B] to match x [B, ...]: [B, 1, ..., 1]."""
  return a.reshape(a.shape + (1,) * (x.ndim - a.ndim))
