"""What every method must do, whatever it learns and however it draws.

A new method joins by one line in METHODS.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization
from support import tiny_run

from cdm.diffusion import grids, samplers, schedules
from cdm.distributed import device_mesh
from cdm.methods import (
  classification,
  consistency_distillation,
  degraded_regression,
  detail_diffusion,
  diffusion,
  fsrgan,
  pixel_recursive,
  progressive_distillation,
  pulse,
  raisr,
  regression,
  scoring_rule,
)
from cdm.methods.base import Method
from cdm.methods.latent_search import Search
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import discriminator, fsrnet, resnet
from cdm.models.detail_network import DetailNetwork
from cdm.models.enlarging_resnet import EnlargingResnet
from cdm.models.pixel_recursive import PixelRecursive as PixelRecursiveNet
from cdm.models.stylegan import Generator
from cdm.models.unet import UNet
from cdm.models.unshuffled_resnet import UnshuffledResnet
from cdm.ops.keys import image_keys
from cdm.training import fit_step, frozen_state, step

SIZE, CLASSES, BATCH = 8, 3, 4


class Tiny(NamedTuple):
  """A method small enough to be compiled in seconds.

  Attributes:
    method: for images of SIZE pixels and CLASSES classes.
    draw: what it wants drawn once for a whole batch, see `make_step`.
    conditions: what `sample` is given for some images, beside their keys; {}
      where there is nothing, or nothing is drawn.
    sees_one_example: whether the loss of an example is a function of it alone.
    is_drawn: whether an image depends on its key.
    takes_labels: whether it uses the labels of images.
    draws_in_loss: whether its loss depends on a key.
    frozen: names of branches of its parameters that its loss does not train.
  """

  method: Method
  draw: Callable | None
  conditions: dict
  sees_one_example: bool = True
  is_drawn: bool = True
  takes_labels: bool = True
  draws_in_loss: bool = True
  frozen: tuple[str, ...] = ()


def tiny_unet(**fields):
  return UNet(
    features=8,
    multipliers=(1,),
    num_blocks=1,
    norm_groups=4,
    dropout=0.1,
    num_classes=CLASSES,
    null_class=True,
    **fields,
  )


def tiny_diffusion(lowres=None, residual_scale=None, conditions=None, **net):
  schedule = schedules.cosine(20)
  method = diffusion.diffusion(
    tiny_unet(**net),
    schedule,
    diffusion.Objective(label_dropout=0.3, residual_scale=residual_scale),
    diffusion.Sampling(
      run=samplers.ancestral, grid=grids.respaced(schedule, spacing='3')
    ),
    image_size=SIZE,
    lowres=lowres,
  )
  label = {'label': jnp.arange(3) % CLASSES}
  return Tiny(method, method.draw, label | (conditions or {}))


def tiny_super_resolution():
  return tiny_diffusion(
    lowres=Lowres(size=4, augment='noise'),
    residual_scale=0.2,
    lowres_level=True,
    conditions={
      'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3),
      'level': jnp.array([0.0, 0.1, 0.2]),
    },
  )


def tiny_student(is_consistent=False):
  """Super-resolution of a residual, with a teacher that is guided."""
  schedule = schedules.cosine(20)
  lowres = Lowres(size=4, augment='noise')
  objective = diffusion.Objective(
    prediction='v', label_dropout=0.3, residual_scale=0.2
  )

  def bound(num_steps, **fields):
    sampling = diffusion.Sampling(
      samplers.ddim, grids.trailing(schedule, num_steps=num_steps), **fields
    )
    net = tiny_unet(lowres_level=True)
    return diffusion.Diffusion(net, schedule, objective, sampling, SIZE, lowres)

  networks = bound(2), bound(4, guidance_weight=0.5)
  method = progressive_distillation.progressive_distillation(*networks, 2)
  if is_consistent:
    options = consistency_distillation.ConsistencyOptions(
      2, first_teacher_steps=4, last_teacher_steps=8
    )
    method = consistency_distillation.consistency_distillation(
      *networks, options
    )
  conditions = {
    'label': jnp.arange(3) % CLASSES,
    'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3),
    'level': jnp.array([0.0, 0.1, 0.2]),
  }
  return Tiny(method, method.draw, conditions)


def tiny_scored():
  schedule = schedules.cosine(20)
  drawn = diffusion.Diffusion(
    tiny_unet(),
    schedule,
    diffusion.Objective(prediction='v', label_dropout=0.3, residual_scale=0.2),
    diffusion.Sampling(samplers.ddim, grids.trailing(schedule, num_steps=1)),
    SIZE,
    Lowres(size=4),
  )
  method = scoring_rule.scoring_rule(
    drawn, scoring_rule.ScoringOptions(1.0, (2, 0))
  )
  conditions = {
    'label': jnp.arange(3) % CLASSES,
    'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3),
  }
  return Tiny(method, method.draw, conditions)


def tiny_classifier():
  net = resnet.ResNet50(
    num_classes=CLASSES, blocks=(1,), features=4, momentum=0.0
  )
  method, _ = classification.classifier(
    net,
    classification.ClassifierOptions(size=6),
    image_size=SIZE,
    normalise=resnet.normalise,
  )
  return Tiny(method, None, {}, sees_one_example=False)


def tiny_regression():
  method = regression.regression(
    tiny_unet(condition_on='nothing'),
    regression.RegressionOptions(residual_scale=0.2),
    image_size=SIZE,
    lowres=Lowres(size=4, augment='blur'),
  )
  conditions = {
    'label': jnp.arange(3) % CLASSES,
    'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3),
  }
  return Tiny(method, method.draw, conditions, is_drawn=False)


def tiny_enlarging_regression():
  method = regression.regression(
    EnlargingResnet(magnification=2, features=4, num_blocks=1, norm_groups=2),
    regression.RegressionOptions(norm=1),
    image_size=SIZE,
    lowres=Lowres(size=4, augment='blur', blur_fraction=1.0),
    enlarges=True,
  )
  conditions = {'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3)}
  return Tiny(
    method, method.draw, conditions, is_drawn=False, takes_labels=False
  )


def tiny_degraded_regression():
  method = degraded_regression.degraded_regression(
    UnshuffledResnet(
      features=4, num_blocks=1, patch_size=2, embedding_features=3
    ),
    degraded_regression.DegradedRegressionOptions(border_weight=0.5),
    image_size=SIZE,
    lowres=Lowres(size=4),
    num_levels=2,
  )
  conditions = {'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3)}
  return Tiny(
    method,
    None,
    conditions,
    is_drawn=False,
    takes_labels=False,
    draws_in_loss=False,
  )


def tiny_detail():
  schedule = schedules.cosine(20)
  drawn = detail_diffusion.DetailDiffusion(
    DetailNetwork(
      UnshuffledResnet(
        features=16, num_blocks=1, patch_size=4, embedding_features=3
      ),
      widths=(4, 4, 4),
      blocks=(0, 2, 1),
      embedding_features=4,
    ),
    schedule,
    diffusion.Objective(prediction='v', residual_scale=0.2),
    diffusion.Sampling(samplers.ddim, grids.trailing(schedule, num_steps=2)),
    SIZE,
    Lowres(size=4),
    num_levels=2,
  )
  method = diffusion.method_of(drawn)
  conditions = {'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3)}
  return Tiny(
    method, method.draw, conditions, takes_labels=False, frozen=('mean',)
  )


def tiny_pulse():
  method = pulse.pulse(
    Generator(image_size=SIZE, latent_size=4, feature_base=8, mapping_layers=2),
    discriminator.Discriminator(features=4),
    pulse.PulseOptions(fit_samples=20, search=Search(steps=3, restarts=2)),
    lowres=Lowres(size=4),
  )
  conditions = {'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3)}
  return Tiny(method, method.draw, conditions, takes_labels=False)


def tiny_raisr():
  method = raisr.Raisr(
    raisr.RaisrOptions(
      patch=3, window=1, angles=2, strength_edges=(), coherence_edges=()
    ),
    SIZE,
    Lowres(size=4, upsample='bilinear'),
  ).method
  conditions = {'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3)}
  return Tiny(method, None, conditions, is_drawn=False)


def tiny_pixel_recursive():
  net = PixelRecursiveNet(
    magnification=2,
    features=9,
    num_layers=1,
    hidden_features=9,
    conditioning_features=4,
    conditioning_blocks=1,
    norm_groups=2,
  )
  method = pixel_recursive.pixel_recursive(
    net,
    pixel_recursive.Options(temperature=1.1),
    image_size=SIZE,
    lowres=Lowres(size=4, augment='blur', blur_fraction=1.0),
  )
  conditions = {'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3)}
  return Tiny(method, method.draw, conditions, takes_labels=False)


def tiny_fsrgan():
  method = fsrgan.fsrgan(
    fsrnet.FsrNet(
      features=4,
      prior_features=4,
      coarse_blocks=0,
      encoder_blocks=1,
      decoder_blocks=0,
      hourglasses=1,
      hourglass_depth=1,
      norm_groups=2,
    ),
    discriminator.Discriminator(features=4),
    fsrgan.FsrganOptions(adversarial_weight=0.3, r1_weight=0.5),
    image_size=SIZE,
    lowres=Lowres(size=4, augment='blur', blur_fraction=1.0),
  )
  conditions = {'lowres': jnp.linspace(-1, 1, 3 * 48).reshape(3, 4, 4, 3)}
  return Tiny(
    method, method.draw, conditions, is_drawn=False, takes_labels=False
  )


METHODS = {
  'diffusion, base': tiny_diffusion,
  'diffusion, super-resolution': tiny_super_resolution,
  'progressive distillation': tiny_student,
  'consistency distillation': functools.partial(tiny_student, True),
  'scoring rule': tiny_scored,
  'diffusion, details of a mean': tiny_detail,
  'classification': tiny_classifier,
  'regression': tiny_regression,
  'regression, low-res input': tiny_enlarging_regression,
  'regression, degraded input': tiny_degraded_regression,
  'raisr': tiny_raisr,
  'pixel recursive': tiny_pixel_recursive,
  'fsrgan': tiny_fsrgan,
  'pulse': tiny_pulse,
}
every_method = pytest.mark.parametrize('name', METHODS)


@functools.cache
def tiny(name):
  return METHODS[name]()


def batch_of(name, seed=0):
  """-> a batch as a training step gives it to the loss."""
  rng = np.random.default_rng(seed)
  draw = tiny(name).draw
  drawn = draw(jax.random.key(seed), BATCH) if draw else {}
  return drawn | {
    'image': rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
    'label': np.arange(BATCH, dtype=np.int32) % CLASSES,
    'example': np.arange(BATCH, dtype=np.int32),
  }


@functools.cache
def compiled_init(name):
  return jax.jit(tiny(name).method.init)


@functools.cache
def trained(name):
  """-> parameters off the zeros that a network begins with."""
  params = compiled_init(name)(jax.random.key(1))
  accumulate = tiny(name).method.accumulate
  if accumulate is not None:
    return jax.jit(accumulate)(params, batch_of(name))[0]
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  return tree.unflatten(
    x + 0.1 * jax.random.normal(key, x.shape)
    for x, key in zip(leaves, keys, strict=True)
  )


def frozen_of(name):
  """-> {'frozen': parameters of the teacher}, or {}."""
  init = tiny(name).method.init_frozen
  return {} if init is None else {'frozen': jax.jit(init)(jax.random.key(3))}


@functools.cache
def compiled_loss(name):
  if tiny(name).method.loss is None:
    pytest.skip(f'{name} is fitted without a loss')
  return jax.jit(functools.partial(tiny(name).method.loss, train=True))


def loss_of(name, batch, seed=0):
  given = frozen_of(name)
  key = jax.random.key(seed)
  return compiled_loss(name)(trained(name), batch, key=key, **given)


@functools.cache
def sampler_of(name):
  if tiny(name).method.sample is None:
    pytest.skip(f'{name} draws nothing')
  method = tiny(name).method
  if method.prepare is None:
    return jax.jit(method.sample)
  prepared = jax.jit(method.prepare)(trained(name))
  sample = jax.jit(method.sample)
  return lambda params, **given: sample(prepared, **given)


@every_method
def test_parameters_are_float32_and_depend_on_the_key_only(name):
  made, other = (compiled_init(name)(jax.random.key(seed)) for seed in (0, 1))
  again = jax.jit(METHODS[name]().method.init)(jax.random.key(0))
  assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {np.dtype('float32')}
  tiny_run.assert_same(made, again)
  pairs = zip(jax.tree.leaves(made), jax.tree.leaves(other), strict=True)
  is_random = tiny(name).method.loss is not None
  assert any((a != b).any() for a, b in pairs) == is_random


@every_method
def test_there_is_a_finite_loss_for_every_example(name):
  loss, scalars = loss_of(name, batch_of(name))
  assert loss.shape == (BATCH,)
  for value in (loss, *scalars.values()):
    assert value.dtype == jnp.float32 and value.shape in ((), (BATCH,))
    assert jnp.isfinite(value).all()


@every_method
def test_a_loss_depends_on_the_example_and_not_on_its_place(name):
  """Nor on the others, unless the network normalises over the batch."""
  batch = batch_of(name)
  whole, _ = loss_of(name, batch)
  order = np.array([3, 1] if tiny(name).sees_one_example else [3, 1, 0, 2])
  moved, _ = loss_of(name, {k: v[order] for k, v in batch.items()})
  np.testing.assert_allclose(moved, whole[order], rtol=1e-4)


@every_method
def test_other_keys_and_example_numbers_draw_otherwise(name):
  if not tiny(name).draws_in_loss:
    pytest.skip(f'the loss of {name} draws nothing')
  batch = batch_of(name)
  first, _ = loss_of(name, batch)
  renumbered = batch | {'example': batch['example'] + BATCH}
  for other, _ in (loss_of(name, batch, seed=1), loss_of(name, renumbered)):
    assert (jnp.abs(first - other) > 1e-6).all()


@every_method
def test_compiling_does_not_change_the_loss(name):
  batch = {k: jnp.asarray(v) for k, v in batch_of(name).items()}
  compiled, _ = loss_of(name, batch)
  method = tiny(name).method
  given = frozen_of(name)
  plain, _ = method.loss(
    trained(name), batch, key=jax.random.key(0), train=True, **given
  )
  np.testing.assert_allclose(compiled, plain, rtol=1e-4)


@every_method
def test_the_gradient_reaches_every_parameter(name):
  compiled_loss(name)  # skips what has none

  def mean(params):
    given = dict(key=jax.random.key(0), train=True, **frozen_of(name))
    return tiny(name).method.loss(params, batch_of(name), **given)[0].mean()

  gradient = jax.jit(jax.grad(mean))(trained(name))
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    where = jax.tree_util.keystr(path)
    is_frozen = path[0].key in tiny(name).frozen
    assert jnp.isfinite(leaf).all() and (leaf != 0).any() != is_frozen, where


@every_method
def test_a_label_that_is_no_class_is_not_taken_for_one(name):
  """Its loss is no number, at which a run stops; the others have theirs."""
  if not tiny(name).takes_labels:
    pytest.skip(f'{name} takes no labels')
  batch = batch_of(name)
  batch['label'][1] = CLASSES + 1
  loss, _ = loss_of(name, batch, seed=1)  # of which no method drops label 1
  assert jnp.isnan(loss).tolist() == [False, True, False, False]


@every_method
def test_images_are_float32_and_in_range(name):
  x = sampler_of(name)(
    trained(name), keys=image_keys(0, np.arange(3)), **tiny(name).conditions
  )
  assert x.shape == (3, SIZE, SIZE, 3) and x.dtype == jnp.float32
  assert float(jnp.abs(x).max()) <= 1 + 1e-5


@every_method
def test_an_image_depends_on_its_own_key_and_conditions_only(name):
  sample, conditions = sampler_of(name), tiny(name).conditions
  x = sample(trained(name), keys=image_keys(0, np.arange(3)), **conditions)
  order = np.array([2, 1, 0])
  moved = sample(
    trained(name),
    keys=image_keys(0, np.array([2, 7, 0])),
    **{k: v[order] for k, v in conditions.items()},
  )
  np.testing.assert_allclose(moved[::2], x[order][::2], atol=1e-5)
  if tiny(name).is_drawn:
    assert float(jnp.abs(moved[1] - x[1]).max()) > 1e-3


@every_method
def test_training_continues_from_a_saved_state_bit_for_bit(name):
  mesh = device_mesh.make_mesh(devices=jax.devices()[:1])

  def compiled_step():
    made = METHODS[name]()
    if made.method.accumulate is not None:
      return fit_step.make_fit_step(
        made.method.accumulate,
        mesh=mesh,
        shardings=device_mesh.replicated(mesh),
      )
    return step.make_step(
      made.method.loss,
      tiny_run.adam(),
      mesh=mesh,
      ema_decay=0.9,
      draw=made.draw,
    )

  def placed(seed):
    batch = {k: batch_of(name, seed)[k] for k in ('image', 'label')}
    return device_mesh.shard_batch(batch, mesh)

  first, restarted = compiled_step(), compiled_step()
  state = tiny_run.init_state(
    tiny(name).method.init, tiny_run.adam(), key=jax.random.key(0), mesh=mesh
  )
  for frozen in frozen_of(name).values():
    place = device_mesh.replicated(mesh)
    state = frozen_state.add(state, jax.device_put(frozen, place))
  for seed in (0, 1):
    state, _ = first(state, placed(seed))
  copy = written_and_read(state)
  straight, _ = first(state, placed(2))
  resumed, _ = restarted(copy, placed(2))
  tiny_run.assert_same(resumed, straight)


def written_and_read(state):
  """-> a state that was bytes in between."""
  plain = state.replace(key=jax.random.key_data(state.key))
  read = serialization.from_bytes(plain, serialization.to_bytes(plain))
  read = read.replace(key=jax.random.wrap_key_data(read.key))
  return jax.tree.map(
    lambda leaf, like: jax.device_put(leaf, like.sharding), read, state
  )
