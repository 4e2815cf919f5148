"""What a network predicts, and how one prediction becomes another.

x_t = alpha x_0 + sigma eps                                   [DDPM] eq. 4
v   = alpha eps - sigma x_0                                   [PD] app. D
x_0 = alpha x_t - sigma v,  eps = sigma x_t + alpha v
log variance = f log beta + (1 - f) log beta~, f = (var + 1) / 2
                                                              [IDDPM] eq. 15
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cdm.diffusion.process import alpha_sigma, expand_like

KINDS = ('eps', 'x_0', 'v')


class Prediction(NamedTuple):
  """What a denoiser knows about x_t.

  Both x_0 and eps are kept although either gives the other: converting back
  loses digits, all of them at the ends of the schedule.

  Attributes:
    x_0: [B, H, W, C] the clean image.
    eps: [B, H, W, C] the noise; x_t = alpha x_0 + sigma eps.
    var: [B, H, W, C] position of the log variance between its bounds, in
      [-1, 1] but not clipped; None unless variances are learned.
  """

  x_0: jax.Array
  eps: jax.Array
  var: jax.Array | None = None


def predict(kind, output, x_t, *, logsnr, var=None):
  """Reads a network's output as a Prediction.

  Args:
    kind: what the output is, 'eps', 'x_0' or 'v'.
    output: [B, H, W, C].
    x_t: [B, H, W, C] the network's input.
    logsnr: [B].
    var: [B, H, W, C] or None, passed on.

  Returns:
    Prediction.
  """
  _check_kind(kind)
  if kind == 'eps':
    return Prediction(x_0_from_eps(x_t, output, logsnr=logsnr), output, var)
  if kind == 'x_0':
    return Prediction(output, eps_from_x_0(x_t, output, logsnr=logsnr), var)
  return Prediction(
    x_0_from_v(x_t, output, logsnr=logsnr),
    eps_from_v(x_t, output, logsnr=logsnr),
    var,
  )


def target(kind, x_0, eps, *, logsnr):
  """The quantity `kind` of a pair (x_0, eps), true or predicted.

  Args:
    kind: 'eps', 'x_0' or 'v'.
    x_0, eps: [B, H, W, C].
    logsnr: [B].

  Returns:
    [B, H, W, C].
  """
  _check_kind(kind)
  if kind == 'eps':
    return eps
  if kind == 'x_0':
    return x_0
  return v_from(x_0, eps, logsnr=logsnr)


def x_0_from_eps(x_t, eps, *, logsnr):
  """[DDPM] eq. 15; 0 where alpha is 0 and x_t says nothing of x_0."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_t))
  return _divide(x_t - sigma * eps, alpha)


def eps_from_x_0(x_t, x_0, *, logsnr):
  """Inverse of the above; 0 where sigma is 0 and x_t holds no noise."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_t))
  return _divide(x_t - alpha * x_0, sigma)


def x_0_from_v(x_t, v, *, logsnr):
  """[PD] app. D."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_t))
  return alpha * x_t - sigma * v


def eps_from_v(x_t, v, *, logsnr):
  """[PD] app. D."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_t))
  return sigma * x_t + alpha * v


def v_from(x_0, eps, *, logsnr):
  """[PD] app. D."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_0))
  return alpha * eps - sigma * x_0


def learned_log_variance(var, *, log_beta, log_variance):
  """Interpolates between the variances' bounds, [IDDPM] eq. 15.

  Args:
    var: [B, H, W, C]; 1 is beta, -1 the posterior variance, not clipped.
    log_beta, log_variance: scalars or [B, 1, 1, 1] logs of the two.

  Returns:
    [B, H, W, C] log variance.
  """
  fraction = (var + 1) / 2
  return fraction * log_beta + (1 - fraction) * log_variance


def _divide(numerator, scale):
  positive = scale > 0
  return jnp.where(positive, numerator / jnp.where(positive, scale, 1), 0)


def _check_kind(kind):
  if kind not in KINDS:
    raise ValueError(f'prediction is {kind!r}; known kinds are {KINDS}.')
