"""Guidance by the null class and by a weaker network, as a sampler runs it."""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import known_denoisers, tiny_run

from cdm.diffusion import dpm_solvers, grids, process, samplers, schedules
from cdm.distributed import device_mesh
from cdm.methods import autoguided, paired_call
from cdm.methods.diffusion import X_T, Objective, Sampling, diffusion
from cdm.methods.lowres_conditioning import Lowres
from cdm.models.unet import UNet
from cdm.ops.keys import image_keys, normals

SIZE, CLASSES = 8, 3
SCHEDULE = schedules.cosine(100)
LOWRES = Lowres(size=4, augment='noise')


def method(net, *, steps='4', lowres=None, objective=None, **sampling):
  run = sampling.pop('run', functools.partial(samplers.ddim, eta=0.0))
  grid = sampling.pop('grid', grids.respaced(SCHEDULE, spacing=steps))
  return diffusion(
    net,
    SCHEDULE,
    Objective(**objective or {'label_dropout': 0.1}),
    Sampling(run=run, grid=grid, **sampling),
    image_size=SIZE,
    lowres=lowres,
  )


def network(**fields):
  fields = {'features': 8, 'num_classes': CLASSES, 'null_class': True} | fields
  return UNet(multipliers=(1,), num_blocks=1, norm_groups=4, **fields)


