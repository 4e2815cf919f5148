"""Pictures of any size: windows and blocks make what the whole would be."""

import functools

import jax
import numpy as np
import pytest
from support import canvas_stages
from support.canvas_stages import FACTOR, photo, sampling

from cdm.diffusion import dpm_solvers, edm_samplers, process, samplers
from cdm.diffusion.parameterization import predict
from cdm.distributed import device_mesh
from cdm.methods import autoguided, lowres_conditioning, regression
from cdm.methods.canvas_drawing import CanvasDrawing
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import resize
from cdm.ops.noise_plane import NoisePlane
from cdm.sampling import canvas_source
from cdm.sampling.canvas_upscaler import CanvasUpscaler, Task
from cdm.sampling.picture_rows import WholePictures

# Sums in another order; a grey level is 0.0078.
ATOL = 1e-4


def drawn(stage, images, *, memory=1 << 30, plan=None, batch_size=8, **task):
  """-> (pictures [N, H, W, 3], Plan)."""
  upscaler = CanvasUpscaler.of(stage, batch_size=batch_size)
  height, width = images.shape[1:3]
  planned = upscaler.plan(
    (upscaler.factor * height, upscaler.factor * width),
    count=len(images),
    memory=memory,
    **(plan or {}),
  )
  given = Task(WholePictures(images), tuple(range(len(images))), **task)
  bands = list(upscaler.draw(given, planned))
  return np.concatenate(bands, axis=1), planned


@pytest.mark.parametrize(
  'run',
  [
    functools.partial(samplers.ddim, eta=0.5),
    samplers.ancestral,
    functools.partial(edm_samplers.heun, churn=0.5),
    edm_samplers.dpm_2,
    dpm_solvers.dpm_solver_pp_2s,
    functools.partial(dpm_solvers.dpm_solver_pp_2m, eta=1.0),
    dpm_solvers.dpm_solver_pp_3m,
  ],
)
def test_every_sampler_draws_from_windows_what_it_draws_whole(run):
  sampled = sampling(run, steps=3, clip='none')
  stage = canvas_stages.stage(sampled=sampled)
  images = photo(21, 35)
  x, plan = drawn(stage, images)
  assert len(plan.rows) == 2 and len(plan.columns) == 3
  expected = canvas_stages.whole(stage, sampled, images, plan.cut.unit)
  assert x.shape == expected.shape == (1, 42, 70, 3)
  assert expected.std() > 0.2
  np.testing.assert_allclose(x, expected, atol=ATOL)


@pytest.mark.parametrize('size', [(1, 1), (16, 16), (3, 90), (57, 2), (17, 16)])
def test_pictures_of_any_size_are_drawn_as_the_whole(size):
  """Those that are smaller than a window go on as their mirror image."""
  sampled = sampling()
  stage = canvas_stages.stage(sampled=sampled)
  x, plan = drawn(stage, photo(*size))
  expected = canvas_stages.whole(stage, sampled, photo(*size), plan.cut.unit)
  assert x.shape[1:3] == tuple(n * FACTOR for n in size)
  np.testing.assert_allclose(x, expected, atol=ATOL)


def test_blocks_are_drawn_as_the_whole():
  """Each is drawn from noise to the end by itself."""
  sampled = sampling()
  stage = canvas_stages.stage(sampled=sampled)
  images = photo(90, 75)
  x, plan = drawn(stage, images, memory=1_500_000)
  assert len(plan.block_rows) > 1 and len(plan.block_columns) > 2
  assert plan.is_exact and plan.margin == 2 * plan.cut.reach
  expected = canvas_stages.whole(stage, sampled, images, plan.cut.unit)
  np.testing.assert_allclose(x, expected, atol=ATOL)


