"""What cannot be judged is refused in one clear line, before any work."""

import errno
import json
import os
import re
import zipfile

import numpy as np
import pytest
from PIL import Image
from support import (
  linear_features,
  published_weights,
  small_disks,
  smoke_runs,
)
from support.linear_features import COUNT, Projection, features, judge, pictures

from cdm.data import image_set, npz_images, subset, synthetic
from cdm.evaluation import (
  compare_sets,
  extract_features,
  feature_statistics,
  partial_results,
  reference_statistics,
  sweep,
)
from cdm.evaluation.image_selection import Selection
from cdm.evaluation.metrics import inception_score
from cdm.models.inception import Features
from cdm.models.pretrained import download


@pytest.fixture
def place(tmp_path, monkeypatch):
  """-> folder with two sets, each as PNGs and as an archive, and weights."""
  return linear_features.prepared(tmp_path, monkeypatch)


@pytest.fixture
def refused(place, capfd):
  """-> refused(*words): runs `cdm evaluate`, which must be refused; its line.

  No batch may have been looked at.
  """

  def run(*words, samples='a', reference='b', metrics='fid,sfid', code=2):
    words = (
      *('evaluate', f'--samples={place / samples}', f'--metrics={metrics}'),
      *(f'--reference={place / reference}', f'--weights={place / "w.pth"}'),
      *(word.replace('PLACE', str(place)) for word in words),
    )
    capfd.readouterr()
    assert smoke_runs.cdm(*words) == code
    err = capfd.readouterr().err
    prefix = 'cdm: data error: ' if code == 4 else 'cdm: error: '
    lines = [s for s in err.splitlines() if s.startswith(prefix)]
    assert len(lines) == 1 and 'Traceback' not in err, err
    assert not Projection.calls
    return lines[0]

  return run


def damaged(path, *, at, value=b'\xff\xff'):
  data = bytearray(path.read_bytes())
  data[at : at + len(value)] = value
  path.write_bytes(data)


