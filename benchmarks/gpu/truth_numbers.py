"""The numbers of cdm that a GPU must get right, beside float64 on the CPU.

Every check is a function of arrays that cdm compiles: the U-Net's output and
gradient, the loss of a training step and its gradient, the samplers, and the
resize. It runs on the device as it ships, with the highest precision, with
TF32, and with a bfloat16 network; the reference is the same float32 program
with every operation in float64, see `float64_reference`. An error is the
largest difference over the largest number of the reference.

A float32 has 24 bits, a TF32 operand 11 and a bfloat16 8, so that the bounds
below tell them apart.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.config import loader, stage
from cdm.diffusion import dpm_solvers, parameterization, samplers
from cdm.ops import resize

# Relative to the largest number. A float32 network of a dozen convolutions has
# about 1e-6 on a CPU; one product with TF32 operands has about 3e-4.
FLOAT32 = 3e-5
TF32 = 2e-2
BFLOAT16 = 1.5e-1
CONFIG = 'configs/smoke_sr.py'
BATCH = 4
SIZES = {'features': 64, 'norm_groups': 32}
SMOKE_SIZES = {'features': 16, 'norm_groups': 8}
# Added to the parameters, whose last layers begin at zero.
SPREAD = 0.05


class Check(NamedTuple):
  """A computation, and what its numbers depend on.

  Attributes:
    name: for the row.
    make: dtype of the network -> (function, args).
    has_network: whether it has a dtype, of which bfloat16 is tried too.
  """

  name: str
  make: Callable[[str], tuple[Callable[..., Any], tuple]]
  has_network: bool = True


def checks(smoke):
  """Returns the checks in the order of their rows."""
  sizes = SMOKE_SIZES if smoke else SIZES
  network = functools.partial(_of_network, sizes)
  return [
    Check('resize', _resize, has_network=False),
    Check('samplers', _samplers, has_network=False),
    Check('output of the U-Net', functools.partial(network, _output)),
    Check('gradient of the U-Net', functools.partial(network, _gradient)),
    Check('loss', functools.partial(network, _loss)),
    Check('gradient of the loss', functools.partial(network, _loss_gradient)),
    Check('samples of 4 steps', functools.partial(network, _samples)),
  ]


def variants(check):
  """Returns [(name, dtype, precision, bound)] of a check.

  A precision of None leaves to the program what it asks for.
  """
  found = [
    ('float32 as it ships', 'float32', None, FLOAT32),
    ('float32, highest precision', 'float32', 'highest', FLOAT32),
    ('float32, TF32 asked for', 'float32', 'tensorfloat32', TF32),
  ]
  if check.has_network:
    found.append(('bfloat16', 'bfloat16', None, BFLOAT16))
  return found


def run(function, args, precision):
  """Runs a function on the default device at a precision of products."""
  with jax.default_matmul_precision(precision):
    return jax.device_get(jax.jit(function)(*args))


def error(results, reference):
  """Returns the largest difference over the largest number of the reference."""
  largest = difference = 0.0
  for ours, true in zip(
    jax.tree.leaves(results), jax.tree.leaves(reference), strict=True
  ):
    true = np.asarray(true, np.float64)
    apart = np.abs(np.asarray(ours, np.float64) - true)
    if not np.isfinite(apart).all():
      return float('inf')
    difference = max(difference, float(apart.max(initial=0.0)))
    largest = max(largest, float(np.abs(true).max(initial=0.0)))
  return difference / largest


def _config(sizes, dtype):
  c = loader.load(CONFIG, [])
  changes = {f'model.{key}': value for key, value in sizes.items()}
  changes['model.dtype'] = dtype
  loader.override_all(c, [(k, str(v)) for k, v in changes.items()])
  return c


def _of_network(sizes, function, dtype):
  """Returns (function, args) of a check of the whole stage."""
  built = stage.stage(_config(sizes, dtype))
  params = jax.jit(built.method.init)(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  params = jax.tree.unflatten(
    structure,
    [
      x + SPREAD * jax.random.normal(key, x.shape)
      for x, key in zip(leaves, keys, strict=True)
    ],
  )
  return functools.partial(function, built), (params, *_inputs(built))


def _inputs(built):
  """Returns (image uint8, label) of a batch, and low-res images of it."""
  rng = np.random.default_rng(0)
  size, low = built.input_size, built.lowres.size
  image = rng.integers(0, 256, (BATCH, size, size, 3), np.uint8)
  label = rng.integers(0, built.net.num_classes, BATCH, np.int32)
  lowres = rng.uniform(-1, 1, (BATCH, low, low, 3)).astype(np.float32)
  return image, label, lowres


def _output(built, params, image, label, lowres):
  x = image.astype(jnp.float32) / 127.5 - 1
  level = jnp.linspace(0.0, 0.2, BATCH)
  return built.net.apply(
    {'params': params},
    x,
    jnp.linspace(-5.0, 5.0, BATCH),
    label=label,
    lowres=resize.resize(lowres, x.shape[1], method='bicubic'),
    lowres_level=level,
    train=False,
  )


def _gradient(built, params, image, label, lowres):
  def objective(params):
    out = _output(built, params, image, label, lowres)
    probe = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
    return (out * probe).sum()

  return jax.grad(objective)(params)


def _loss(built, params, image, label, lowres):
  del lowres
  batch = {'image': image, 'label': label}
  key = jax.random.key(3)
  return built.method.loss(params, batch, key=key, train=True)[0]


def _loss_gradient(built, params, image, label, lowres):
  return jax.grad(
    lambda params: _loss(built, params, image, label, lowres).mean()
  )(params)


def _samples(built, params, image, label, lowres):
  del image
  keys = jax.random.split(jax.random.key(4), BATCH)
  return built.method.sample(params, keys=keys, label=label, lowres=lowres)


def _resize(dtype):
  del dtype
  image = np.random.default_rng(5).uniform(-1, 1, (2, 64, 64, 3))

  def both(image):
    kinds = ('bicubic', 'area')
    small = [resize.resize(image, 16, method=kind) for kind in kinds]
    return small, resize.resize(image, 256, method='bicubic')

  return both, (image.astype(np.float32),)


def _samplers(dtype):
  """Every sampler, on Gaussian data, whose best denoiser is a formula."""
  del dtype
  deviation = 0.5
  grid = np.linspace(-8.0, 8.0, 17)

  def denoise(x_t, logsnr):
    alpha, sigma = _signal(logsnr, x_t)
    variance = alpha**2 * deviation**2 + sigma**2
    x_0 = alpha * deviation**2 / variance * x_t
    return parameterization.Prediction(x_0, (x_t - alpha * x_0) / sigma, None)

  def all_of_them(x_T, noise):
    return [
      samplers.ddim(denoise, x_T, logsnrs=grid, noise=lambda j: noise[j]),
      samplers.ancestral(denoise, x_T, logsnrs=grid, noise=lambda j: noise[j]),
      dpm_solvers.dpm_solver_pp_2m(denoise, x_T, logsnrs=grid),
    ]

  rng = np.random.default_rng(6)
  x_T = rng.standard_normal((2, 8, 8, 3)).astype(np.float32)
  noise = rng.standard_normal((len(grid), *x_T.shape)).astype(np.float32)
  return all_of_them, (x_T, noise)


def _signal(logsnr, x):
  logsnr = logsnr.reshape(-1, *[1] * (x.ndim - 1))
  return jnp.sqrt(jax.nn.sigmoid(logsnr)), jnp.sqrt(jax.nn.sigmoid(-logsnr))
