"""Pictures of any kind and size become larger, and stay what they are."""

import os

import numpy as np
import pytest
from PIL import Image
from support import canvas_stages

from cdm.data.photographs import photograph
from cdm.methods.canvas_drawing import CanvasDrawing
from cdm.sampling import (
  canvas_upscaler,
  enlarged_files,
  enlarged_inputs,
  enlarged_jobs,
  enlarged_size,
)
from cdm.sampling import upscaler as sampling_upscaler
from cdm.sampling.enlarged_jobs import Settings


@pytest.fixture(scope='module')
def upscaler():
  """-> magnifies any picture twice, with windows of 16 px."""
  stage = canvas_stages.stage(size=16, margin=0)
  return sampling_upscaler.stage_upscaler(stage, None, batch_size=4)


def enlarge(upscaler, given, out, suffix=None, scale=2.0, **settings):
  inputs = enlarged_inputs.check(given, out, scale=scale, suffix=suffix)
  enlarged_files.write_enlarged_files(upscaler, inputs, Settings(**settings))


def photo(height=9, width=13, seed=0):
  return canvas_stages.photo(height, width, seed)[0]


def save(path, image, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image).save(path, **options)
  return path


def drawn(upscaler, path, rounds=1):
  """-> what the stage draws of a picture alone, uint8 [H, W, 3]."""
  import hashlib

  from cdm.sampling import enlargement, picture_rows

  image = photograph.read(path).samples
  size = enlarged_size.choose(image.shape[:2], 2, enlarged_size.Asked())
  number = int(hashlib.sha256(path.read_bytes()).hexdigest()[:8], 16)
  bands = enlargement.Enlargement.of(upscaler.canvas, size).bands(
    picture_rows.WholePictures(image[None]),
    enlargement.Drawn(numbers=[number], back_projections=rounds),
  )
  return picture_rows.levels(np.concatenate(list(bands), axis=1)[0], np.uint8)


def test_a_picture_is_what_the_stage_draws_whatever_else_is_drawn(
  upscaler, tmp_path
):
  """Its noise depends on its bytes, not on its place in a list."""
  folder = tmp_path / 'in'
  for i in range(3):
    save(folder / f'{i}.png', photo(seed=i))
  save(folder / 'deep' / 'er' / 'wide.png', photo(5, 60, seed=9))
  enlarge(upscaler, [folder], tmp_path / 'out')
  for name in ('0.png', '1.png', '2.png', 'deep/er/wide.png'):
    with Image.open(tmp_path / 'out' / name) as opened:
      found = np.asarray(opened)
    np.testing.assert_array_equal(found, drawn(upscaler, folder / name))
  assert not (tmp_path / 'out' / 'upscaled.png').exists()


def test_kinds_bits_colours_and_metadata_stay(upscaler, tmp_path):
  image, folder = photo(), tmp_path / 'in'
  exif = Image.Exif()
  exif[274], exif[271] = 6, 'Maker'  # on its side
  options = dict(exif=exif, dpi=(300, 300), icc_profile=b'', quality=95)
  save(folder / 'a.jpg', image, **options)
  save(folder / 'grey.png', image[..., 0])
  save(folder / 'one.gif', image[:1, :1])
  deep = image[..., 0].astype(np.uint16) * 257
  save(folder / 'deep.png', deep)
  hole = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
  hole[:4, :, 3] = 0
  save(folder / 'hole.webp', hole, lossless=True)
  enlarge(upscaler, [folder], tmp_path / 'out')
  out = tmp_path / 'out'
  assert sorted(os.listdir(out)) == [
    'a.jpg', 'deep.png', 'grey.png', 'hole.webp', 'one.png'
  ]  # fmt: skip
  with Image.open(out / 'a.jpg') as opened:
    assert opened.size == (2 * 9, 2 * 13)
    assert opened.getexif()[274] == 1 and opened.getexif()[271] == 'Maker'
    assert opened.getexif()[305].startswith('cdm ')
    assert 'seed 0' in opened.getexif()[305]
    assert opened.info['dpi'] == (300, 300)
  with Image.open(out / 'grey.png') as opened:
    assert (opened.mode, opened.size) == ('L', (26, 18))
  with Image.open(out / 'one.png') as opened:
    assert opened.size == (2, 2)
  found = photograph.read(out / 'deep.png')
  assert found.samples.dtype == np.uint16 and found.samples.shape == (18, 26, 1)
  assert len(np.unique(found.samples % 257)) > 50  # all bits are used
  with Image.open(out / 'hole.webp') as opened:
    alpha = np.asarray(opened)[..., 3]
  assert (alpha[:6] < 20).all() and (alpha[10:] > 235).all()


