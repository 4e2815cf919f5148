"""Converts between what a network may predict: eps, x_0, v, or [EDM]'s F.

x_t = alpha x_0 + sigma eps                                   [DDPM] eq. 4
v   = alpha eps - sigma x_0                                   [PD] app. D
x_0 = alpha x_t - sigma v,  eps = sigma x_t + alpha v
log variance = f log beta + (1 - f) log beta~, f = (var + 1) / 2
                                                              [IDDPM] eq. 15

F and its equations are in `preconditioning`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cdm.diffusion import preconditioning
from cdm.diffusion.preconditioning import Edm
from cdm.diffusion.process import alpha_sigma, expand_like

KINDS = ('eps', 'x_0', 'v')
# One of `KINDS`, or EDM's preconditioned output.
Kind = str | Edm


class Prediction(NamedTuple):
  """A denoiser's prediction of the clean image and the noise in x_t.

  Both x_0 and eps are kept although either gives the other, because converting
  back loses digits, all of them at the ends of the schedule.

  Attributes:
    x_0: [B, H, W, C] the clean image.
    eps: [B, H, W, C] the noise; x_t = alpha x_0 + sigma eps.
    var: [B, H, W, C] position of the log variance between its bounds, nominally
      in [-1, 1] but not clipped; None unless variances are learned.
  """

  x_0: jax.Array
  eps: jax.Array
  var: jax.Array | None = None


# (x_t [B, H, W, C], logsnr [B]) -> Prediction.
Denoiser = Callable[[jax.Array, jax.Array], Prediction]


def predict(
  kind: Kind,
  output: jax.Array,
  x_t: jax.Array,
  *,
  logsnr: jax.Array,
  var: jax.Array | None = None,
) -> Prediction:
  """Reads a network's output as a Prediction.

  Args:
    kind: what the output is, 'eps', 'x_0', 'v' or an `Edm`.
    output: [B, H, W, C].
    x_t: [B, H, W, C] the noisy image, see `network_input`.
    logsnr: [B].
    var: [B, H, W, C] or None, passed on unchanged.

  Returns:
    Prediction.
  """
  if isinstance(kind, Edm):
    return Prediction(
      *preconditioning.x_0_and_eps(kind, output, x_t, logsnr=logsnr), var
    )
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


def network_input(
  kind: Kind, x_t: jax.Array, *, logsnr: jax.Array
) -> jax.Array:
  """Returns x_t as the network is given it: scaled if `kind` is an `Edm`.

  Args:
    kind: see `predict`.
    x_t: [B, H, W, C].
    logsnr: [B].
  """
  if isinstance(kind, Edm):
    return preconditioning.scaled_input(kind, x_t, logsnr=logsnr)
  return x_t


def target(
  kind: Kind, x_0: jax.Array, eps: jax.Array, *, logsnr: jax.Array
) -> jax.Array:
  """Returns the quantity `kind` of a pair (x_0, eps), true or predicted.

  Args:
    kind: 'eps', 'x_0', 'v' or an `Edm`.
    x_0, eps: [B, H, W, C].
    logsnr: [B].

  Returns:
    [B, H, W, C].
  """
  if isinstance(kind, Edm):
    return preconditioning.target(kind, x_0, eps, logsnr=logsnr)
  _check_kind(kind)
  if kind == 'eps':
    return eps
  if kind == 'x_0':
    return x_0
  return v_from(x_0, eps, logsnr=logsnr)


def x_0_from_eps(
  x_t: jax.Array, eps: jax.Array, *, logsnr: jax.Array
) -> jax.Array:
  """Returns x_0, [DDPM] eq. 15; 0 where alpha is 0 and x_t holds no image."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_t))
  return _divide(x_t - sigma * eps, alpha)


def eps_from_x_0(
  x_t: jax.Array, x_0: jax.Array, *, logsnr: jax.Array
) -> jax.Array:
  """Inverts `x_0_from_eps`; 0 where sigma is 0 and x_t holds no noise."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_t))
  return _divide(x_t - alpha * x_0, sigma)


def x_0_from_v(x_t: jax.Array, v: jax.Array, *, logsnr: jax.Array) -> jax.Array:
  """Returns x_0 = alpha x_t - sigma v, [PD] app. D."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_t))
  return alpha * x_t - sigma * v


def eps_from_v(x_t: jax.Array, v: jax.Array, *, logsnr: jax.Array) -> jax.Array:
  """Returns eps = sigma x_t + alpha v, [PD] app. D."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_t))
  return sigma * x_t + alpha * v


def v_from(x_0: jax.Array, eps: jax.Array, *, logsnr: jax.Array) -> jax.Array:
  """Returns v = alpha eps - sigma x_0, [PD] app. D."""
  alpha, sigma = alpha_sigma(expand_like(logsnr, x_0))
  return alpha * eps - sigma * x_0


def learned_log_variance(
  var: jax.Array, *, log_beta: jax.Array, log_variance: jax.Array
) -> jax.Array:
  """Interpolates between the bounds of the log variance, [IDDPM] eq. 15.

  Args:
    var: [B, H, W, C], not clipped; 1 gives beta, -1 the posterior variance.
    log_beta, log_variance: log of beta and of the posterior variance, scalars
      or [B, 1, 1, 1].

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
