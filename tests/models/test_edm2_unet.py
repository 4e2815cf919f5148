"""EDM2's network against EDM2's own program, and what it is made to keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import edm2_weights
from support.oracles import assert_matches, oracle

from cdm.diffusion import parameterization
from cdm.diffusion.preconditioning import Edm
from cdm.models import edm2_plan, edm2_unet, flops, loss_uncertainty
from cdm.models import magnitude_preserving as mp
from cdm.models.edm2_unet import Edm2UNet
from cdm.models.loss_uncertainty import LossUncertainty

NOTES, STORED = oracle('edm2_unet')
MODELS = NOTES['settings']['models']


def check(mine, key, **tol):
  assert_matches(mine, STORED[key], NOTES['keys'][key]['tol'] | tol, key)


def channels_last(key):
  return np.moveaxis(np.asarray(STORED[key], np.float32), 1, -1)


def magnitude(x):
  return float(jnp.sqrt(jnp.mean(jnp.square(x))))


def new_params(net, *inputs, **conditions):
  """-> random parameters."""

  @jax.jit
  def init(key):
    return net.init(key, *inputs, train=False, **conditions)['params']

  return init(jax.random.key(0))


def test_the_operations_are_edm2s():
  with jax.enable_x64():
    read = {
      name: jnp.asarray(STORED[f'basic/{name}'], jnp.float64)
      for name in ('x', 'a', 'b', 'c', 'w', 'linear/w', 'linear/x')
    }
    a, b, c = (jnp.moveaxis(read[name], 1, -1) for name in 'abc')

    def expect(name, found):
      check(found, f'basic/{name}_f64')

    expect('mp_silu', mp.silu(read['x']))
    for t in (0.5, 0.3):
      expect(f'mp_sum/{t}', jnp.moveaxis(mp.mix(a, b, t), -1, 1))
      joined = mp.concatenate(a, c, t)
      expect(f'mp_cat/{t}', jnp.moveaxis(joined, -1, 1))
    kernel = read['w'].transpose(2, 3, 1, 0)
    for name, factor in (('normalize', 1.0), ('normalize_tiny', 1e-3)):
      found = mp.normalize_kernel(factor * kernel)
      expect(name, found.transpose(3, 2, 0, 1))
    expect('normalize_dim1', jnp.moveaxis(mp.normalize(c, [-1]), -1, 1))
    for taps in ((1, 1), (1, 3, 3, 1)):
      name = ''.join(map(str, taps))
      for theirs, ours in (('down', 'half'), ('up', 'double')):
        found = mp.resample(a, ours, taps)
        expect(f'{theirs}/{name}', jnp.moveaxis(found, -1, 1))
    conv = mp.MpConv(6, 3, jnp.float64)
    found = conv.apply({'params': {'kernel': kernel}}, a, 0.7)
    expect('mpconv', jnp.moveaxis(found, -1, 1))
    dense = mp.MpConv(4, dtype=jnp.float64)
    weights = {'params': {'kernel': read['linear/w'].T}}
    expect('linear/out', dense.apply(weights, read['linear/x']))
    # Where all weights of an output are 0, the gradient is finite too.
    slope = jax.grad(lambda w: mp.normalize_kernel(w).sum())(kernel)
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize('model', MODELS)
def test_outputs_and_gradients_are_edm2s(model, monkeypatch):
  """The bare network, and the denoiser with and without a label."""
  keywords = MODELS[model]['kw']
  net = edm2_weights.network(keywords)
  params, constants = edm2_weights.parameters(
    NOTES['weights'][model], net.head_features
  )
  own = params.pop('loss_uncertainty')
  monkeypatch.setattr(
    edm2_unet, 'fourier_constants', lambda _: constants['emb']
  )
  monkeypatch.setattr(
    loss_uncertainty, 'fourier_constants', lambda _: constants['logvar']
  )
  edm = Edm(keywords['sigma_data'])
  x, xn, probe = (channels_last(f'{model}/{k}') for k in ('x', 'xn', 'probe'))
  sigma, n = STORED[f'{model}/sigma'], len(x)
  logsnr, label = -2 * np.log(sigma), None
  noises = [-8 * STORED[f'{model}/c_noise'], logsnr, logsnr]
  if net.num_classes:
    label = STORED[f'{model}/y'].argmax(-1)
    label = np.concatenate([label, label, np.full(n, net.num_classes)])

  def evaluate(x, xn):
    x_t = xn / np.sqrt(1 + sigma**2)[:, None, None, None]
    scaled = parameterization.network_input(edm, x_t, logsnr=logsnr)
    both = jnp.concatenate([x, scaled, scaled])
    given = {} if label is None else {'label': label}
    noise = np.concatenate(noises)
    out, seen = edm2_weights.with_outputs(net, params, both, noise, **given)
    outs = [
      parameterization.predict(edm, part, x_t, logsnr=logsnr).x_0
      for part in jnp.split(out, 3)[1:]
    ]
    return (out[:n], *outs), {name: value[:n] for name, value in seen.items()}

  @jax.jit
  def run(x, xn):
    if mixed:
      return *evaluate(x, xn), None
    outs, back, seen = jax.vjp(evaluate, x, xn, has_aux=True)
    return outs, seen, back((probe, probe, jnp.zeros_like(probe)))

  # An example whose label is a mixture of classes is left out: ours are whole.
  # That model is also compiled without its gradient, which takes long.
  mixed = model == 'cond_balance'
  whole = slice(int(mixed), None)
  (out, denoised, unlabelled), seen, slopes = run(x, xn)

  def expect(key, found, **tol):
    key = f'{model}/{key}'
    tol = NOTES['keys'][key]['tol'] | tol
    assert_matches(found[whole], channels_last(key)[whole], tol, key)

  assert np.abs(np.asarray(out)).max() > 0.5
  expect('unet_out_f32', out)
  expect('denoised_f32', denoised)
  if slopes is not None:
    expect('unet_grad_x_f64', slopes[0])
    expect('precond_grad_xn_f64', slopes[1])
  u = LossUncertainty(keywords['logvar_channels'], is_normalized=True)
  check(
    u.apply({'params': own}, logsnr).reshape(-1, 1, 1, 1), f'{model}/logvar_f32'
  )
  single = {'rtol': 2e-5, 'atol': 2e-5}
  if label is not None:
    expect('denoised_nolabel_f64', unlabelled, **single)
  names = MODELS[model]['block_names']
  for name in names:
    key = f'{model}/act/{name}_f64'
    if key in NOTES['keys']:
      ours = seen[edm2_weights.block_name(name)]
      expect(f'act/{name}_f64', ours, **single)
  if not mixed:
    found = [magnitude(seen[edm2_weights.block_name(name)]) for name in names]
    check(found, f'{model}/block_rms_f64', rtol=1e-5)
  count = flops.count_parameters(params) + flops.count_parameters(own)
  assert count == NOTES['settings']['measured'][model]['parameters']


def test_magnitudes_are_one_at_the_start(monkeypatch):
  """With weights as EDM2's program draws them, and with ours.

  Ours against the mean over 20 seeds of its own initialiser.
  """
  settings = NOTES['settings']['init']
  net = edm2_weights.network(settings['kw'])
  params, constants = edm2_weights.parameters(
    NOTES['weights']['init'], net.head_features
  )
  del params['loss_uncertainty']
  monkeypatch.setattr(
    edm2_unet, 'fourier_constants', lambda _: constants['emb']
  )
  x, noise = channels_last('init/x'), -8 * STORED['init/c_noise']
  label = STORED['init/y'].argmax(-1)

  @jax.jit
  def run(params):
    out, seen = edm2_weights.with_outputs(net, params, x, noise, label=label)
    names = map(edm2_weights.block_name, settings['block_names'])
    return out, jnp.stack([jnp.sqrt((seen[n] ** 2).mean()) for n in names])

  out, found = run(params)
  assert out.shape == x.shape and not out.any()
  check(found, 'init/block_rms_f64', rtol=1e-5)
  own = new_params(net, x, noise, label=label)
  assert jax.tree.structure(own) == jax.tree.structure(params)
  for kernel in jax.tree.leaves(own):
    if kernel.ndim:
      axes = tuple(range(kernel.ndim - 1))
      size = jnp.sqrt((kernel**2).mean(axes))
      np.testing.assert_allclose(size, 1.0, atol=1e-3)
  _, found = run(own)
  expected = STORED['init/own_initialiser_rms_mean']
  spread = STORED['init/own_initialiser_rms_std']
  assert (np.abs(expected - 1) < 0.15).all() and (spread < 0.08).all()
  assert (np.abs(found - expected) < 4 * spread).all()


# In millions, [EDM2] tab. 2 of the networks on latents of 64 x 64 x 4.
PUBLISHED = {192: 280, 256: 498, 320: 778, 384: 1100, 448: 1500}


def size_of(features):
  """-> parameters of the network on latents, with the weight of its loss."""
  net = Edm2UNet(features, out_channels=4, num_classes=1000)
  image = jax.ShapeDtypeStruct((1, 64, 64, 4), jnp.float32)
  one = jax.ShapeDtypeStruct((1,), jnp.float32)
  label = jax.ShapeDtypeStruct((1,), jnp.int32)
  init = functools.partial(net.init, train=False)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return 128 + flops.count_parameters(
    jax.eval_shape(init, key, image, one, label=label)
  )


def test_networks_have_the_published_sizes():
  """Every weight joins two widths, or one: a polynomial of the base width."""
  widths = np.asarray([128.0, 192.0, 448.0])
  sizes = [size_of(int(width)) for width in widths]
  # Files of its smallest network have 238 MiB in float16 (README of its code).
  assert sizes[0] * 2 / 2**20 == pytest.approx(238, abs=0.5)
  law = np.polyfit(widths, sizes, 2)
  for width, millions in PUBLISHED.items():
    found = np.polyval(law, width) / 1e6
    rounding = 0.05 if millions > 1000 else 0.001
    assert found == pytest.approx(millions, rel=rounding), width


SMALL = Edm2UNet(
  16,
  multipliers=(1, 2),
  num_blocks=1,
  attention_resolutions=(),  # but in the middle
  head_features=16,
  num_classes=4,
  null_class=True,
  lowres_level=True,
)


def test_all_inputs_reach_every_pixel():
  """And a channel of ones: the network of an image of zeros is not zero."""
  n, normal = 8, np.random.default_rng(0).standard_normal
  x, lowres = (
    np.repeat(normal((1, 8, 8, 3)), n, 0).astype(np.float32) for _ in 'ab'
  )
  noise, level = np.zeros((2, n), np.float32)
  label = np.zeros(n, int)
  x[1, 0, 0] += 1.0
  lowres[2, 0, 0] += 1.0
  noise[3], level[4], label[5], label[6] = 2.0, 0.5, 1, 4
  x[7], lowres[7] = 0.0, 0.0

  given = dict(label=label, lowres=lowres, lowres_level=level)
  params = jax.tree.map(
    lambda p: p if p.ndim else jnp.full((), 0.7),
    new_params(SMALL, x, noise, **given),
  )
  run = jax.jit(functools.partial(SMALL.apply, train=False))
  found = np.asarray(run({'params': params}, x, noise, **given))
  corner = np.abs(found[1:] - found[0])[:, -1, -1].max(axis=-1)
  assert (corner > 1e-4).all() and np.abs(found[7]).max() > 1e-3, corner


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('multipliers', ()),
    ('multipliers', (1, 0)),
    ('num_blocks', 0),
    ('head_features', 24),
    ('dropout', 1.0),
    ('concat_balance', 1.5),
    ('clip', 0.0),
    ('resample_filter', (1, 2)),
    ('attention_resolutions', (5,)),
    ('dtype', 'float16'),
    ('num_classes', 0),
  ],
)
def test_a_field_that_no_network_can_have_is_named(field, value):
  with pytest.raises(ValueError, match=f'^{field} '):
    edm2_plan.plan(SMALL.clone(**{field: value}), (16, 16))


def test_images_that_cannot_be_halved_are_refused():
  with pytest.raises(ValueError, match='multiples of 2'):
    edm2_plan.plan(SMALL, (15, 15))