def test_a_transparent_border_leaves_no_fringe(upscaler, tmp_path):
  """A red disc on transparent black stays red to its rim."""
  y, x = np.mgrid[:20, :20]
  inside = (y - 10) ** 2 + (x - 10) ** 2 < 49
  image = np.zeros((20, 20, 4), np.uint8)
  image[inside] = (200, 30, 30, 255)
  save(tmp_path / 'disc.png', image)
  seen = []
  one = photograph.read(tmp_path / 'disc.png')
  seen.append(enlarged_files.colour(one))
  levels = (seen[0] + 1) * 127.5
  np.testing.assert_allclose(levels[..., 0], 200, atol=0.01)
  np.testing.assert_allclose(levels[..., 1:], 30, atol=0.01)


def test_sizes_that_are_asked_for(upscaler, tmp_path, capsys):
  path = save(tmp_path / 'a.png', photo(8, 12))
  for i, (asked, size) in enumerate(
    [
      (dict(scale=1.5), (18, 12)),
      (dict(width=30), (30, 20)),
      (dict(long_edge=12), (12, 8)),
      (dict(scale=5.0), (60, 40)),
    ]
  ):
    out = tmp_path / str(i)
    enlarge(upscaler, [path], out, asked=enlarged_size.Asked(**asked))
    with Image.open(out / 'a.png') as opened:
      assert opened.size == size
    told = capsys.readouterr().out
    assert f'a.png: 12x8 -> {size[0]}x{size[1]} pixels' in told
    assert 'windows' in told and 'GiB of memory, PNG of at most' in told
    assert ('passes through it 3 times' in told) == (size == (60, 40))
  with pytest.raises(ValueError, match=r'a\.png: --scale=17 makes 12x8'):
    enlarge(
      upscaler,
      [path],
      tmp_path / 'no',
      asked=enlarged_size.Asked(scale=17.0),
    )


def test_what_is_there_is_kept_and_other_files_are_not_touched(
  upscaler, tmp_path, capsys
):
  files = [
    save(tmp_path / f'{n}.jpg', photo(seed=i)) for i, n in enumerate('ab')
  ]
  out = tmp_path / 'out'
  enlarge(upscaler, files, out)
  first = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
  capsys.readouterr()
  (out / 'b.jpg').write_bytes((out / 'b.jpg').read_bytes()[:-40])  # a cut file
  with pytest.raises(ValueError, match=r'b\.jpg would be overwritten'):
    enlarge(upscaler, files, out)
  (out / 'b.jpg').unlink()
  enlarge(upscaler, files, out)
  told = capsys.readouterr().out
  assert 'Pictures: 1 enlarged, 1 there already, 0 refused.' in told
  assert (out / 'a.jpg').stat().st_mtime_ns == first['a.jpg']
  with pytest.raises(ValueError, match='would be overwritten; give another'):
    enlarge(upscaler, files, out, seed=1)
  before = (out / 'a.jpg').read_bytes()
  enlarge(upscaler, files, out, seed=1, overwrite=True)
  assert (out / 'a.jpg').read_bytes() != before
  enlarge(upscaler, files, out, suffix='.png')
  assert {p.name for p in out.iterdir()} == {'a.jpg', 'b.jpg', 'a.png', 'b.png'}


def test_a_comparison_is_one_of_the_results(upscaler, tmp_path, capsys):
  path = save(tmp_path / 'a.png', photo())
  out = tmp_path / 'out'
  enlarge(upscaler, [path], out)
  # It was not asked for the first time, so that the picture is drawn again.
  enlarge(upscaler, [path], out, compare=True)
  assert f'{out / "a_compare.png"}\n' in capsys.readouterr().out
  enlarged = np.asarray(Image.open(out / 'a.png'))
  side = min(enlarged.shape[:2])
  shown = np.asarray(Image.open(out / 'a_compare.png'))[-side - 4 : -4]
  (part,) = {
    left
    for left in range(enlarged.shape[1] - side + 1)
    if (enlarged[:, left : left + side] == shown[:, -side - 4 : -4]).all()
  }
  assert part >= 0
  before = (out / 'a_compare.png').stat().st_mtime_ns
  enlarge(upscaler, [path], out, compare=True)
  assert (out / 'a_compare.png').stat().st_mtime_ns == before
  (out / 'a_compare.png').write_bytes(b'of somebody else')
  with pytest.raises(ValueError, match=r'a_compare\.png would be overwritten'):
    enlarge(upscaler, [path], out, compare=True)