def test_with_one_evaluation_blocks_need_not_overlap():
  """Whatever the network; one that takes means differs between windows."""
  stage = canvas_stages.stage(
    canvas_stages.network(statistical),
    margin=0,
    sampled=sampling(functools.partial(samplers.ddim, eta=0.0), steps=1),
  )
  images = photo(61, 75)
  whole, single = drawn(stage, images)
  parts, plan = drawn(stage, images, memory=600_000)
  assert plan.is_exact and plan.num_windows == single.num_windows
  assert len(plan.block_rows) > 1 and len(plan.block_columns) > 1
  np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_a_picture_depends_on_its_number_and_not_on_its_batch():
  stage = canvas_stages.stage()
  images = np.concatenate([photo(20, 9), photo(20, 9, seed=1)])
  both, _ = drawn(stage, images, batch_size=3)
  upscaler = CanvasUpscaler.of(stage, batch_size=1)
  plan = upscaler.plan((40, 18))
  task = Task(WholePictures(images[1:]), (1,))
  alone = np.concatenate(list(upscaler.draw(task, plan)), axis=1)
  np.testing.assert_allclose(both[1:], alone, atol=ATOL)
  first = np.concatenate(
    list(upscaler.draw(task._replace(numbers=(0,)), plan)), axis=1
  )
  assert np.abs(first - alone).max() > 0.01


def shown(what, augment='none', level=0.0, lowres='bicubic'):
  """A stage that shows what its windows know."""

  def evaluate(params, views, x_t, logsnr, tuned):
    return {'x_0': what(views)}

  def draw(evaluate, canvas, tuned):
    return evaluate(None, None)['x_0']

  stage = canvas_stages.stage(augment=augment, level=level, margin=0)
  return stage._replace(canvas=CanvasDrawing(evaluate, draw), tune=None)


def test_windows_see_the_enlarged_picture_without_borders_of_their_own():
  images = photo(37, 50)
  x, plan = drawn(shown(lambda views: views.upsampled), images)
  assert len(plan.rows) * len(plan.columns) > 6
  expected = resize.resize(
    (2 * images.astype(np.float32) - 255) / 255, (74, 100), method='bicubic'
  )
  np.testing.assert_allclose(x, expected, atol=2e-6)


def test_windows_see_their_part_of_the_low_res_picture():
  def enlarged(views):
    return views.lowres.repeat(2, axis=1).repeat(2, axis=2)

  images = photo(37, 50)
  x, _ = drawn(shown(enlarged), images)
  expected = images.repeat(2, axis=1).repeat(2, axis=2)
  np.testing.assert_allclose(255 * (x + 1) / 2, expected, atol=1e-3)


@pytest.mark.parametrize('memory', [1 << 30, 600_000])
def test_the_noise_of_augmentation_is_one_field_of_low_res_pixels(memory):
  level = 0.3
  stage = shown(lambda v: v.upsampled, augment='noise', level=level)
  images = photo(60, 50)
  x, plan = drawn(stage, images, memory=memory, seed=5)
  assert (memory == 1 << 30) == (len(plan.block_rows) == 1)
  z_0 = (2 * images.astype(np.float32) - 255) / 255
  path = (0, canvas_source.AUGMENT, 0)
  eps = NoisePlane(5, 0, path).rectangle(0, 0, 60, 50)[None]
  logsnr = lowres_conditioning.level_logsnr(np.array([level]), stage.lowres)
  alpha, sigma = process.alpha_sigma(logsnr)
  z = np.asarray(alpha * z_0 + sigma * eps, np.float32)
  expected = resize.resize(z, (120, 100), method='bicubic')
  np.testing.assert_allclose(x, expected, atol=5e-6)


class Blur:
  """A regression of two convolutions, which sees 2 pixels around a pixel."""

  num_classes = None

  def apply(self, variables, x, noise, *, label, train):
    kernel = np.full((5, 5, 3, 3), 1 / 75, np.float32)
    return canvas_stages.convolve(x, kernel)


def test_a_regression_predicts_a_picture_of_any_size():
  method = regression.regression(
    Blur(),
    regression.RegressionOptions(residual_scale=0.5),
    image_size=32,
    lowres=Lowres(size=16),
  )
  stage = canvas_stages.stage(margin=1)._replace(
    sample=method.sample, canvas=method.canvas, tune=None, params={}
  )
  images = photo(38, 31)
  x, plan = drawn(stage, images, memory=500_000)
  assert plan.evaluations == 1 and plan.is_exact
  assert len(plan.block_rows) > 1
  up = resize.resize(
    (2 * images.astype(np.float32) - 255) / 255, (76, 62), method='bicubic'
  )
  up = canvas_stages.padded(np.asarray(up), 76, 64)
  expected = np.clip(
    up + 0.5 * Blur().apply({}, up, None, label=0, train=0), -1, 1
  )
  np.testing.assert_allclose(x, expected[:, :, :62], atol=ATOL)