@functools.cache
def parameters(net, lowres=None):
  """A fresh network predicts zero, with labels and without; this one does not.

  Its embeddings are large, so that guidance moves an image by tenths.
  """
  params = jax.jit(method(net, lowres=lowres).init)(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  moved = [
    x + 0.2 * jax.random.normal(key, x.shape)
    for x, key in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(structure, moved)


def drawn(made, params, n=3, **given):
  run = jax.jit(made.sample)
  labels = jnp.arange(n) % CLASSES
  return run(params, keys=image_keys(0, np.arange(n)), label=labels, **given)


def calls_of(monkeypatch, run):
  """-> batch sizes that the network is traced with, in `run`."""
  sizes, apply = [], UNet.apply

  def counted(self, variables, x, *rest, **given):
    sizes.append(x.shape[0])
    return apply(self, variables, x, *rest, **given)

  with monkeypatch.context() as patch:
    patch.setattr(UNet, 'apply', counted)
    run()
  return sizes


@pytest.mark.parametrize(
  ('options', 'one_call', 'two_calls'),
  [
    ({}, [6], [3, 3]),
    ({'guidance_rescale': 0.7}, [6], [3, 3]),
    # Guidance acts in two of four steps; in the others the network runs once.
    ({'guidance_interval': (-1.5, 3.0)}, [6, 3], [3, 3]),
  ],
)
@pytest.mark.parametrize('lowres', [None, LOWRES])
def test_one_call_draws_what_two_calls_draw(
  monkeypatch, options, one_call, two_calls, lowres
):
  net = network(lowres_level=lowres is not None)
  params = parameters(net, lowres)
  given = {}
  if lowres is not None:
    low = 0.5 * known_denoisers.normal((3, 4, 4, 3))
    given = {'lowres': low, 'level': jnp.array([0.0, 0.2, 0.5])}

  def images(pixels, weight=1.5):
    monkeypatch.setattr(paired_call, 'MOST_PIXELS', pixels)
    made = method(net, lowres=lowres, guidance_weight=weight, **options)
    return drawn(made, params, **given)

  large, small = 10**6, 1
  both = {}
  sizes = calls_of(monkeypatch, lambda: both.update(one=images(large)))
  assert sizes == one_call
  sizes = calls_of(monkeypatch, lambda: both.update(two=images(small)))
  assert sizes == two_calls
  # Rounding grows a hundredfold in x_0 where x_t is nearly noise alone.
  np.testing.assert_allclose(both['one'], both['two'], atol=1e-3)


def test_guidance_moves_these_images():
  """Without this the test above would compare images without guidance."""
  params = parameters(network())
  plain = drawn(method(network()), params)
  guided = drawn(method(network(), guidance_weight=1.5), params)
  assert jnp.abs(plain - guided).max() > 0.1


@pytest.mark.parametrize(
  ('n', 'pixels', 'devices', 'expected'),
  [
    (8, 64**2, 1, True),
    (9, 64**2, 1, False),
    (64, 64**2, 8, True),
    (65, 64**2, 8, False),
    (16, 128**2, 8, True),
    (1, 1024**2, 8, False),
  ],
)
def test_what_counts_is_what_each_device_draws(
  monkeypatch, n, pixels, devices, expected
):
  accelerators = paired_call.MOST_PIXELS
  monkeypatch.setattr(paired_call, 'MOST_PIXELS_ON_CPUS', accelerators)
  mesh = tiny_run.mesh(data=devices // 2, fsdp=2) if devices > 1 else None
  found = []
  ask = device_mesh.in_mesh(
    lambda: found.append(paired_call.is_better(n, pixels)), mesh
  )
  ask()
  assert found == [expected]


def test_a_device_that_has_its_own_part_counts_it_whole(monkeypatch):
  """In a `shard_map`, as in training with a guided teacher."""
  monkeypatch.setattr(paired_call, 'MOST_PIXELS_ON_CPUS', 2 * 8**2)
  mesh, found = tiny_run.mesh(data=2, fsdp=2), []

  def part(x):
    found.append(paired_call.is_better(x.shape[0], 8**2))
    return x

  split = device_mesh.batch_sharding(mesh).spec
  for rows in (2, 3):
    ask = jax.shard_map(part, mesh=mesh, in_specs=split, out_specs=split)
    jax.eval_shape(ask, jax.ShapeDtypeStruct((4 * rows,), jnp.float32))
  assert found == [True, False]


def test_cpus_evaluate_a_network_twice():
  ask = device_mesh.in_mesh(
    lambda: paired_call.is_better(1, 8**2), tiny_run.mesh(data=1)
  )
  assert not ask()


def test_a_batch_that_is_split_over_devices_stays_where_it_is(monkeypatch):
  """Halves one after the other would be moved between devices at every step."""
  monkeypatch.setattr(paired_call, 'MOST_PIXELS_ON_CPUS', 10**6)
  mesh = tiny_run.mesh()
  place = device_mesh.batch_sharding(mesh)

  def texts(weight):
    made = method(network(), guidance_weight=weight)

    def run(params, keys, label):
      keys, label = device_mesh.split_batch((keys, label), mesh)
      return made.sample(params, keys=keys, label=label)

    keys = image_keys(0, np.arange(16))
    compiled = (
      jax.jit(device_mesh.in_mesh(run, mesh), out_shardings=place)
      .lower(parameters(network()), keys, jnp.arange(16) % CLASSES)
      .compile()
    )
    return re.findall(
      r'= \S+ (all-\w+|collective-\w+|reduce-scatter)', compiled.as_text()
    )

  assert paired_call.is_better(2, SIZE**2)
  assert texts(1.5) == texts(0.0) == []


def exact(std, **fields):
  """-> what stands for a network: the exact denoiser of N(0, std^2)."""

  def apply(_, x, noise, **given):
    del given
    return known_denoisers.gaussian(std)(x, noise).x_0

  options = {
    'num_classes': None,
    'null_class': False,
    'lowres_level': False,
    'learned_variance': False,
    'condition_on': 'logsnr',
    'parameter_dtype': lambda name: jnp.float32,
  }
  return types.SimpleNamespace(apply=apply, **options | fields)


@pytest.mark.parametrize('weight', [0.5, 2.0])
def test_autoguidance_of_gaussians_has_the_spread_that_its_ode_has(weight):
  """With y = x_t / alpha and s = sigma / alpha, the flow of D is

    dy/ds = y s ((1 + w) / (s_1^2 + s^2) - w / (s_0^2 + s^2)),

  so y grows by ((s_1^2 + s^2)^(1 + w) / (s_0^2 + s^2)^w)^(1/2).
  """
  strong, weak = 0.5, 0.8
  grid = np.linspace(-9.0, 9.0, 257)
  objective = {'prediction': 'x_0'}
  options = {
    'run': functools.partial(dpm_solvers.dpm_solver_pp_3m),
    'grid': grid,
    'clip': 'none',
    'objective': objective,
  }
  made = method(exact(strong), guidance_weight=weight, guide='there', **options)
  guide = method(exact(weak), **options)
  sample = autoguided.sampling(made, guide)
  params = autoguided.Parameters({}, {})
  keys = image_keys(0, np.arange(2))
  x = np.asarray(jax.jit(sample)(params, keys=keys))
  starts = jax.vmap(lambda key: jax.random.fold_in(key, X_T))(keys)
  x_T = np.asarray(normals(starts, (SIZE, SIZE, 3)))

  def log_growth(logsnr):
    s = np.exp(-logsnr)  # s^2
    return ((1 + weight) * np.log(strong**2 + s)) / 2 - (
      weight * np.log(weak**2 + s)
    ) / 2

  alpha = [process.alpha_sigma(one)[0] for one in (grid[0], grid[-1])]
  factor = alpha[1] / alpha[0]
  factor *= np.exp(log_growth(grid[-1]) - log_growth(grid[0]))
  np.testing.assert_allclose(x, factor * x_T, rtol=2e-3, atol=1e-4)
  # The weaker network is wider, so its guidance narrows the images.
  plain = jax.jit(method(exact(strong), **options).sample)({}, keys=keys)
  assert x.std() < 0.9 * np.asarray(plain).std()


def test_a_guide_may_predict_another_kind_and_know_no_classes():
  """Both give x_0 and eps. Guided by a copy of itself, nothing changes."""
  objective = {'prediction': 'x_0'}
  seen = {}

  def in_eps(_, x, noise, **given):
    seen.update(given)
    return known_denoisers.gaussian(0.5)(x, noise).eps

  weak = exact(0.5)
  weak.apply = in_eps
  strong = exact(0.5, num_classes=CLASSES)
  made = method(strong, objective=objective, guidance_weight=3.0, guide='there')
  guide = method(weak, objective={'prediction': 'eps'})
  params = autoguided.Parameters({}, {})
  sample = autoguided.sampling(made, guide)
  given = {'keys': image_keys(0, np.arange(2)), 'label': jnp.array([0, 1])}
  np.testing.assert_allclose(
    sample(params, **given),
    method(strong, objective=objective).sample({}, **given),
    atol=1e-3,
  )
  assert 'label' not in seen


def test_a_guide_of_classes_gets_the_labels_or_needs_a_null_class():
  seen = {}

  def apply(_, x, noise, *, label, **given):
    seen.update(label=label)
    return 0 * x

  weak = exact(1.0, num_classes=CLASSES)
  weak.apply = apply
  strong = exact(0.5, num_classes=CLASSES, null_class=True)
  made = method(strong, guidance_weight=1.0, guide='there')
  guide = method(weak, objective={'prediction': 'eps'})
  sample = autoguided.sampling(made, guide)
  params = autoguided.Parameters({}, {})
  keys = image_keys(0, np.arange(2))
  sample(params, keys=keys, label=jnp.array([2, 1]))
  assert seen['label'].tolist() == [2, 1]
  with pytest.raises(ValueError, match='3 classes and no null class'):
    sample(params, keys=keys)


def test_a_guide_that_is_named_and_not_given_is_refused():
  made = method(network(), guidance_weight=1.0, guide='runs/small')
  with pytest.raises(ValueError, match=r"sampler\.guide is 'runs/small'"):
    drawn(made, parameters(network()))


def test_weight_interval_and_rescaling_are_arguments_of_one_program():
  params = parameters(network())
  options = {'guidance_interval': (-1.5, 3.0), 'guidance_rescale': 0.3}
  first = method(network(), guidance_weight=1.0, **options)
  run = jax.jit(first.sample)
  given = {'keys': image_keys(0, np.arange(2)), 'label': jnp.array([0, 1])}
  images = []
  for weight, interval, rescale in (
    (1.0, (-1.5, 3.0), 0.3),
    (2.0, (-1.5, 3.0), 0.3),
    (2.0, (-9.0, 1.0), 0.3),
    (2.0, (-9.0, 1.0), 0.9),
  ):
    made = method(
      network(),
      guidance_weight=weight,
      guidance_interval=interval,
      guidance_rescale=rescale,
    )
    image = run(params, tuned=made.tune(), **given)
    np.testing.assert_allclose(
      image, jax.jit(made.sample)(params, **given), atol=1e-5
    )
    images.append(np.asarray(image))
  assert run._cache_size() == 1
  for before, after in zip(images, images[1:], strict=False):
    assert np.abs(before - after).max() > 1e-3
