"""The images that a search did not find are named, also after a restart."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cdm.evaluation import drawn_images
from cdm.methods.lowres_conditioning import Lowres
from cdm.sampling import search_report, upscale_files, upscale_inputs
from cdm.sampling.upscaler import Upscaler

SENTENCE = 'no image with the pixels of the low-res image'


def twice(x):
  return x.repeat(2, axis=-3).repeat(2, axis=-2)


def searching():
  """Magnifies 4 px to 8, and turns what is dark to black: it is not found."""

  def upscale_batch(lowres, keys, label):
    dark = lowres.mean(axis=(1, 2, 3), keepdims=True) < 50
    return jnp.asarray(twice(np.where(dark, 0, lowres)).astype(np.uint8))

  def is_found(images, lowres):
    return abs(images[:, ::2, ::2] - lowres.astype(int)).max((1, 2, 3)) < 2

  return Upscaler(
    upscale_batch=upscale_batch,
    image_size=8,
    lowres=Lowres(size=4, downsample='area'),
    record=None,
    batch_size=4,
    is_found=is_found,
  )


def grey(level, *shape):
  return np.full((*shape, 3), level, np.uint8)


def warnings(capsys):
  lines = capsys.readouterr().err.splitlines()
  return [line for line in lines if SENTENCE in line]


def test_a_picture_of_which_a_tile_is_not_found_is_named(tmp_path, capsys):
  wide = np.concatenate([grey(200, 4, 6), grey(30, 4, 6)], axis=1)
  pictures = {'light': grey(200, 4, 4), 'dark': grey(30, 4, 4), 'wide': wide}
  for name, x in pictures.items():
    Image.fromarray(x).save(tmp_path / f'{name}.png')
  files = [tmp_path / f'{name}.png' for name in pictures]
  for _ in range(2):  # the second time, all are there already
    inputs = upscale_inputs.check(files, tmp_path / 'out', tile=4)
    upscale_files.write_upscaled_files(
      tmp_path / 'out', searching(), inputs, None, seed=0
    )
    (text,) = warnings(capsys)
    assert 'was found for 2 of 3 images' in text
    named = re.findall(r'out/(\w+)\.png', text)
    assert named == ['dark', 'wide']


def test_held_out_images_that_are_not_found_are_named(tmp_path, capsys):
  levels = np.array([200, 30, 90, 10])
  originals = levels[:, None, None, None] + np.zeros((4, 8, 8, 3))
  originals, labels = originals.astype(np.uint8), np.zeros(4, np.int32)

  def write(out, count, upscaler):
    upscale_files.write_upscaled_held_out(
      tmp_path / out,
      upscaler,
      lambda numbers: (originals[numbers], labels[numbers]),
      count=count,
      seed=0,
      manifest={},
    )
    return warnings(capsys)

  (text,) = write('out', 4, searching())
  assert 'for 2 of 4 images' in text
  assert re.findall(r'upscaled/(\d+)\.png', text) == ['000001', '000003']
  assert not write('found', 1, searching())
  plain = dataclasses.replace(searching(), is_found=None)
  assert not write('plain', 4, plain)


def test_images_that_an_evaluation_does_not_find_are_numbered(capsys):
  levels = [200, 30, 90, None, 10]

  def read(n):
    return None if levels[n] is None else (grey(levels[n], 8, 8), 0)

  def drawn(upscaler):
    batches = drawn_images.stage_batches(upscaler, read, seed=0, count=5)
    return [n for numbers, _ in batches(0, 4) for n in numbers]

  assert drawn(searching()) == [0, 1, 2, 4]
  (text,) = warnings(capsys)
  assert 'for 2 of 5 images' in text and 'were kept: 1, 4;' in text
  assert drawn(dataclasses.replace(searching(), is_found=None)) == [0, 1, 2, 4]
  assert not warnings(capsys)


@pytest.mark.parametrize(
  'count, end', [(20, '19; more'), (23, '19 and 3 more; more')]
)
def test_a_report_of_many_images_stays_one_sentence(count, end, capsys):
  def read_tiles(n):
    return grey(30, 1, 4, 4), grey(0, 1, 8, 8)

  search_report.report(searching(), list(range(count)), read_tiles)
  (text,) = warnings(capsys)
  assert end in text
