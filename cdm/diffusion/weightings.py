"""Weights a loss by the signal-to-noise ratio.

  min_snr           min(SNR, cap) on x_0                            [MinSNR]
  truncated_snr     max(SNR, floor) on x_0                        [PD] sec. 4
  sigmoid           sigmoid(bias - logsnr) on eps                     [VDM++]
  sigmoid_integral  the same over the density of the drawn levels     [VDM++]
  edm               (s^2 + sd^2) / (s sd)^2 on x_0, s = sigma / alpha   [EDM]
  p2                1 / (k + SNR)^gamma on eps                           [P2]

Each is one function of log-SNR, `(logsnr [B], target) -> [B]`, stated as a
weight on |eps_hat - eps|^2. The same loss measured on another target has errors
scaled by 1 / SNR (x_0), 1 / alpha^2 (v) or 1 + 1 / (SNR sd^2) (F of `Edm`), so
its weight is scaled back. Beyond a log-SNR of +-60 a float32 x_t is x_0 or eps
alone, so weights are those of +-60 there and infinities need no special case.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion.parameterization import Kind
from cdm.diffusion.preconditioning import Edm


def min_snr(logsnr: jax.Array, target: Kind, *, cap: float = 5.0) -> jax.Array:
  """Returns min-SNR weights, [MinSNR]: min(SNR, cap) on x_0. [B] -> [B]."""
  if not cap > 0:
    raise ValueError(f'cap is {cap}; it must be above 0.')
  logsnr = _bounded(logsnr)
  return _weight(jnp.minimum(logsnr, np.log(cap)) - logsnr, logsnr, target)


def truncated_snr(
  logsnr: jax.Array, target: Kind, *, floor: float = 1.0
) -> jax.Array:
  """Returns weights max(SNR, floor) on x_0, [PD] sec. 4. [B] -> [B]."""
  if not floor > 0:
    raise ValueError(f'floor is {floor}; it must be above 0.')
  logsnr = _bounded(logsnr)
  return _weight(jnp.maximum(logsnr, np.log(floor)) - logsnr, logsnr, target)


def sigmoid(logsnr: jax.Array, target: Kind, *, bias: float = 0.0) -> jax.Array:
  """Returns weights sigmoid(bias - logsnr) on eps, [VDM++]. [B] -> [B].

  differs: the paper weights an integral over log-SNR. The noise levels here
  follow the training schedule, whose density multiplies this weight; see
  `sigmoid_integral`.
  """
  logsnr = _bounded(logsnr)
  return _weight(jax.nn.log_sigmoid(bias - logsnr), logsnr, target)


def sigmoid_integral(
  logsnr: jax.Array,
  target: Kind,
  *,
  log_spread: Callable[[jax.Array], jax.Array],
  bias: float = 0.0,
) -> jax.Array:
  """Returns weights of [VDM++]'s integral over log-SNR. [B] -> [B].

  They are sigmoid(bias - logsnr) on eps over the density of the levels that are
  drawn, so their mean loss is the integral of sigmoid(bias - logsnr) times the
  eps error, whatever the schedule. The paper has half of it.

  Args:
    logsnr: [B].
    target: the quantity whose error is weighted.
    log_spread: see `noise_levels.log_spread`.
    bias: k of the paper.
  """
  logsnr = _bounded(logsnr)
  log_weight = jax.nn.log_sigmoid(bias - logsnr) + log_spread(logsnr)
  return _weight(log_weight, logsnr, target)


def edm(
  logsnr: jax.Array, target: Kind, *, sigma_data: float = 0.5
) -> jax.Array:
  """Returns [EDM]'s weights, (s^2 + sd^2) / (s sd)^2 on x_0. [B] -> [B].

  Here s is sigma / alpha and sd is sigma_data. They are 1 on the output of a
  network with `Edm(sigma_data)`.
  """
  if not sigma_data > 0:
    raise ValueError(f'sigma_data is {sigma_data}; it must be above 0.')
  logsnr = _bounded(logsnr)
  log_weight = -jax.nn.log_sigmoid(logsnr + 2 * np.log(sigma_data))
  return _weight(log_weight, logsnr, target)


def p2(
  logsnr: jax.Array, target: Kind, *, k: float = 1.0, gamma: float = 1.0
) -> jax.Array:
  """Returns weights 1 / (k + SNR)^gamma on eps, [P2]. [B] -> [B]."""
  if not k > 0:
    raise ValueError(f'k is {k}; it must be above 0.')
  if not gamma >= 0:
    raise ValueError(
      f'gamma is {gamma}; it must be at least 0, which weights nothing.'
    )
  logsnr = _bounded(logsnr)
  return _weight(-gamma * jnp.logaddexp(np.log(k), logsnr), logsnr, target)


def _weight(log_weight_on_eps, logsnr, target):
  """Turns a log weight on the eps error into the weight on that of `target`."""
  if isinstance(target, Edm):
    shift = 2 * np.log(target.sigma_data)
    return jnp.exp(log_weight_on_eps + jax.nn.log_sigmoid(logsnr + shift))
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
