"""Pictures through one stage: every pixel where it belongs."""

import dataclasses
import json
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cdm.distributed import exit_codes
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import resize
from cdm.ops.keys import image_keys, seed_pairs, stage_keys
from cdm.ops.pixels import to_uint8
from cdm.sampling import upscale_files, upscale_inputs
from cdm.sampling import upscaler as sampling_upscaler
from cdm.sampling.cascade import Stage


def upscaler(num_classes=None, batch_size=3):
  """Magnifies 4 px to 8; with classes, the label darkens the red."""

  def sample(params, *, keys, lowres, label=None, **_):
    x = resize.resize(lowres, 8, method='nearest')
    if label is not None:
      x = x.at[..., 0].add(-label[:, None, None] * 2 / 255)
    return x

  stage = Stage(
    'upscaled',
    8,
    sample,
    jnp.float32(1.0),
    lowres=Lowres(size=4, downsample='area'),
    num_classes=num_classes,
  )
  return sampling_upscaler.stage_upscaler(stage, None, batch_size=batch_size)


def noise(*shape):
  return np.random.default_rng(0).integers(9, 256, shape, dtype=np.uint8)


def pixels(path):
  return np.asarray(Image.open(path))


def hold_out(
  out,
  originals,
  labels,
  *,
  num_classes=None,
  names=None,
  overwrite=False,
  **manifest,
):
  """Super-resolves held-out images."""
  upscale_files.write_upscaled_held_out(
    out,
    upscaler(num_classes),
    lambda numbers: (originals[numbers], labels[numbers]),
    count=len(originals),
    seed=0,
    manifest={'count': len(originals), **manifest},
    class_names=names,
    overwrite=overwrite,
  )


def files_to(out, files, seed=0, **options):
  """Super-resolves files, without a label."""
  inputs = upscale_inputs.check(files, out, tile=4)
  upscale_files.write_upscaled_files(
    out, upscaler(), inputs, None, seed=seed, **options
  )


def twice(x):
  return x.repeat(2, axis=-3).repeat(2, axis=-2)


def write(folder, **pictures):
  for name, x in pictures.items():
    Image.fromarray(x).save(folder / f'{name}.png')
  return [folder / f'{name}.png' for name in pictures]


def test_every_tile_comes_back_in_its_place():
  """Seven tiles in batches of three, the last one filled up."""
  tiles = noise(7, 4, 4, 3)
  keys = seed_pairs(0, np.arange(7))
  np.testing.assert_array_equal(upscaler()(tiles, keys=keys), twice(tiles))


def test_every_tile_keeps_its_own_label():
  tiles, label = noise(5, 4, 4, 3), np.array([0, 1, 2, 0, 1])
  expected = twice(tiles).astype(int)
  expected[..., 0] -= label[:, None, None]
  np.testing.assert_array_equal(
    upscaler(3)(tiles, keys=seed_pairs(0, np.arange(5)), label=label), expected
  )


def test_files_of_many_sizes_keep_their_own_pixels(tmp_path, capsys):
  """A stage that only magnifies must magnify the whole, seams included."""
  pictures = {
    'tile': noise(4, 4, 3), 'wide': noise(4, 11, 3), 'large': noise(9, 6, 3),
  }  # fmt: skip
  out = tmp_path / 'deep' / 'out'
  files_to(out, write(tmp_path, **pictures))
  for name, x in pictures.items():
    np.testing.assert_array_equal(pixels(out / f'{name}.png'), twice(x))
  assert f'{out / "wide.png"}\n' in capsys.readouterr().out


def test_the_overview_shows_what_has_the_size_of_a_tile(tmp_path):
  out = tmp_path / 'out'
  files = write(tmp_path, large=noise(9, 6, 3))
  files_to(out, files)
  assert not (out / 'upscaled.png').exists()
  files_to(out, write(tmp_path, a=noise(4, 4, 3)))
  assert (out / 'upscaled.png').exists()


def test_the_overview_takes_no_name_of_a_result(tmp_path):
  """Nor that of a file that lies there already."""
  out = tmp_path / 'out'
  inputs = {'Upscaled': noise(4, 4, 3), 'upscaled-2': 2 * noise(4, 4, 3)}
  files_to(out, write(tmp_path, **inputs))
  for name, x in inputs.items():
    np.testing.assert_array_equal(pixels(out / f'{name}.png'), twice(x))
  files_to(out, write(tmp_path, other=noise(4, 4, 3)))
  assert {path.name for path in out.iterdir()} == {
    'Upscaled.png', 'upscaled-2.png', 'upscaled-3.png', 'other.png',
    'upscaled.png',
  }  # fmt: skip


