"""A texture that repeats is enlarged to one that repeats without a seam."""

import numpy as np
import pytest
from PIL import Image
from support import canvas_stages

from cdm.data.photographs import array_pictures
from cdm.ops.noise_plane import NoisePlane
from cdm.sampling import (
  enlarged_files,
  enlarged_inputs,
  enlarged_size,
  wrapped_picture,
)
from cdm.sampling import upscaler as sampling_upscaler
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlarged_size import Asked
from cdm.sampling.wrapped_picture import Torus, Wrapped


def test_noise_repeats_with_the_picture():
  plane = NoisePlane(1, 2, (0, 1))
  torus = Torus(margin=(3, 70), period=(50, 90))
  whole = wrapped_picture.noise(plane, (0, 0), (160, 260), torus, 3)
  np.testing.assert_array_equal(
    whole[3:53, 70:160], plane.rectangle(0, 0, 50, 90)
  )
  np.testing.assert_array_equal(whole[:110], whole[50:])
  np.testing.assert_array_equal(whole[:, :170], whole[:, 90:])
  part = wrapped_picture.noise(plane, (41, 64), (30, 40), torus, 3)
  np.testing.assert_array_equal(part, whole[41:71, 64:104])


@pytest.mark.parametrize(
  ('given', 'scale', 'steps'),
  [((12, 20), 4.0, (1, 1)), ((12, 20), 2.5, (2, 2)), ((7, 9), 1.5, (7, 9))],
)
def test_margins_are_whole_pixels_of_both(given, scale, steps):
  size = enlarged_size.choose(given, 4, Asked(scale=scale), any_factor=True)
  wrapped = Wrapped.of(given, size, reach=10, evaluations=2)
  for i, step in enumerate(steps):
    margin = wrapped.torus.margin[i]
    assert margin % step == 0
    assert 20 * given[i] / (size.height, size.width)[i] <= margin
    assert wrapped.size.inputs[0][i] == given[i] + 2 * margin
  assert wrapped.size.passes == ((wrapped.size.height, wrapped.size.width),)
  image = np.random.default_rng(0).integers(0, 256, (*given, 3), np.uint8)
  (one,) = array_pictures.taken(image).photographs
  padded = wrapped.padded(one).samples
  assert padded.shape[:2] == wrapped.size.inputs[0]
  top, left = wrapped.torus.margin
  np.testing.assert_array_equal(
    padded[top:, left:][: given[0], : given[1]], image
  )
  # What is cut out has the size that was asked for.
  drawn = np.zeros((wrapped.size.height, wrapped.size.width, 3))
  bands = wrapped.cut(iter([drawn[:5], drawn[5:6], drawn[6:]]))
  assert np.concatenate(list(bands)).shape[:2] == (size.height, size.width)
  with pytest.raises(ValueError, match='more than one pass'):
    Wrapped.of((5, 5), enlarged_size.choose((5, 5), 2, Asked(scale=4)), 1, 1)


def test_a_texture_repeats_without_a_seam(tmp_path, monkeypatch):
  """Wider margins change nothing, so that edges meet as if there were none."""
  path = tmp_path / 'texture.png'
  Image.fromarray(canvas_stages.photo(18, 25)[0]).save(path)
  stage = canvas_stages.stage(size=16)
  upscaler = sampling_upscaler.stage_upscaler(stage, None, batch_size=4)

  def drawn(name, **settings):
    out = tmp_path / name
    inputs = enlarged_inputs.check([path], out, scale=2.0)
    enlarged_files.write_enlarged_files(upscaler, inputs, Settings(**settings))
    return np.asarray(Image.open(out / path.name), float)

  wrapped, alone = drawn('wrapped', wrap=True), drawn('alone')
  assert wrapped.shape == alone.shape == (36, 50, 3)
  monkeypatch.setattr(wrapped_picture, '_FILTERS', 21)
  np.testing.assert_allclose(drawn('wider', wrap=True), wrapped, atol=1)
  # Far from the border a margin makes no difference; at the border it does.
  assert np.abs(alone - wrapped)[14:-14, 20:-20].max() <= 1
  assert np.abs(alone - wrapped).max() > 8
  seams = [
    max(
      np.abs(x[0] - x[-1]).mean() / np.abs(np.diff(x, axis=0)).mean(),
      np.abs(x[:, 0] - x[:, -1]).mean() / np.abs(np.diff(x, axis=1)).mean(),
    )
    for x in (wrapped, alone)
  ]
  assert seams[0] < 1.3 < seams[1]
