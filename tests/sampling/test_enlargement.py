"""Pictures enlarged to any size: the parts in their order, by bands."""

import numpy as np
import pytest
from support import canvas_stages
from support.canvas_stages import photo

from cdm.methods.canvas_drawing import CanvasDrawing
from cdm.ops import resize
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_size import Asked, choose
from cdm.sampling.enlargement import Drawn, Enlargement
from cdm.sampling.picture_rows import WholePictures


def brightened():
  """A stage that shows its enlarged input, a little brighter."""

  def evaluate(params, views, x_t, logsnr, tuned):
    return {'x_0': views.upsampled + 0.1}

  def draw(evaluate, canvas, tuned):
    return evaluate(None, None)['x_0']

  stage = canvas_stages.stage(margin=2, factor=4)
  return stage._replace(canvas=CanvasDrawing(evaluate, draw), tune=None)


def enlarge(stage, images, *, memory=1 << 30, asked, **drawn):
  upscaler = CanvasUpscaler.of(stage, batch_size=4)
  size = choose(images.shape[1:3], upscaler.factor, Asked(**asked))
  made = Enlargement.of(upscaler, size, memory=memory)
  bands = made.bands(WholePictures(images), Drawn(**drawn))
  return np.concatenate(list(bands), axis=1), made


def by_hand(images, sizes):
  x = (2 * images.astype(np.float32) - 255) / 255
  for i, size in enumerate(sizes):
    if i:
      x = np.clip(resize.resize(x, size, method='bicubic'), -1, 1)
    if i + 1 < len(sizes):
      big = tuple(4 * n for n in x.shape[1:3])
      x = np.clip(resize.resize(x, big, method='bicubic') + 0.1, -1, 1)
  return x


@pytest.mark.parametrize('memory', [1 << 30, 400_000])
@pytest.mark.parametrize(
  ('scale', 'sizes'),
  [
    (4, [(31, 23), (124, 92)]),
    (2.5, [(31, 23), (78, 58)]),
    (6, [(31, 23), (47, 35), (186, 138)]),
  ],
)
def test_passes_and_resizes_follow_each_other(scale, sizes, memory):
  images = photo(31, 23)
  x, made = enlarge(
    brightened(),
    images,
    asked={'scale': scale},
    memory=memory,
    back_projections=0,
  )
  assert made.size.inputs == tuple(sizes[:-1])
  num_blocks = [
    len(plan.block_rows) * len(plan.block_columns) for plan in made.plans
  ]
  assert (max(num_blocks) > 1) == (memory < 1 << 30)
  expected = by_hand(images, sizes)
  assert x.shape == expected.shape
  np.testing.assert_allclose(x, expected, atol=1e-5)


def test_back_projection_is_with_the_low_res_picture_that_was_given():
  images = photo(31, 23)
  low = (2 * images.astype(np.float32) - 255) / 255
  inside = np.abs(low) < 0.7  # where no colour was clipped
  errors = []
  for rounds in (0, 3):
    x, _ = enlarge(
      brightened(), images, asked={'scale': 6}, back_projections=rounds
    )
    found = resize.resize(x, (31, 23), method='bicubic')
    errors.append(np.abs(found - low)[inside].mean())
  assert errors[0] > 0.15 and errors[1] < 0.02


def test_each_pass_of_a_chain_has_noise_of_its_own():
  """The network that draws what its noise is, twice."""

  def noise(x, logsnr, given):
    return 0.3 * x

  stage = canvas_stages.stage(
    canvas_stages.network(noise), sampled=canvas_stages.sampling(clip='none')
  )
  upscaler = CanvasUpscaler.of(stage, batch_size=4)
  grey = np.full((1, 16, 16, 3), 128, np.uint8)
  first, second = (
    np.concatenate(
      list(
        Enlargement.of(upscaler, choose((16, 16), 2, Asked(scale=scale))).bands(
          WholePictures(grey), Drawn(back_projections=0)
        )
      ),
      axis=1,
    )
    for scale in (2, 4)
  )
  a, b = first.ravel(), second[:, :32, :32].ravel()
  assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def test_every_window_of_every_pass_is_counted():
  seen = []
  _, made = enlarge(
    canvas_stages.stage(),
    photo(20, 20),
    asked={'scale': 3},
    on_windows=seen.append,
  )
  assert len(made.plans) == 2 and sum(seen) == made.num_windows


def test_nothing_is_drawn_before_the_first_band_is_taken():
  seen = []
  upscaler = CanvasUpscaler.of(canvas_stages.stage(), batch_size=4)
  size = choose((20, 20), 2, Asked(scale=4))
  made = Enlargement.of(upscaler, size)
  bands = made.bands(
    WholePictures(photo(20, 20)), Drawn(on_windows=seen.append)
  )
  assert not seen
  assert next(bands).shape == (1, 64, 80, 3) and seen


def test_the_memory_that_is_said_holds_the_network_on_a_cpu():
  upscaler = CanvasUpscaler.of(canvas_stages.stage(), batch_size=4)
  made = Enlargement.of(upscaler, choose((50, 50), 2, Asked()))
  network = made.bytes - sum(plan.bytes for plan in made.plans)
  at_once = made.plans[0].at_once
  # At least the input and the output of the network.
  assert at_once * 32 * 32 * 4 * 6 < network < 1 << 24