def gaussian(x, logsnr, given):
  """The exact network where pixels are N(0, 0.5^2), each by itself."""
  alpha, sigma = process.alpha_sigma(logsnr[:, None, None, None])
  return alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * x


def test_overlaps_have_the_variance_of_the_texture_outside():
  """x_0 is a known multiple of x_T, at every pixel alike.

  The mean of two textures, as blended tiles have it, has 0.71 of the contrast.
  """
  sampled = sampling(steps=30, clip='none')
  stage = canvas_stages.stage(
    canvas_stages.network(gaussian), sampled=sampled, margin=0
  )
  images = np.full((1, 256, 256, 3), 128, np.uint8)
  x, plan = drawn(stage, images, batch_size=64)

  def pixel(x_t, logsnr):
    x_0 = gaussian(x_t, logsnr, {})
    return predict('x_0', x_0, x_t, logsnr=logsnr)

  ones = np.ones((1, 1, 1, 1), np.float32)
  gain = float(samplers.ddim(pixel, ones, logsnrs=sampled.grid)[0, 0, 0, 0])
  assert gain == pytest.approx(0.5, abs=0.03)
  once = np.ones(plan.rows[-1][1], bool)
  for (_, end), (start, _) in zip(plan.rows, plan.rows[1:], strict=False):
    once[start:end] = False
  for part in (x[0][~once][:, ~once], x[0][once][:, once]):
    # The error of a standard deviation of 50,000 values is 0.3%.
    assert part.size > 50_000
    assert part.std() == pytest.approx(gain, rel=0.01)