def test_files_that_would_overwrite_one_another_are_refused(tmp_path):
  (tmp_path / 'b').mkdir()
  files = write(tmp_path, x=noise(4, 4, 3))
  files += write(tmp_path / 'b', x=noise(4, 4, 3))
  with pytest.raises(ValueError, match=r'would both become .*/x\.png; rename'):
    files_to(tmp_path / 'out', files)
  with pytest.raises(ValueError, match='overwritten by its own result'):
    files_to(tmp_path, files[:1])


def test_bad_files_are_named_at_the_end_and_stop_no_other(tmp_path, capsys):
  files = write(tmp_path, good=noise(4, 4, 3), thin=noise(3, 40, 3))
  files += [tmp_path / 'no.png', *write(tmp_path, last=noise(4, 9, 3))]
  os.mkfifo(tmp_path / 'pipe.png')
  files.append(tmp_path / 'pipe.png')
  out = tmp_path / 'out'
  with pytest.raises(ValueError) as caught:
    files_to(out, files)
  assert exit_codes.classify(caught.value) is exit_codes.BAD_INPUT
  head, *lines = str(caught.value).splitlines()
  assert head.startswith('3 of 5 pictures were not super-resolved; the other 2')
  expected = (
    r'thin\.png: The image is 40x3 pixels, .* \(exit code 2\)',
    r'no\.png: there is no such file\. \(exit code 2\)',
    r'pipe\.png: is a pipe, not a picture file',
  )
  for line, text in zip(lines, expected, strict=True):
    assert re.search(text, line)
  assert {p.name for p in out.iterdir()} == {
    'good.png', 'last.png', 'upscaled.png',
  }  # fmt: skip


@pytest.mark.parametrize('count', [1, 2])
def test_without_any_good_file_nothing_is_begun(count, tmp_path):
  thin = write(tmp_path, a=noise(3, 40, 3), b=noise(3, 40, 3))[:count]
  message = r'^[^:]*/a\.png: The image is' if count == 1 else '2 of 2 pictures'
  with pytest.raises(ValueError, match=message):
    files_to(tmp_path / 'out', thin)
  assert not (tmp_path / 'out').exists()


def test_a_picture_that_vanishes_during_the_work_stops_no_other(tmp_path):
  files = write(tmp_path, a=noise(4, 4, 3), b=noise(4, 4, 3))
  out = tmp_path / 'out'
  inputs = upscale_inputs.check(files, out, tile=4)
  stage = upscaler()

  def vanish(*args):
    files[1].unlink(missing_ok=True)
    return upscaler().upscale_batch(*args)

  stage = dataclasses.replace(stage, upscale_batch=vanish)
  with pytest.raises(
    ValueError, match=r'1 of 2 .*\n.*b\.png: there is no such'
  ):
    upscale_files.write_upscaled_files(out, stage, inputs, None, seed=0)
  assert (out / 'a.png').exists() and not (out / 'b.png').exists()


def test_a_folder_stands_for_its_pictures_and_keeps_their_paths(tmp_path):
  for name in ('x/a', 'x/deep/a', 'y/a'):
    path = tmp_path / f'{name}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(4, 4, 3)).save(path)
  (tmp_path / 'x' / 'notes.txt').write_text('', encoding='utf-8')
  out = tmp_path / 'x' / 'out'
  for _ in range(2):  # The second start does not read the results of the first.
    files_to(out, [tmp_path / 'x'])
    found = {p.relative_to(out).as_posix() for p in out.rglob('*.png')}
    assert found == {'a.png', 'deep/a.png', 'upscaled.png'}
  files_to(tmp_path / 'two', [tmp_path / 'x' / 'deep', tmp_path / 'y'])
  assert (tmp_path / 'two' / 'deep' / 'a.png').exists()
  assert (tmp_path / 'two' / 'y' / 'a.png').exists()
  (tmp_path / 'none').mkdir()
  with pytest.raises(ValueError, match='a folder without picture files'):
    files_to(tmp_path / 'three', [tmp_path / 'none'])


def test_two_pictures_of_one_name_both_get_a_result(tmp_path):
  """Where only the case differs too: some file systems ignore it."""
  a, b = noise(4, 4, 3), 2 * noise(4, 4, 3)
  Image.fromarray(a).save(tmp_path / 'a.png')
  Image.fromarray(b).save(tmp_path / 'A.bmp')
  out = tmp_path / 'out'
  files_to(out, [tmp_path / 'a.png', tmp_path / 'A.bmp'])
  np.testing.assert_array_equal(pixels(out / 'a.png.png'), twice(a))
  np.testing.assert_array_equal(pixels(out / 'A.bmp.png'), twice(b))