def test_values_that_are_not_finite_are_never_written(tmp_path):
  """A network that divides by 1 - x cannot draw a picture with white."""

  def evaluate(params, views, x_t, logsnr, tuned):
    return {'x_0': 0.1 / (1.0 - views.upsampled)}

  def draw(evaluate, canvas, tuned):
    return evaluate(None, None)['x_0']

  stage = canvas_stages.stage(size=16, margin=0)
  stage = stage._replace(canvas=CanvasDrawing(evaluate, draw), tune=None)
  upscaler = sampling_upscaler.stage_upscaler(stage, None, batch_size=4)
  dark, light = (
    save(tmp_path / f'{level}.png', np.full((9, 9, 3), level, np.uint8))
    for level in (90, 255)
  )
  with pytest.raises(ValueError, match='1 of 2 pictures were not') as error:
    enlarge(upscaler, [light, dark], tmp_path / 'out')
  assert '255.png: the network gives values that are not' in str(error.value)
  assert os.listdir(tmp_path / 'out') == ['90.png']


def test_a_bad_file_does_not_stop_the_rest(upscaler, tmp_path, capsys):
  good = save(tmp_path / 'good.png', photo())
  (tmp_path / 'text.png').write_text('no picture', encoding='utf-8')
  cut = save(tmp_path / 'cut.png', photo(40, 40))
  cut.write_bytes(cut.read_bytes()[:-900])
  with pytest.raises(ValueError, match='2 of 3 pictures were not') as error:
    enlarge(upscaler, [good, tmp_path / 'text.png', cut], tmp_path / 'out')
  assert 'text.png' in str(error.value) and 'cut.png' in str(error.value)
  assert os.listdir(tmp_path / 'out') == ['good.png']
  told = capsys.readouterr().out
  assert 'Pictures: 1 enlarged, 0 there already, 2 refused.' in told


def test_an_interruption_leaves_no_half_picture(
  upscaler, tmp_path, monkeypatch
):
  files = [save(tmp_path / f'{i}.png', photo(30 + i, 40, i)) for i in range(2)]
  left = [9]

  def fetch(x, fetch=canvas_upscaler.device_mesh.fetch):
    left[0] -= 1
    if left[0] < 0:
      raise KeyboardInterrupt
    return fetch(x)

  monkeypatch.setattr(canvas_upscaler.device_mesh, 'fetch', fetch)
  out = tmp_path / 'out'
  with pytest.raises(KeyboardInterrupt):
    enlarge(upscaler, files, out)
  assert not list(out.glob('*.png')) and not list(out.glob('.*.partial'))
  monkeypatch.undo()
  enlarge(upscaler, files, out)
  for path in files:
    with Image.open(out / path.name) as opened:
      np.testing.assert_array_equal(np.asarray(opened), drawn(upscaler, path))


def test_results_lie_beside_or_where_a_file_is_named(upscaler, tmp_path):
  path = save(tmp_path / 'caf\u00e9.jpeg', photo())
  enlarge(upscaler, [path], None)
  assert (tmp_path / 'caf\u00e9_x2.jpeg').exists()
  enlarge(upscaler, [path], None, suffix='.tif', scale=None)
  assert (tmp_path / 'caf\u00e9_enlarged.tif').exists()
  enlarge(upscaler, [path], tmp_path / 'new' / 'large.avif')
  with Image.open(tmp_path / 'new' / 'large.avif') as opened:
    assert opened.size == (26, 18)
  with pytest.raises(ValueError, match='is one picture, and more than one'):
    enlarge(upscaler, [path, path], tmp_path / 'x.png')
  with pytest.raises(ValueError, match='is a folder; give --out=DIR'):
    enlarge(upscaler, [tmp_path], None)
  with pytest.raises(ValueError, match='overwritten by its own result'):
    enlarge(upscaler, [path], path)


def test_damaged_jpegs_are_not_projected_onto(upscaler, tmp_path):
  """A result that shrinks to them would show their blocks again."""
  image = photo(16, 16)
  for quality, rounds in ((95, 1), (60, 0)):
    path = save(tmp_path / f'{quality}.jpg', image, quality=quality)
    enlarge(upscaler, [path], tmp_path / 'out', suffix='.png')
    with Image.open(tmp_path / 'out' / f'{quality}.png') as opened:
      np.testing.assert_array_equal(
        np.asarray(opened), drawn(upscaler, path, rounds)
      )
  enlarge(upscaler, [path], tmp_path / 'asked', back_projections=1)


def test_all_pictures_of_a_run_share_one_program(upscaler):
  jobs = [
    enlarged_jobs.Job(
      enlarged_inputs.Picture(
        None, None, type('H', (), dict(height=h, width=w))
      ),
      '',
      0,
      enlarged_size.choose((h, w), 2, enlarged_size.Asked()),
    )
    for h, w in ((8, 8), (8, 8), (8, 8), (50, 90), (1, 400))
  ]
  groups = enlarged_jobs.groups_of(upscaler.canvas, jobs)
  assert [len(group.jobs) for group in groups] == [3, 1, 1]
  assert len({g.enlargement.plans[0].at_once for g in groups}) == 1
