"""The diffusion method, against what a network that outputs zero must give.

A fresh U-Net outputs exactly zero, so losses and samples have closed forms.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import grids, samplers, schedules, weightings
from cdm.methods import lowres_conditioning
from cdm.methods.diffusion import Objective, Sampling, diffusion, draw_batch
from cdm.methods.lowres_conditioning import Lowres
from cdm.models.unet import UNet
from cdm.ops import pixels
from cdm.ops.keys import image_keys

SIZE = 8
SCHEDULE = schedules.cosine(100)


def network(**kw):
  return UNet(features=8, multipliers=(1,), num_blocks=1, norm_groups=4, **kw)


def method(
  net=None, lowres=None, spacing='10', clip='none', guidance=0.0, **options
):
  given = {k: v for k, v in options.items() if k in Sampling._fields}
  kw = {k: v for k, v in options.items() if k not in given}
  sampling = Sampling(
    run=functools.partial(samplers.ddim, eta=0.0),
    grid=grids.respaced(SCHEDULE, spacing=spacing),
    clip=clip,
    guidance_weight=guidance,
    **given,
  )
  return diffusion(
    net or network(),
    SCHEDULE,
    Objective(**kw),
    sampling,
    image_size=SIZE,
    lowres=lowres,
  )


def batch(n=64, classes=1):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)
  return {'image': jnp.asarray(x), 'label': jnp.arange(n) % classes}


def fresh(t):
  return jax.jit(t.init)(jax.random.key(0))


def loss_of(t, params, given, seed=0, train=True):
  run = jax.jit(functools.partial(t.loss, train=train))
  return run(params, given, key=jax.random.key(seed))


def spied(output=lambda x, label: 0 * x, **fields):
  """-> (what stands for a network, dict of what it was last given)."""
  seen = {}

  def apply(_, x, noise, *, label=None, **given):
    seen.clear()
    seen.update(given, noise=noise, label=label)
    return output(x, label)

  options = {
    'num_classes': None,
    'null_class': fields.get('num_classes') is not None,
    'lowres_level': False,
    'learned_variance': False,
    'condition_on': 'logsnr',
    'parameter_dtype': lambda name: jnp.float32,
  }
  return types.SimpleNamespace(apply=apply, **options | fields), seen


def sample_of(t, params, **given):
  stop = given.pop('stop_logsnr', None)
  run = jax.jit(functools.partial(t.sample, stop_logsnr=stop))
  return run(params, **given)


@pytest.mark.parametrize(
  ('levels', 'norm', 'expected'),
  [('discrete', 2, 1.0), ('piecewise', 1, np.sqrt(2 / np.pi))],
)
def test_a_zero_network_has_the_loss_of_pure_noise(levels, norm, expected):
  """E |eps|^p of a standard normal: 1 for p = 2, sqrt(2 / pi) for p = 1."""
  t = method(norm=norm, levels=levels)
  loss, scalars = loss_of(t, fresh(t), batch())
  assert loss.shape == scalars['logsnr'].shape == (64,)
  assert float(loss.mean()) == pytest.approx(expected, rel=0.02)


def test_the_loss_is_taken_in_its_target_and_weighted():
  """eps = 0 means x_0 = x_t / alpha: off by eps / SNR^0.5, to the square."""

  def snr(logsnr, target):
    assert target == 'x_0'
    return jnp.exp(logsnr)

  t = method(spied()[0], target='x_0', weighting=snr)
  loss, _ = t.loss({}, batch(), key=jax.random.key(0), train=True)
  assert float(loss.mean()) == pytest.approx(1.0, rel=0.02)


def test_the_variational_term_is_rescaled_to_the_length_of_the_chain():
  """T / 1000 with T = 100."""
  net, _ = spied(lambda x, _: jnp.tile(0 * x, 2), learned_variance=True)

  def loss(**kw):
    t = method(net, loss='hybrid', **kw)
    return t.loss({}, batch(4), key=jax.random.key(0), train=True)[0]

  simple = loss(vb_weight=0.0)
  plain, rescaled = loss(vb_weight=1.0), loss(vb_weight=1.0, vb_rescale=True)
  np.testing.assert_allclose(
    rescaled - simple, (plain - simple) / 10, rtol=1e-3
  )
  np.testing.assert_allclose(
    loss(vb_weight=0.5) - simple, (plain - simple) / 2, rtol=1e-3
  )


def test_a_network_of_steps_is_told_the_step():
  net, seen = spied(condition_on='t')
  method(net).loss({}, batch(100), key=jax.random.key(0), train=True)
  np.testing.assert_allclose(sorted(seen['noise']), range(100), atol=1e-3)


def test_the_low_res_input_is_noised_to_the_level_that_is_told():
  """Of flat images the spread is sigma_s, [IDDPM] eq. 17 in closed form."""
  net, seen = spied(lowres_level=True)
  t = diffusion(
    net,
    SCHEDULE,
    Objective(),
    Sampling(run=samplers.ddim, grid=grids.respaced(SCHEDULE, spacing='1')),
    image_size=64,
    lowres=Lowres(size=32, upsample='nearest', augment='noise'),
  )
  flat = {
    'image': jnp.full((8, 64, 64, 3), 128, jnp.uint8),
    'label': jnp.zeros(8, jnp.int32),
  }
  t.loss({}, flat, key=jax.random.key(0), train=True)
  level = np.asarray(seen['lowres_level'], float)
  assert sorted((8 * level).astype(int)) == list(range(8))  # stratified
  alpha_bar = (
    np.cos((level + 0.008) / 1.008 * np.pi / 2)
    / np.cos(0.008 / 1.008 * np.pi / 2)
  ) ** 2
  np.testing.assert_allclose(
    seen['lowres'].std(axis=(1, 2, 3)), np.sqrt(1 - alpha_bar), rtol=0.06
  )


def test_levels_are_drawn_one_per_example_and_stratified():
  t = method()
  _, scalars = loss_of(t, fresh(t), batch(100))
  drawn = schedules.t_from_logsnr(SCHEDULE, scalars['logsnr'])
  assert sorted(np.asarray(drawn).round().astype(int)) == list(range(100))


def test_microbatches_share_one_stratification():
  """The levels of four parts together meet every hundredth once."""
  t = method()
  given = batch(100) | draw_batch(jax.random.key(5), 100)
  params, seen = fresh(t), []
  run = jax.jit(functools.partial(t.loss, train=True))
  for i in range(4):
    part = {name: value[i::4] for name, value in given.items()}
    seen += list(run(params, part, key=jax.random.key(i))[1]['logsnr'])
  drawn = schedules.t_from_logsnr(SCHEDULE, jnp.array(seen))
  assert sorted(np.asarray(drawn).round().astype(int)) == list(range(100))


def test_a_zero_residual_is_the_upsampled_input():
  """x_0-prediction of the residual: no residual means u, exactly."""
  lowres = Lowres(size=4)
  t = method(lowres=lowres, prediction='x_0', residual_scale=0.1)
  z = pixels.to_float(batch(3)['image'][:, :4, :4])
  x = sample_of(t, fresh(t), keys=image_keys(0, np.arange(3)), lowres=z)
  u = lowres_conditioning.upsample(z, SIZE, lowres)
  np.testing.assert_allclose(x, u, atol=1e-6)


def test_the_residual_target_is_the_residual():
  """x_0-prediction of zero: the loss is the mean square of (x_0 - u) / s."""
  lowres, scale = Lowres(size=4), 0.25
  t = method(lowres=lowres, prediction='x_0', residual_scale=scale)
  given = batch()
  loss, _ = loss_of(t, fresh(t), given)
  x_0 = pixels.to_float(given['image'])
  u = lowres_conditioning.upsample(
    lowres_conditioning.downsample(x_0, lowres), SIZE, lowres
  )
  expected = jnp.mean(((x_0 - u) / scale) ** 2, axis=(1, 2, 3))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_clipping_keeps_a_residual_stage_inside_the_image_range():
  lowres = Lowres(size=4)
  t = method(lowres=lowres, clip='static', prediction='eps', residual_scale=1.0)
  z = pixels.to_float(batch(3)['image'][:, :4, :4])
  x = sample_of(t, fresh(t), keys=image_keys(0, np.arange(3)), lowres=z)
  assert float(jnp.abs(x).max()) <= 1.0 + 1e-5


@pytest.mark.parametrize('scale', [None, 0.3])
def test_a_projected_image_shrinks_to_its_low_res_image(scale):
  lowres = Lowres(size=4, augment='noise', downsample='area')
  t = method(
    network(lowres_level=True),
    lowres,
    prediction='v',
    residual_scale=scale,
    project_lowres=True,
  )
  z = pixels.to_float(batch(3)['image'][:, :4, :4])
  x = sample_of(
    t,
    fresh(t),
    keys=image_keys(0, np.arange(3)),
    lowres=z,
    level=jnp.asarray([0.0, 0.0, 0.2]),
  )
  shrunk = x.reshape(3, 4, 2, 4, 2, 3).mean(axis=(2, 4))
  np.testing.assert_allclose(shrunk[:2], z[:2], atol=1e-5)
  # The last one has noise, which is not to be found again in the image.
  assert float(jnp.abs(shrunk - z)[2].max()) > 0.01


def test_sampling_stops_where_it_is_told():
  """DDIM with x_0 = 0 keeps eps, so x_s has standard deviation sigma_s."""
  t = method(prediction='x_0')
  keys = image_keys(0, np.arange(64))
  stop = 0.4
  x = sample_of(t, fresh(t), keys=keys, stop_logsnr=stop)
  sigma = np.sqrt(1 / (1 + np.exp(stop)))
  assert float(x.std()) == pytest.approx(sigma, rel=0.02)


def test_a_dropped_label_trains_the_null_class_alone():
  net = network(num_classes=3, null_class=True)
  given = batch(16, classes=3)

  def label_gradient(dropout):
    t = method(net, label_dropout=dropout)
    # The last layer is zero at first and would hide what lies before it.
    params = jax.tree.map(
      lambda p: p + 0.1 * jax.random.normal(jax.random.key(7), p.shape),
      fresh(t),
    )
    grads = jax.jit(
      jax.grad(
        lambda p: t.loss(p, given, key=jax.random.key(0), train=True)[0].mean()
      )
    )(params)
    return np.abs(grads['label']['embedding']).sum(axis=-1)

  assert (label_gradient(1.0) > 0).tolist() == [False, False, False, True]
  assert (label_gradient(1e-9) > 0).tolist() == [True, True, True, False]


def test_guidance_by_itself_changes_nothing():
  """Without a label both sides are the null class: any weight is a no-op."""
  net = network(num_classes=3, null_class=True)
  keys = image_keys(0, np.arange(2))
  plain = method(net, clip='static', label_dropout=0.1)
  guided = method(net, clip='static', label_dropout=0.1, guidance=3.0)
  params = fresh(plain)
  np.testing.assert_allclose(
    sample_of(plain, params, keys=keys),
    sample_of(guided, params, keys=keys),
    atol=1e-5,
  )


@pytest.mark.parametrize(
  ('weight', 'interval', 'clip', 'expected'),
  [
    (0.0, None, 'none', 0.1),
    (2.0, None, 'none', -0.3),
    (2.0, (-50.0, 50.0), 'none', -0.3),
    (2.0, (50.0, 60.0), 'none', 0.1),
    (9.0, None, 'none', -1.7),
    (9.0, None, 'static', -1.0),
  ],
)
def test_guidance_leads_away_from_the_null_class(
  weight, interval, clip, expected
):
  """Class 1 is the picture 0.1, the null class 0.3: 0.1 + w (0.1 - 0.3)."""
  net, _ = spied(
    lambda x, label: 0 * x + label[:, None, None, None] / 10, num_classes=3
  )
  t = method(
    net,
    prediction='x_0',
    label_dropout=0.1,
    clip=clip,
    guidance=weight,
    guidance_interval=interval,
  )
  x = t.sample({}, keys=image_keys(0, np.arange(2)), label=jnp.array([1, 1]))
  np.testing.assert_allclose(
    x, np.full((2, SIZE, SIZE, 3), expected), atol=1e-3
  )


@pytest.mark.parametrize('train', [True, False])
def test_what_is_dropped_is_dropped_in_training_only(train):
  net, seen = spied(num_classes=3)
  t = method(net, label_dropout=1.0)
  t.loss({}, batch(6, classes=3), key=jax.random.key(0), train=train)
  assert seen['train'] is train and ('rngs' in seen) is train
  assert seen['label'].tolist() == ([3] * 6 if train else [0, 1, 2] * 2)


def test_evaluation_needs_no_dropout():
  net = network(num_classes=3, null_class=True, dropout=0.5)
  t = method(net, label_dropout=0.5)
  params = fresh(t)
  loss, _ = loss_of(t, params, batch(8, 3), train=False)
  assert np.isfinite(loss).all()


@pytest.mark.parametrize(
  ('kw', 'message'),
  [
    (dict(loss='hybrid'), r'learns variances'),
    (
      dict(net=network(learned_variance=True)),
      r'use --config\.method\.loss=hybrid',
    ),
    (
      dict(
        net=network(learned_variance=True),
        loss='hybrid',
        norm=1,
      ),
      r'of squared errors',
    ),
    (dict(label_dropout=0.1), r'no null class'),
    (dict(guidance=1.0), r'learned no null class to be guided away from'),
    (dict(prediction='vv'), r"method\.prediction is 'vv'; known are"),
    (dict(target='vv'), r"method\.target is 'vv'"),
    (dict(label_dropout=2.0), r'method\.label_dropout is 2\.0'),
    (dict(norm=1, weighting=weightings.min_snr), r'defined on squared errors'),
    (
      dict(lowres=Lowres(size=4), residual_scale=0.0),
      r'residual_scale is 0\.0',
    ),
    (
      dict(
        net=network(learned_variance=True),
        lowres=Lowres(size=4),
        loss='hybrid',
        residual_scale=0.1,
      ),
      r'scores x_0 as grey levels',
    ),
    (dict(residual_scale=0.1), r'no low-res input to take a residual from'),
    (dict(norm=3), r'method\.norm is 3'),
    (dict(levels='cosine'), r"method\.levels is 'cosine'"),
    (dict(clip='hard'), r"sampler\.clip is 'hard'"),
    (
      dict(lowres=Lowres(size=4), residual_scale=0.1, clip='dynamic'),
      r'no meaning for a residual target',
    ),
    (dict(clip_percentile=0.0), r'clip_percentile is 0\.0'),
    (dict(project_lowres=True), r'a base model has no low-res image'),
    (
      dict(guidance_interval=(2.0, -2.0)),
      r'is \(2\.0, -2\.0\); it must be \(low',
    ),
    (
      dict(lowres=Lowres(size=4, augment='noise')),
      r'model\.lowres_level is False',
    ),
  ],
)
def test_options_that_contradict_each_other_are_refused(kw, message):
  with pytest.raises(ValueError, match=message):
    method(**kw)


@pytest.mark.parametrize('target', ['x_0', 'v'])
def test_a_weight_that_explodes_for_eps_is_refused_with_its_number(target):
  """max(SNR, 1) on x_0 is 1 / SNR on eps, exp(9.2) at this chain's end."""
  fields = dict(weighting=weightings.truncated_snr, target=target)
  with pytest.raises(ValueError, match='weigh the error of eps up to'):
    method(network(), prediction='eps', **fields)
  method(network(), prediction='v', **fields)
  method(network(), prediction='eps', weighting=weightings.min_snr)


def test_a_null_class_without_dropped_labels_is_refused():
  with pytest.raises(ValueError, match='the null class is never trained'):
    method(network(num_classes=3, null_class=True))


def test_a_network_of_classes_draws_nothing_without_a_label():
  """It would look beyond its table of labels, and give NaN."""
  t = method(network(num_classes=3))
  params = jax.eval_shape(t.init, jax.random.key(0))
  with pytest.raises(ValueError, match='3 classes and no null class'):
    jax.eval_shape(t.sample, params, keys=image_keys(0, np.arange(2)))


@pytest.mark.parametrize(
  'options, words',
  [
    ({'guidance_rescale': 1.5, 'guidance': 2.0}, 'from 0 to 1'),
    ({'guidance_rescale': 0.7}, 'no guidance to rescale'),
  ],
)
def test_rescaling_guidance_has_its_limits(options, words):
  net = network(num_classes=3, null_class=True)
  with pytest.raises(ValueError, match=words):
    method(net, label_dropout=0.1, **options)