def test_an_archive_with_a_flipped_bit_is_refused(place, refused):
  path = place / 'a.npz'
  assert npz_images.open_images(path).count == COUNT
  damaged(path, at=path.stat().st_size // 2, value=b'\x01\x02\x03')
  said = refused('--few', samples='a.npz', code=4)
  assert 'a.npz cannot be read as an .npz archive (Bad CRC-32' in said


def test_archives_that_are_cut_or_none_are_refused(place, refused):
  whole = (place / 'a.npz').read_bytes()
  for content in (whole[: len(whole) // 2], b'text', b''):
    (place / 'a.npz').write_bytes(content)
    said = refused('--few', samples='a.npz', code=4)
    assert 'a.npz cannot be read as an .npz archive' in said


def test_labels_that_are_none_are_refused(place, refused):
  image, numbers = pictures(1), np.arange(COUNT)
  for labels, told in (
    (numbers - 1, 'with a label of -1'),
    (numbers[:-1], r'arr_1 of .* is int64 \(29,\); the labels'),
    (numbers / 2, r'arr_1 of .* is float64'),
    (image, r'arr_1 of .* is uint8 \(30, 8, 8, 3\)'),
  ):
    np.savez(place / 'l.npz', image, labels)
    with pytest.raises(ValueError, match=told):
      image_set.load_images(place / 'l.npz')
  np.savez(place / 'l.npz', image, numbers)
  assert image_set.load_images(place / 'l.npz').count == COUNT


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_an_archive_is_read_picture_by_picture(tmp_path, save, monkeypatch):
  """However it was saved; its pictures are never there all at once."""
  image, path = pictures(3), tmp_path / 'x.npz'
  save(path, image, np.arange(COUNT))
  read_array = np.lib.format.read_array

  def small(*args, **kwargs):
    array = read_array(*args, **kwargs)
    assert array.ndim == 1
    return array

  monkeypatch.setattr(np.lib.format, 'read_array', small)
  found = npz_images.open_images(path)
  for i in (7, 0, COUNT - 1):
    np.testing.assert_array_equal(found.read(i), image[i])
  save(path, image[..., :1])
  grey = npz_images.open_images(path).read(4)
  np.testing.assert_array_equal(grey, np.repeat(image[4, ..., :1], 3, axis=2))


def test_an_archive_in_fortrans_order_is_read_too(tmp_path):
  image = pictures(3)
  np.savez(tmp_path / 'x.npz', np.asfortranarray(image))
  found = npz_images.open_images(tmp_path / 'x.npz')
  np.testing.assert_array_equal(found.read(5), image[5])


def test_floats_are_refused_wherever_they_come_from(place, refused):
  np.savez(place / 'f.npz', pictures(1).astype(np.float32) / 255)
  assert 'is float32 (30, 8, 8, 3); uint8' in refused('--few', samples='f.npz')
  float_tiff = Image.fromarray(np.zeros((8, 8), np.float32), mode='F')
  float_tiff.save(place / 'a' / '000.tiff')
  (place / 'a' / '000.png').unlink()
  assert '000.tiff: its samples are fractions' in refused('--few')


def test_grey_is_rgb_with_equal_channels_in_every_path(place):
  """8 bits, and 16 scaled to 8: as PNG, in an archive and as colour."""
  grey = pictures(4)[..., :1]
  np.savez(place / 'grey.npz', grey)
  np.savez(place / 'rgb.npz', np.repeat(grey, 3, axis=3))
  for name, depth in (('grey8', 1), ('grey16', 257)):
    (place / name).mkdir()
    for n, image in enumerate(grey[..., 0]):
      wide = image if depth == 1 else image.astype(np.uint16) * depth
      Image.fromarray(wide).save(place / name / f'{n:03d}.png')
  values = {
    name: judge(place, name)['fid']
    for name in ('grey.npz', 'rgb.npz', 'grey8', 'grey16')
  }
  assert len(set(values.values())) == 1, values


def test_an_empty_folder_and_mixed_sizes_are_refused(place, refused):
  (place / 'empty').mkdir()
  assert 'empty holds no picture files' in refused('--few', samples='empty')
  assert 'empty holds no picture files' in refused('--few', reference='empty')


@pytest.mark.parametrize(
  ('metrics', 'words', 'told'),
  [
    ('fid', (), 'FID of 30 images is biased upwards'),
    ('sfid', ('--num=5',), 'SFID of 5 images is biased'),
    ('kid', (), 'KID draws subsets of 1,000 images, and there are 30'),
    ('kid', ('--kid_size=31',), 'subsets of 31 images, and there are 30'),
    ('kid', ('--kid_size=1',), '--kid_size=1: a subset of KID has 2 or more'),
    ('pr', ('--num=3',), 'reach to neighbour 3, and there are 3 images'),
    ('is', ('--num=9',), 'over 10 splits, and there are 9 images'),
    ('fid', ('--few', '--num=1'), 'FID needs two images or more of both'),
  ],
)
def test_too_few_images_are_refused(refused, metrics, words, told):
  assert told in refused(*words, metrics=metrics)


def test_a_reference_made_of_too_few_images_is_refused(place, refused):
  compare_sets.make_reference(
    place / 'b', place / 's.npz', network={'weights': place / 'w.pth'}
  )
  Projection.calls = 0
  np.savez(place / 'many.npz', np.zeros((2048, 8, 8, 3), np.uint8))
  said = refused(samples='many.npz', reference='s.npz', metrics='fid')
  assert 'FID of 30 images is biased upwards' in said


def stored(place, **changes):
  """Writes s.npz: statistics of b, with some arrays changed."""
  b = features('b', place)
  arrays = {
    'mu': b.pool.mean(0),
    'sigma': np.cov(b.pool.T),
    'mu_s': b.spatial.mean(0),
    'sigma_s': np.cov(b.spatial.T),
  }
  np.savez(place / 's.npz', **arrays | changes)
  return arrays


def test_statistics_that_are_none_are_refused(place, refused):
  whole = stored(place)
  sigma, spatial = whole['sigma'], whole['sigma_s']
  nan = np.where(np.eye(16) > 0, np.nan, sigma)
  skew = sigma + np.triu(np.ones((16, 16)), 1)
  for changes, told in (
    ({'sigma': nan}, 'sigma: Statistics are not finite'),
    ({'mu': np.full(16, np.inf)}, 'sigma: Statistics are not finite'),
    ({'sigma': skew}, 'sigma: sigma is not a covariance: it is not symmetric'),
    ({'sigma': -sigma}, 'or has a negative variance'),
    ({'sigma': sigma[:3]}, 'the expected shapes are [D] and [D, D]'),
    ({'mu_s': None, 'sigma_s': spatial}, 'cannot be read as statistics'),
  ):
    stored(place, **changes)
    assert told in refused('--few', reference='s.npz', code=4), told
  stored(place, sigma=sigma - 2 * np.eye(16) * np.linalg.eigvalsh(sigma)[0])
  assert 'none may be negative' in refused('--few', reference='s.npz', code=4)
  path = place / 's.npz'
  stored(place)
  damaged(path, at=600)
  assert 's.npz cannot be read as statistics' in refused(
    '--few', reference='s.npz', code=4
  )


def test_statistics_of_another_network_are_refused_before_work(place, refused):
  np.savez(place / 's.npz', mu=np.zeros(9), sigma=np.eye(9))
  said = refused('--few', reference='s.npz', metrics='fid')
  assert 'statistics of 9 features, and fid needs 16' in said
  np.savez(place / 's.npz', mu=np.zeros(16), sigma=np.eye(16))
  said = refused('--few', reference='s.npz', metrics='fid,sfid')
  assert 'holds no spatial statistics (mu_s, sigma_s), which sfid' in said


def test_what_does_not_compare_is_said_before_work_and_after(place, capfd):
  stored(place)
  words = ['evaluate', f'--samples={place / "a"}', '--few', '--metrics=fid']
  words += [f'--reference={place / "s.npz"}', f'--weights={place / "w.pth"}']
  assert smoke_runs.cdm(*words) == 0
  lines = capfd.readouterr().err.splitlines()
  loud = [n for n, s in enumerate(lines) if s.startswith('cdm: NOT COMPARABLE')]
  (work,) = [n for n, s in enumerate(lines) if s.startswith('samples: 30/30')]
  assert loud[0] < work < loud[1]


@pytest.mark.parametrize(
  ('out', 'told'),
  [
    ('PLACE/w.pth/row.json', 'w.pth is a file, but must be a folder'),
    ('PLACE/a', 'a is a folder; give the name of a file'),
    ('PLACE/row.md', 'beside it; give FILE.json'),
    ('PLACE/a.png', 'the row is JSON; give FILE.json'),
    ('PLACE/w.pth', 'w.pth exists and would be overwritten; .*--overwrite'),
  ],
)
def test_an_out_that_cannot_be_written_is_found_before_work(refused, out, told):
  assert re.search(told, refused('--few', f'--out={out}'))


def test_statistics_that_cannot_be_written_are_found_before_work(place):
  for out in (place / 'w.pth' / 's.npz', place / 'a'):
    with pytest.raises(ValueError, match='is a file, but|is a folder'):
      compare_sets.make_reference(
        place / 'b', out, network={'weights': place / 'w.pth'}
      )
  assert not Projection.calls


def files(folder):
  return sorted(p.name for p in folder.rglob('*') if p.is_file())


def test_a_full_disk_leaves_nothing_that_looks_complete(
  place, monkeypatch, capfd
):
  out = place / 'out'
  full = small_disks.files_of_at_most(2000)
  with full, pytest.raises(OSError, match='s.npz could not be written'):
    compare_sets.make_reference(
      place / 'b',
      out / 's.npz',
      network={'weights': place / 'w.pth', 'keep': place / 'kept'},
    )
  assert files(out) == []
  monkeypatch.setattr(extract_features, 'SAVE_SECONDS', 0.0)
  whole = judge(place)['fid']
  capfd.readouterr()
  # A cache that is full costs what a kill would lose, not the evaluation.
  with small_disks.files_of_at_most(2000):
    found = judge(place, keep=place / 'kept', batch_size=7)['fid']
  told = f'partial results cannot be written ({os.strerror(errno.EFBIG)})'
  assert capfd.readouterr().err.count(told) == 2  # once for each set
  assert found == pytest.approx(whole, rel=1e-12)
  assert files(place / 'kept') == []
  assert judge(place, keep=place / 'kept', batch_size=7)['fid'] == (
    pytest.approx(whole, rel=1e-12)
  )


def test_weights_that_are_not_there_say_what_to_put_where(
  place, monkeypatch, capfd
):
  def nowhere(*args, **kwargs):
    raise download.urllib.error.URLError('Network is unreachable')

  monkeypatch.setattr(download.connections, 'open_url', nowhere)
  words = ('evaluate', f'--samples={place / "a"}', '--few', '--metrics=fid')
  assert smoke_runs.cdm(*words, f'--reference={place / "b"}') == 2
  said = capfd.readouterr().err
  where = place / 'cache' / 'cdm' / 'weights'
  assert 'Network is unreachable' in said and '--weights' in said
  assert f'put it at {where}/pt_inception-2015-12-05-6726825d.pth' in said
  assert '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2' in (
    said
  )


@pytest.mark.parametrize(
  ('state', 'told'),
  [
    ({'fc.weight': np.zeros((2, 2))}, 'fc.bias is missing: these are'),
    ({'x': np.zeros(3)}, "these are not the weights of FID's Inception-v3"),
    (None, 'cannot be read as a PyTorch state dict'),
  ],
)
def test_weights_of_another_network_are_refused(tmp_path, state, told):
  path = tmp_path / 'w.pth'
  path.write_bytes(b'\x80\x02weights')
  if state is not None:
    published_weights.write_pytorch(path, state, zipped=True)
  with pytest.raises(ValueError, match=told) as caught:
    extract_features.Gatherer(path)
  assert str(path) in str(caught.value)


def test_weights_that_are_damaged_are_refused(place, refused):
  """By the published name the checksum is known."""
  name = 'pt_inception-2015-12-05-6726825d.pth'
  (place / name).write_bytes(b'not these')
  said = refused('--few', f'--weights={place / name}')
  assert f'{name} has SHA-256' in said and 'it is damaged or another' in said


def test_a_damaged_part_is_as_none(place, monkeypatch):
  """A kept part that a power cut tore; the one before it serves."""
  whole = judge(place, batch_size=7)
  monkeypatch.setattr(extract_features, 'SAVE_SECONDS', 0.0)
  Projection.fail_at = Projection.calls + 4
  with pytest.raises(KeyboardInterrupt):
    judge(place, batch_size=7)
  parts = sorted((place / 'cache').rglob('*.npz'))
  assert [path.name[-5] for path in parts] == ['1', '2']
  damaged(parts[1], at=parts[1].stat().st_size // 2)
  Projection.calls, Projection.fail_at = 0, None
  row = judge(place, batch_size=7)
  assert Projection.calls == 4 + 5
  assert (row['fid'], row['is']) == (whole['fid'], whole['is'])


def test_parts_that_not_all_have_are_not_gone_on_with(tmp_path, monkeypatch):
  parts = partial_results.PartialResults(tmp_path)
  for n in (3, 5):
    parts.write(n, {'count': np.int64(n)})
  ask = partial_results.collectives.gather_objects
  monkeypatch.setattr(
    partial_results.collectives,
    'gather_objects',
    lambda mine: [*ask(mine), [2, 3]],
  )
  assert parts.newest() == (3, {'count': 3})


@pytest.mark.parametrize('how', ['stage', 'base'])
def test_samples_of_another_run_are_not_gone_on_with(tmp_path, how):
  """Two work directories of one experiment, at the same step."""
  import shutil

  name, what = {
    'stage': ('sr', '{}@eval'),
    'base': ('base', str(smoke_runs.CONFIGS / 'smoke.py') + '@{}'),
  }[how]
  given = Selection(num=4, seed=0)
  first = smoke_runs.trained() / name
  shutil.copytree(first, tmp_path / 'b')
  found = [
    compare_sets.resolve(what.format(path), given)
    for path in (first, tmp_path / 'b')
  ]
  assert found[0].recipe == found[1].recipe
  assert found[0].stamp != found[1].stamp
  again = compare_sets.resolve(what.format(first), given)
  assert again.stamp == found[0].stamp


def test_every_process_keeps_the_same_batches(monkeypatch):
  """The first one's clock decides, be another one's faster or slower."""
  decided = []

  def kept(seconds_per_batch, agree):
    now = [0.0]
    monkeypatch.setattr(extract_features.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(
      extract_features.collectives, 'broadcast_from_first', agree
    )
    turns, found = extract_features.SaveSchedule(0), []
    for n in range(1, 30):
      now[0] += seconds_per_batch
      found += [n] if turns.due(n) else []
    return found

  first = kept(10.0, lambda x: decided.append(x) or x)
  assert first == [7, 13, 19, 25]
  for seconds in (0.1, 15.0, 100.0):
    heard = iter(decided)
    assert kept(seconds, lambda x, heard=heard: next(heard)) == first
  assert kept(100.0, lambda x: x) == list(range(1, 30))


def test_a_sweep_does_not_put_another_checkpoint_beside(tmp_path):
  recipe = {'stages': [{'checkpoint': 4}], 'weights_sha256': 'a'}
  row = {'samples_recipe': recipe, 'reference_recipe': {'count': (1, 2)}}
  known, same = (
    {(('level', '0'),): json.loads(json.dumps(row))},
    {'count': (1, 2)},
  )
  sweep.check_same(tmp_path, known, recipe, same)
  for mine, theirs, told in (
    (
      recipe | {'stages': [{'checkpoint': 6}]},
      same,
      'another checkpoint',
    ),
    (recipe | {'weights_sha256': 'b'}, same, 'another weights_sha256'),
    (recipe, {'count': 9}, 'another reference'),
  ):
    with pytest.raises(ValueError, match=told):
      sweep.check_same(tmp_path, known, mine, theirs)


def test_some_of_a_set_are_spread_over_it(place):
  """A folder often lies class by class."""
  source = compare_sets.resolve(place / 'a', Selection(num=6))
  ((numbers, images),) = source.batches(0, 6)
  assert numbers.tolist() == [0, 1, 2, 3, 4, 5]
  every = pictures(1)
  where = [
    int(np.flatnonzero((every == image).all((1, 2, 3)))[0]) for image in images
  ]
  assert [n // 5 for n in where] == [0, 1, 2, 3, 4, 5]


class Sized(synthetic.Synthetic):
  """Every third record is too small."""

  def __getitem__(self, i):
    small = np.int32(4 if i % 3 == 0 else 16)
    return super().__getitem__(i) | {'short_side': small}


@pytest.mark.parametrize('what', ['{config}:eval', '{stage}@eval'])
def test_what_is_too_small_is_left_out_and_nothing_twice(
  place, monkeypatch, what
):
  """[SR3] leaves small images out; no other may stand in for them."""
  from cdm.config import datasets

  monkeypatch.setitem(datasets.SOURCES, 'synthetic', Sized)
  config = smoke_runs.CONFIGS / 'smoke_sr.py'
  text = config.read_text(encoding='utf-8').replace('min_side=0', 'min_side=8')
  assert 'min_side=8' in text
  (place / 'smoke_sr.py').write_text(text, encoding='utf-8')
  stage = smoke_runs.trained() / 'sr'
  judged_one = subset.read_image
  monkeypatch.setattr(
    subset,
    'read_image',
    lambda *a, **k: judged_one(*a, **k | {'min_side': 8}),
  )
  name = what.format(config=place / 'smoke_sr.py', stage=stage)
  source = compare_sets.resolve(name)
  seen = [n for numbers, _ in source.batches(0, 16) for n in numbers]
  assert seen == [n for n in range(64) if n % 3]
  assert source.count == 64


def test_the_inception_score_does_not_depend_on_the_order_of_classes():
  """Class by class, each of ten splits would have a class of its own."""
  draw = np.random.default_rng(0)
  logits = 9.0 * np.eye(10)[np.arange(400) * 10 // 400]
  logits += draw.normal(size=logits.shape)
  nothing = np.zeros((400, 1))
  found = feature_statistics.summarize(
    Features(nothing, nothing, logits, logits),
    np.arange(400),
    metrics=('is',),
    count=400,
  )
  score = inception_score.score(found.scores)
  assert inception_score.inception_score(logits)[0] < 1.1 < 7 < score[0]
  # torch-fidelity's, which shuffles so, see metrics/test_features.py.
  expected = inception_score.inception_score(logits, shuffle_seed=2020)
  assert score == pytest.approx(expected, rel=1e-12)


def test_statistics_can_be_read_back(place):
  found = compare_sets.make_reference(
    place / 'b', place / 's.npz', network={'weights': place / 'w.pth'}
  )
  again = reference_statistics.read(place / 's.npz')
  np.testing.assert_array_equal(found.covariance, again.covariance)
  assert again.recipe == found.recipe and again.count == COUNT
  with zipfile.ZipFile(place / 's.npz') as held:
    assert held.testzip() is None
  directory = (place / 's.npz').read_bytes().rindex(b'PK\x01\x02')
  damaged(place / 's.npz', at=directory + 8, value=b'\x01')
  with pytest.raises(ValueError, match='as statistics .*is encrypted'):
    reference_statistics.read(place / 's.npz')
