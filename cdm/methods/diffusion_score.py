"""Scores a denoiser at drawn noise levels, as an `Objective` says.

L = w(logsnr) |target_hat - target|^p, at the levels of u
(L / e^u) + u with a learned weight, u(logsnr)                   [EDM2]
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from cdm.diffusion import losses, noise_levels, process, schedules
from cdm.diffusion.parameterization import Denoiser
from cdm.methods.diffusion_options import Objective

# The parameters of a learned weight, among those of the network.
UNCERTAINTY = 'loss_uncertainty'


def init_uncertainty(objective: Objective) -> dict:
  """Returns {`UNCERTAINTY`: parameters}, {} without a learned weight.

  Args:
    objective: how the network is trained.
  """
  if objective.uncertainty is None:
    return {}
  # Most draw no random number. One that does starts alike in every run.
  started = objective.uncertainty.init(jax.random.key(0), jnp.zeros(1))
  return {UNCERTAINTY: started['params']}


def score(
  objective: Objective,
  schedule: schedules.Schedule,
  denoise: Denoiser,
  x_0: jax.Array,
  eps: jax.Array,
  *,
  u: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes the losses at the noise levels of u, without a learned weight.

  Args:
    objective: how the network is trained.
    schedule: the noise schedule of training.
    denoise: `(x_t [B, H, W, C], logsnr [B]) -> Prediction`.
    x_0: [B, H, W, C] clean images, or residuals.
    eps: [B, H, W, C] standard normal noise.
    u: [B] in [0, 1), see `noise_levels.draw`.

  Returns:
    ([B], {'logsnr': [B]}).
  """
  if objective.loss == 'hybrid':
    t = schedules.discrete_levels(schedule, u)
    logsnr = schedules.logsnr_at(schedule, t)
    value = _hybrid(objective, schedule, denoise, x_0, eps, t=t)
    return value, {'logsnr': logsnr}
  logsnr = noise_levels.draw(objective.levels, schedule, u)
  measured: dict[str, Any] = dict(
    logsnr=logsnr,
    target=objective.target or objective.prediction,
    weight=objective.weighting,
  )
  if objective.loss == 'multiscale':
    value = losses.multiscale(denoise, x_0, eps, **measured)
  else:
    value = losses.simple(denoise, x_0, eps, norm=objective.norm, **measured)
  return value, {'logsnr': logsnr}


def _hybrid(objective, schedule, denoise, x_0, eps, *, t):
  """Returns [IDDPM]'s loss [B], whose simple part may be weighted."""
  target = objective.target or objective.prediction
  scale: dict[str, Any] = dict(
    vb_weight=objective.vb_weight, rescale=objective.vb_rescale
  )
  if objective.weighting is None:
    return losses.hybrid(
      denoise, x_0, eps, t=t, schedule=schedule, target=target, **scale
    )
  logsnr = schedules.logsnr_at(schedule, t)
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  prediction = denoise(x_t, logsnr)
  simple = losses.simple(
    lambda *_: prediction,
    x_0,
    eps,
    logsnr=logsnr,
    target=target,
    weight=objective.weighting,
  )
  bound = losses.variance_bound(prediction, x_0, x_t, t=t, schedule=schedule)
  return simple + losses.bound_factor(schedule, **scale) * bound


def with_uncertainty(
  objective: Objective,
  params: dict,
  losses: jax.Array,
  scalars: dict[str, jax.Array],
  *,
  train: bool,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Weights losses by what is learned of them, if the objective has that.

  What is minimised in training changes its scale as u does. So the loss without
  u is reported beside it, and it alone is returned if train is False: held-out
  losses, and the best checkpoint by them, compare with those of other runs.

  Args:
    objective: how the network is trained.
    params: the parameters of `Diffusion`.
    losses: [B], L of `score`.
    scalars: what `score` returned, with the log-SNRs.
    train: whether the result is minimised.

  Returns:
    ([B], scalars with 'uncertainty' [B] and, in training, 'weighted_loss' [B]).
  """
  if objective.uncertainty is None:
    return losses, scalars
  own = meta.unbox(params[UNCERTAINTY])
  u = objective.uncertainty.apply({'params': own}, scalars['logsnr'])
  scalars = {**scalars, 'uncertainty': u}
  if not train:
    return losses, scalars
  return losses * jnp.exp(-u) + u, {**scalars, 'weighted_loss': losses}
