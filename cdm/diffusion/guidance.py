"""Wraps a denoiser with clipping, thresholding or guidance.

  x_0 -> clip(x_0),  eps -> (x_t - alpha x_0) / sigma
  eps -> eps_c + w (eps_c - eps_u)                              [CFG] eq. 6
  D   -> D + w (D - D_weak)                                  [Autoguidance]
  x_0 -> x_0 (f std(x_0 of c) / std(x_0) + 1 - f)               [Lin] eq. 15, 16

A wrapper returns a denoiser, `(x_t [B, H, W, C], logsnr [B]) -> Prediction`
with x_t = alpha x_0 + sigma eps, so that wrappers compose and samplers need no
options for them. Clipping must be the outermost wrapper, because guidance
pushes x_0 out of range.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion.parameterization import Denoiser, Prediction, eps_from_x_0
from cdm.diffusion.process import expand_like

# (low, high) log-SNR, two numbers or an array [2].
Interval = tuple[float, float] | jax.Array
# (x_t, logsnr) -> the prediction that is guided, and the one that it is guided
# away from.
Pair = Callable[[jax.Array, jax.Array], tuple[Prediction, Prediction]]


def clip_x_0(
  denoise: Denoiser,
  *,
  low: float | jax.Array = -1.0,
  high: float | jax.Array = 1.0,
  keep_eps: bool = False,
) -> Denoiser:
  """Clips the predicted x_0 and makes eps agree with it.

  Args:
    denoise: the denoiser to wrap.
    low, high: bounds, scalars or arrays like x_0. (The range of the residual
      to a known image differs from pixel to pixel.)
    keep_eps: True leaves eps as it is.

  Returns:
    The wrapped denoiser.
  """

  def clipped(x_t, logsnr):
    prediction = denoise(x_t, logsnr)
    x_0 = jnp.clip(prediction.x_0, low, high)
    if keep_eps:
      return prediction._replace(x_0=x_0)
    return with_x_0(prediction, x_0, x_t, logsnr)

  return clipped


def dynamic_threshold(
  denoise: Denoiser,
  *,
  percentile: float = 99.5,
  low: float | jax.Array = -1.0,
  high: float | jax.Array = 1.0,
) -> Denoiser:
  """Rescales a saturated x_0 into range instead of clipping it, [Imagen] 2.3.

  With s the given percentile of |x_0| over each image, but at least 1, x_0
  becomes clip(x_0, -s, s) / s. For bounds other than -1 and 1 the same is
  done in the coordinate that maps low to -1 and high to 1.

  Args:
    denoise: the denoiser to wrap.
    percentile: in (0, 100].
    low, high: bounds, scalars or arrays like x_0.

  Returns:
    The wrapped denoiser.
  """
  if not 0 < percentile <= 100:
    raise ValueError(
      f'percentile is {percentile}; use one in (0, 100], e.g. 99.5.'
    )
  center, radius = (high + low) / 2, (high - low) / 2

  def thresholded(x_t, logsnr):
    prediction = denoise(x_t, logsnr)
    unit = (prediction.x_0 - center) / radius
    flat = jnp.abs(unit).reshape(unit.shape[0], -1)
    s = expand_like(jnp.percentile(flat, percentile, axis=1), unit)
    squeezed = center + radius * jnp.clip(unit / jnp.maximum(s, 1), -1, 1)
    # With s <= 1 rescaling equals clipping, and clipping keeps the bits of an
    # x_0 that is in range.
    clipped = jnp.clip(prediction.x_0, low, high)
    x_0 = jnp.where(s > 1, squeezed, clipped)
    return with_x_0(prediction, x_0, x_t, logsnr)

  return thresholded


def classifier_free(
  conditional: Denoiser,
  unconditional: Denoiser,
  *,
  weight: float | jax.Array,
  interval: Interval | None = None,
  rescale: float | jax.Array = 0.0,
  both: Pair | None = None,
) -> Denoiser:
  """Guides without a classifier, [CFG] eq. 6: (1 + w) eps_c - w eps_u.

  Args:
    conditional: denoiser with its label bound.
    unconditional: denoiser with the null class bound.
    weight: w; 0 means no guidance, a larger weight guides more strongly.
    interval: None, or (low, high) log-SNR: guidance acts only where low <=
      logsnr <= high, and elsewhere the unconditional network is not run,
      except in a `jax.shard_map`.
    rescale: f of [Lin] eq. 16, from 0 to 1: how far the contrast of the guided
      x_0, its standard deviation over an image, is brought back to that of the
      conditional one. (0.7 in the paper.) 0 leaves the computation out, unless
      it is an argument of a program.
    both: `(x_t, logsnr) -> (conditional, unconditional)`, which evaluates the
      two at once; None evaluates one after the other.

  Returns:
    The guided denoiser; its var is that of `conditional`.
  """
  _check(interval, rescale)

  def extrapolated(strong, weak, x_t, logsnr, weight):
    guided = Prediction(
      x_0=strong.x_0 + weight * (strong.x_0 - weak.x_0),
      eps=strong.eps + weight * (strong.eps - weak.eps),
      var=strong.var,
    )
    if not isinstance(rescale, jax.Array) and not rescale:
      return guided
    wanted, found = _contrast(strong.x_0), _contrast(guided.x_0)
    share = rescale * wanted / jnp.where(found > 0, found, 1) + 1 - rescale
    return with_x_0(guided, share * guided.x_0, x_t, logsnr)

  def guided(x_t, logsnr):
    if interval is None and both is not None:
      return extrapolated(*both(x_t, logsnr), x_t, logsnr, weight)
    # Where guidance acts on some noise levels only, one call for both is made
    # at those alone.
    strong = None if both is not None else conditional(x_t, logsnr)
    if interval is None:
      weak = unconditional(x_t, logsnr)
      return extrapolated(strong, weak, x_t, logsnr, weight)
    inside = (logsnr >= interval[0]) & (logsnr <= interval[1])  # [B]
    weights = expand_like(jnp.where(inside, weight, 0).astype(x_t.dtype), x_t)

    def acting():
      pair = both(x_t, logsnr) if both else (strong, unconditional(x_t, logsnr))
      return extrapolated(*pair, x_t, logsnr, weights)

    # In a `jax.shard_map`, as in training with a teacher, every device has
    # levels of its own. A network that gathers its parameters there has to be
    # run by all devices or by none: one that waits for the others would wait
    # for ever.
    if jax.sharding.get_abstract_mesh().manual_axes:
      return acting()
    return jax.lax.cond(
      inside.any(),
      acting,
      lambda: conditional(x_t, logsnr) if both else strong,
    )

  return guided


def autoguidance(
  strong: Denoiser,
  weak: Denoiser,
  *,
  weight: float | jax.Array,
  interval: Interval | None = None,
  rescale: float | jax.Array = 0.0,
) -> Denoiser:
  """Guides a network by a worse version of itself, [Autoguidance].

  The law is D = D_weak + w' (D_strong - D_weak) with w' = 1 + w.

  Args:
    strong, weak: denoisers of the same quantity.
    weight: w, as in `classifier_free`: 0 means no guidance, where the paper's
      w' is 1.
    interval, rescale: as in `classifier_free`.

  Returns:
    The guided denoiser; its var is that of `strong`.
  """
  return classifier_free(
    strong, weak, weight=weight, interval=interval, rescale=rescale
  )


def guided_evaluations(
  logsnrs: np.ndarray, interval: tuple[float, float] | np.ndarray | None
) -> int:
  """Returns at how many levels guidance evaluates the other network.

  Args:
    logsnrs: [M], the levels of a sampler's evaluations.
    interval: see `classifier_free`.
  """
  if interval is None:
    return len(logsnrs)
  return int(np.sum((logsnrs >= interval[0]) & (logsnrs <= interval[1])))


def _check(interval, rescale):
  """Refuses impossible values, but not those that a program has not got yet."""
  if interval is not None and not isinstance(interval, jax.Array):
    low, high = interval
    if not low < high:
      raise ValueError(
        f'interval is {interval}; give (low, high) log-SNR with low < high.'
      )
  if not isinstance(rescale, jax.Array) and not 0 <= rescale <= 1:
    raise ValueError(f'rescale is {rescale}; use a share from 0 to 1.')


def _contrast(x_0):
  """Returns the standard deviation over each image, [B, 1, 1, 1]."""
  return jnp.std(x_0, axis=tuple(range(1, x_0.ndim)), keepdims=True)


def with_x_0(prediction, x_0, x_t, logsnr):
  """Replaces x_0 in a prediction, and eps where x_0 has changed.

  Where x_0 has not changed, eps stays, because recomputing it from x_0 would
  lose digits at low noise.
  """
  eps = eps_from_x_0(x_t, x_0, logsnr=logsnr)
  moved = x_0 != prediction.x_0
  return prediction._replace(x_0=x_0, eps=jnp.where(moved, eps, prediction.eps))
