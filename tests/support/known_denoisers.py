"""Denoisers whose images have a known law: the oracle's mixture, a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
from support.oracles import assert_matches

from cdm.diffusion import process, schedules
from cdm.diffusion.parameterization import Prediction, predict

SCHEDULES = {
  'lin': lambda: schedules.linear(1000, beta_min=1e-4, beta_max=2e-2),
  'cos': lambda: schedules.cosine(1000),
}


class Mixture:
  """The oracle's exact denoiser: NumPy float64, whatever the sampler's dtype.

  `seen` keeps the x_t of every call, which is the sampler's trajectory.
  """

  def __init__(self, stored, *, var=None):
    self.means = stored['mix/means']
    self.weights, self.stds = stored['mix/weights'], stored['mix/stds']
    self.var, self.seen = var, []

  def mean_of_x_0(self, x, sigma):
    """x = x_0 + sigma n: [B, 3, 2, 2], sigma: [B] -> E[x_0 | x]."""
    v = self.stds**2 + sigma[:, None] ** 2  # [B, k]
    apart = x[:, None] - self.means  # [B, k, 3, 2, 2]
    distance = (apart**2).sum((2, 3, 4))
    log_r = np.log(self.weights) - distance / (2 * v) - 6 * np.log(v)
    r = np.exp(log_r - log_r.max(1, keepdims=True))
    r /= r.sum(1, keepdims=True)
    shrink = (self.stds**2 / v)[..., None, None, None]
    means = self.means + shrink * apart
    return (r[..., None, None, None] * means).sum(1)

  def host(self, x_t, logsnr):
    dtype = x_t.dtype
    x_t, logsnr = np.asarray(x_t, np.float64), np.asarray(logsnr, np.float64)
    self.seen.append(x_t)
    alpha, sigma = process.alpha_sigma(logsnr)
    wide = (slice(None), None, None, None)
    x_0 = self.mean_of_x_0(x_t / alpha[wide], sigma / alpha)
    eps = (x_t - alpha[wide] * x_0) / sigma[wide]
    return x_0.astype(dtype), eps.astype(dtype)

  def __call__(self, x_t, logsnr):
    out = jax.ShapeDtypeStruct(x_t.shape, x_t.dtype)
    x_0, eps = jax.pure_callback(self.host, (out, out), x_t, logsnr)
    var = None if self.var is None else jnp.full_like(x_t, self.var)
    return Prediction(x_0, eps, var)


def start(stored, dtype):
  """-> x_T and the noise of step j, as stored."""
  steps = jnp.asarray(stored['in/step_noise'], dtype)
  return jnp.asarray(stored['in/x_T'], dtype), lambda j: steps[j]


def check(mine, notes, stored, key, bits):
  """Within the key's tolerance in float64, within 5e-4 in float32."""
  tol = notes['keys'][key]['tol']
  if bits == 32:
    tol = {'rtol': 0.0, 'atol': max(5e-4, tol['atol'])}
  assert_matches(mine, stored[key], tol, f'{key} {bits}')


def logsnr_of(sigmas):
  """EDM's noise-to-signal ratio sigma, falling -> log-SNR, rising."""
  with np.errstate(divide='ignore'):
    return -2 * np.log(np.asarray(sigmas, np.float64))


def karras(num_steps):
  """The oracle's VE grid: rho = 7 from sigma 80 to 0.002, then 0."""
  ramp = np.linspace(0, 1, num_steps)
  ends = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
  return logsnr_of(np.append((ends[0] + ramp * (ends[1] - ends[0])) ** 7, 0))


def start_of_ve(stored, grid):
  """sigma_max x_T of a variance-exploding peer, in our unit-variance frame."""
  alpha, sigma = process.alpha_sigma(grid[0])
  return alpha * (sigma / alpha) * stored['in/x_T'].astype(np.float64)


def normal(shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def gaussian(std):
  """The exact denoiser for x_0 ~ N(0, std^2)."""

  def denoise(x_t, logsnr):
    alpha, sigma = process.alpha_sigma(logsnr[:, None, None, None])
    x_0 = alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x_t
    return predict('x_0', x_0, x_t, logsnr=logsnr)

  return denoise


def std_of(std, logsnr):
  """Of x_t when x_0 ~ N(0, std^2)."""
  alpha, sigma = process.alpha_sigma(float(logsnr))
  return np.hypot(alpha * std, sigma)