def statistical(x, logsnr, given):
  """Takes a part of the mean of what it sees away, as a normalisation may."""
  low = given['lowres']
  return low - 0.5 * low.mean(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize('memory', [1 << 30, 3_000_000])
def test_a_network_of_means_makes_no_seam_on_a_gradient(memory):
  """Joined at a hard border, the picture would fall by 11 steps of it."""
  stage = canvas_stages.stage(
    canvas_stages.network(statistical), margin=0, sampled=sampling(clip='none')
  )
  ramp = np.linspace(20, 230, 128).astype(np.float32) / 127.5 - 1
  images = np.broadcast_to(ramp[:, None], (1, 40, 128, 3))
  x, plan = drawn(stage, np.ascontiguousarray(images), memory=memory)
  assert (memory == 1 << 30) == plan.is_exact
  assert plan.columns[1][0] == 24
  step = (ramp[1] - ramp[0]) / FACTOR
  steps = np.diff(x, axis=2)[:, :, 4:-4] / step
  # The mean of a window grows by 24 steps, half of it within 8 pixels.
  assert steps.max() < 1.01 and steps.min() > 1 - 1.5 * 12 / 8 - 0.05


def test_a_constant_picture_stays_constant():
  stage = canvas_stages.stage(
    canvas_stages.network(statistical), margin=0, sampled=sampling(clip='none')
  )
  images = np.full((1, 45, 61, 3), 0.4, np.float32)
  x, _ = drawn(stage, images)
  np.testing.assert_allclose(x, 0.2, atol=1e-6)


def test_the_mesh_changes_the_speed_not_the_numbers():
  mesh = device_mesh.make_mesh(data=4, fsdp=2)
  stage = canvas_stages.stage()
  images = photo(21, 35)
  one, _ = drawn(stage, images)
  params = jax.device_put(stage.params, device_mesh.replicated(mesh))
  split = stage._replace(mesh=mesh, params=params)
  eight, plan = drawn(split, images, batch_size=12)
  assert plan.at_once == 8
  np.testing.assert_allclose(eight, one, atol=ATOL)


def test_a_start_level_begins_at_the_enlarged_picture():
  """A network that keeps what it sees makes the start picture, scaled."""

  def kept(x, logsnr, given):
    alpha, _ = process.alpha_sigma(logsnr[:, None, None, None])
    return x / alpha

  stage = canvas_stages.stage(
    canvas_stages.network(kept),
    start_level=0.01,
    margin=0,
    sampled=sampling(steps=50, clip='none'),
  )
  images = photo(30, 20)
  x, plan = drawn(stage, images)
  assert plan.evaluations == 1
  up = resize.resize(
    (2 * images.astype(np.float32) - 255) / 255, (60, 40), method='bicubic'
  )
  error = x - up
  assert 0 < error.std() < 0.2 and abs(error.mean()) < 0.01


def constant(value):
  def apply(x, logsnr, given):
    return 0 * x + value

  return canvas_stages.network(apply)


def test_a_weaker_network_guides_canvases():
  """D + w (D - D_weak) = 0.3 + 0.5 (0.3 - 0.1)."""
  options = dict(guidance_weight=0.5, guide='weaker')
  strong, weak = (
    canvas_stages.method(constant(value), sampled=sampling(**more))
    for value, more in [(0.3, options), (0.1, {})]
  )
  stage = canvas_stages.stage()._replace(
    canvas=autoguided.on_canvases(strong, weak),
    params=autoguided.Parameters({}, {}),
    tune=strong.tune,
  )
  x, _ = drawn(stage, photo(20, 20))
  np.testing.assert_allclose(x, 0.4, atol=1e-6)


@pytest.mark.parametrize('fields', [{}, {'start_level': 0.3}])
def test_a_residual_target_is_added_to_the_enlarged_picture(fields):
  """A network that says 0.5 of a residual in units of 0.2."""
  stage = canvas_stages.stage(
    constant(0.5), residual_scale=0.2, sampled=sampling(steps=20), **fields
  )
  images = photo(21, 35)
  x, _ = drawn(stage, images)
  low = (2 * images.astype(np.float32) - 255) / 255
  up = np.asarray(resize.resize(low, (42, 70), method='bicubic'))
  np.testing.assert_allclose(x, np.clip(up + 0.1, -1, 1), atol=1e-5)


def test_a_projected_picture_shrinks_to_its_low_res_picture():
  """Each window to its part, but for what crosses its border."""
  stage = canvas_stages.stage(
    constant(0.0), margin=0, sampled=sampling(project_lowres=True, clip='none')
  )
  images = photo(37, 50)
  x, plan = drawn(stage, images)
  assert len(plan.columns) > 3
  found = np.asarray(resize.resize(x, (37, 50), method='bicubic'))
  low = (2 * images.astype(np.float32) - 255) / 255
  assert np.abs(found - low).max() < 0.02


def test_every_window_is_counted_and_an_interrupt_ends_between_batches():
  stage = canvas_stages.stage(sampled=sampling(steps=3))
  seen = []
  _, plan = drawn(stage, photo(40, 40), batch_size=4, on_windows=seen.append)
  assert sum(seen) == plan.num_windows == 3 * len(plan.rows) ** 2
  assert max(seen) <= 4
  seen.clear()

  def stop(count):
    seen.append(count)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    drawn(stage, photo(40, 40), batch_size=4, on_windows=stop)
  assert len(seen) == 1


def test_a_method_of_one_size_is_refused():
  stage = canvas_stages.stage()._replace(canvas=None)
  with pytest.raises(ValueError, match=r"'photo' draws pictures of one size"):
    CanvasUpscaler.of(stage, batch_size=1)


def test_pictures_of_all_sizes_share_one_program():
  upscaler = CanvasUpscaler.of(canvas_stages.stage(), batch_size=4)
  for size in [(16, 16), (5, 40), (31, 22)]:
    task = Task(WholePictures(photo(*size)))
    plan = upscaler.plan((2 * size[0], 2 * size[1]), at_once=4)
    list(upscaler.draw(task, plan))
  assert upscaler.program._cache_size() == 1