def test_what_lies_there_is_kept_unless_overwriting_is_asked_for(tmp_path):
  files = write(tmp_path, a=noise(4, 4, 3), b=noise(4, 4, 3))
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'b.png').write_text('mine', encoding='utf-8')
  with pytest.raises(
    ValueError, match=r'b\.png would be overwritten; .*--over'
  ):
    files_to(out, files)
  assert [p.name for p in out.iterdir()] == ['b.png']
  files_to(out, files, overwrite=True)
  np.testing.assert_array_equal(pixels(out / 'b.png'), twice(noise(4, 4, 3)))


def test_an_interrupted_run_continues_its_own_results_only(tmp_path):
  files = write(tmp_path, a=noise(4, 4, 3), b=2 * noise(4, 4, 3))
  out = tmp_path / 'out'
  files_to(out, files)
  before = {path.name: path.stat().st_ino for path in out.iterdir()}
  (out / 'b.png').unlink()
  files_to(out, files)
  after = {path.name: path.stat().st_ino for path in out.iterdir()}
  assert after.keys() == before.keys() and after['a.png'] == before['a.png']
  with pytest.raises(ValueError, match=r'a\.png and 1 more would be overwr'):
    files_to(out, files, seed=1)
  write(tmp_path, a=noise(4, 4, 3) // 2)  # another picture of the same name
  with pytest.raises(ValueError, match=r'a\.png would be overwritten'):
    files_to(out, files)


def test_held_out_images_never_join_what_another_wrote(tmp_path):
  """A folder of numbered images would be taken for results."""
  originals, labels = noise(2, 8, 8, 3), np.zeros(2, np.int32)
  (tmp_path / 'lowres').mkdir()
  mine = tmp_path / 'lowres' / '000000.png'
  mine.write_text('mine', encoding='utf-8')
  other = tmp_path / 'lowres' / 'notes.txt'
  other.write_text('mine', encoding='utf-8')
  with pytest.raises(ValueError, match='lowres is not from an earlier start'):
    hold_out(tmp_path, originals, labels)
  assert mine.read_text(encoding='utf-8') == 'mine'
  hold_out(tmp_path, originals, labels, overwrite=True)
  assert pixels(mine).shape == (4, 4, 3) and other.exists()
  hold_out(tmp_path, originals, labels, seed=1, overwrite=True)
  saved = json.loads((tmp_path / 'upscaling.json').read_text(encoding='utf-8'))
  assert saved == {'count': 2, 'seed': 1}


def test_the_bar_counts_tiles_and_not_the_time_of_compiling(tmp_path, capsys):
  files = write(tmp_path, a=noise(4, 4, 3), b=noise(9, 9, 3))
  files_to(tmp_path / 'out', files)
  err = capsys.readouterr().err
  assert err.startswith('upscaling: compiling ...\n')
  assert 'upscaling: 10/10  100%' in err and 'tile/s' in err


def test_held_out_images_are_kept_in_four_versions(tmp_path):
  originals, labels = noise(5, 8, 8, 3), np.array([0, 1, 0, 1, 0], np.int32)
  hold_out(tmp_path, originals, labels, num_classes=2, names=['a', 'b'])
  means = originals.reshape(5, 4, 2, 4, 2, 3).mean(axis=(2, 4))
  for n in range(5):
    low, smooth, made, original = (
      pixels(tmp_path / folder / f'{n:06d}.png').astype(int)
      for folder in upscale_files.FOLDERS
    )
    np.testing.assert_array_equal(original, originals[n])
    assert np.abs(low - means[n]).max() <= 0.51
    expected = twice(low)
    expected[..., 0] -= labels[n]
    np.testing.assert_array_equal(made, expected)
    pillow = Image.fromarray(low.astype(np.uint8)).resize(
      (8, 8), Image.Resampling.BICUBIC
    )
    assert np.abs(smooth - np.asarray(pillow, int)).max() <= 2


def test_the_noise_of_a_tile_follows_its_number_not_its_batch():
  """A stage that draws noise: tile 5 is the same alone and among others."""

  def sample(params, *, keys, lowres, **_):
    return jax.vmap(lambda key: jax.random.uniform(key, (8, 8, 3)))(keys)

  stage = Stage('upscaled', 8, sample, jnp.float32(1), lowres=Lowres(size=4))
  run = sampling_upscaler.stage_upscaler(stage, None, batch_size=4)
  tiles, keys = noise(7, 4, 4, 3), seed_pairs(3, np.arange(7))
  whole = run(tiles, keys=keys)
  alone = run(tiles[5:6], keys=keys[5:6])
  np.testing.assert_array_equal(alone[0], whole[5])
  assert len({image.tobytes() for image in whole}) == 7
  # The pair is (seed, n): the keys are those of every other command.
  keys = stage_keys(image_keys(3, np.arange(7)), 0)
  expected = jax.vmap(lambda key: jax.random.uniform(key, (8, 8, 3)))(keys)
  np.testing.assert_array_equal(whole, to_uint8(expected))


def test_a_method_without_a_stage_gives_nothing_but_its_batches(tmp_path):
  """Nearest neighbour: no sampler, no parameters, no label."""
  nearest = sampling_upscaler.Upscaler(
    upscale_batch=lambda x, keys, label: jnp.asarray(twice(x)),
    image_size=8,
    lowres=Lowres(size=4, downsample='area'),
    record=None,
    batch_size=4,
  )
  originals, labels = noise(5, 8, 8, 3), np.arange(5)
  upscale_files.write_upscaled_held_out(
    tmp_path,
    nearest,
    lambda numbers: (originals[numbers], labels[numbers]),
    count=5,
    seed=0,
    manifest={},
  )
  for n in range(5):
    low, made = (
      pixels(tmp_path / folder / f'{n:06d}.png')
      for folder in ('lowres', 'upscaled')
    )
    np.testing.assert_array_equal(made, twice(low))


def test_held_out_images_that_are_there_are_not_made_again(tmp_path):
  """Written anew, a file of the same name is another file."""
  originals, labels = noise(5, 8, 8, 3), np.zeros(5, np.int32)

  def files():
    return {p: p.stat().st_ino for p in tmp_path.glob('*/*.png')}

  hold_out(tmp_path, originals, labels)
  first, content = files(), (tmp_path / 'bicubic/000002.png').read_bytes()
  hold_out(tmp_path, originals, labels)
  assert files() == first
  (tmp_path / 'bicubic' / '000002.png').unlink()
  hold_out(tmp_path, originals, labels)
  assert {p.name for p, n in files().items() if n != first[p]} <= {'000002.png'}
  assert (tmp_path / 'bicubic/000002.png').read_bytes() == content
  with pytest.raises(ValueError, match='another manifest: seed is 0 there, 1'):
    hold_out(tmp_path / 'x', originals, labels, seed=0)
    hold_out(tmp_path / 'x', originals, labels, seed=1)


def test_fewer_held_out_images_do_not_mix_with_more(tmp_path):
  """`cdm evaluate` pairs all files of the folders."""
  originals, labels = noise(3, 8, 8, 3), np.zeros(3, np.int32)
  hold_out(tmp_path, originals, labels)
  with pytest.raises(ValueError, match='count is 3 there, 2 now'):
    hold_out(tmp_path, originals[:2], labels[:2])


@pytest.mark.parametrize('count', [1, 8, 9, 30])
def test_the_overview_holds_for_any_number(count, tmp_path):
  """Beyond eight rows two groups stand side by side; 24 images at most."""
  originals = noise(count, 8, 8, 3)
  labels = np.zeros(count, np.int32)
  hold_out(tmp_path, originals, labels, names=['dog'])
  shown = min(count, upscale_files.SHOWN)
  rows = shown if shown <= 8 else (shown + 1) // 2
  height, width = pixels(tmp_path / 'upscaled.png').shape[:2]
  assert rows * 96 <= height < (rows + 1) * 96 + rows * 4
  assert (width > 8 * 96) == (shown > 8)


def test_what_is_left_out_of_a_file_is_said_once(tmp_path, caplog):
  image = Image.fromarray(noise(4, 4, 3))
  image.putalpha(9)
  image.save(tmp_path / 'clear.png')
  with caplog.at_level('WARNING'):
    files_to(tmp_path / 'out', [tmp_path / 'clear.png'])
  said = [line for line in caplog.messages if 'clear.png' in line]
  assert len(said) == 1 and 'laid over white' in said[0]


def test_white_of_deep_images_can_be_stated(tmp_path):
  path = tmp_path / 'deep.png'
  Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(path)
  assert upscale_inputs.read_image(path).max() == 16
  assert upscale_inputs.read_image(path, 4095).min() == 255
  with pytest.raises(ValueError, match='max_value is 0'):
    upscale_inputs.read_image(path, 0)


def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
  path = tmp_path / 'x.png'
  path.write_bytes(b'%!PS-Adobe')
  message = r'x\.png: it is a PostScript .* image\. Repair it, or leave it out'
  with pytest.raises(ValueError, match=message):
    upscale_inputs.read_image(path)
