"""Samples in ArrayRecord shards: read in place, and whole or not there."""

import os
import shlex
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cdm.data import array_record, image_set, prepare, record_format
from cdm.evaluation.classification import labelled_set
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import resize
from cdm.sampling import generate, sample_shards, sample_storage
from cdm.sampling.cascade import Stage
from cdm.sampling.sample_storage import Storage

pytest.importorskip('array_record')
NAMES = ['cat', 'dog', 'fox']


def stages(num_classes=3):
  """Noise of 4 px whose red is the label, and its magnification to 8 px."""

  def small(params, *, keys, label=None, **_):
    x = jax.vmap(lambda key: jax.random.uniform(key, (4, 4, 3)))(keys)
    if label is not None:
      x = x.at[..., 0].set(label[:, None, None] / 127.5 - 1.0)
    return x

  def large(params, *, keys, lowres, **_):
    return resize.resize(lowres, 8, method='nearest')

  one = jnp.float32(1.0)
  first = Stage('small', 4, small, one, num_classes=num_classes)
  return [first, Stage('large', 8, large, one, lowres=Lowres(size=4))]


def draw(out, *, num=10, kept='last', format='array_records', **given):
  labels = given.pop('labels', [0, 1, 2])
  generate.draw_to_folder(
    out,
    stages(None if labels is None else 3),
    manifest={'seed': given.pop('seed', 0), 'labels': labels, 'stages': []},
    num=num,
    batch_size=given.pop('batch_size', 3),
    storage=Storage(format, kept),
    **given,
  )


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  """Four images in a shard, so that ten make three."""
  monkeypatch.setattr(sample_storage, 'FEWEST', 4)
  monkeypatch.setattr(sample_storage, 'MOST', 4)


def shard(k, count=3):
  return record_format.shard_name(k, count)


def contents(folder):
  return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_shards_hold_the_images_and_labels_of_the_png_files(tmp_path):
  draw(tmp_path / 'png', format='png', kept='all', class_names=NAMES)
  draw(tmp_path / 'shards', kept='all', class_names=NAMES)
  for stage in ('small', 'large'):
    source = array_record.ArrayRecords(tmp_path / 'shards' / stage)
    assert len(source) == 10 and source.class_names == tuple(NAMES)
    for n in range(10):
      png = Image.open(tmp_path / 'png' / stage / f'{n:06d}.png')
      np.testing.assert_array_equal(source[n]['image'], np.asarray(png))
      assert source[n]['label'] == n % 3
  assert contents(tmp_path / 'shards' / 'large').keys() == {
    *(shard(k) for k in range(3)),
    'index.json',
  }
  a, b = (
    (tmp_path / name / 'samples.png').read_bytes() for name in ('png', 'shards')
  )
  assert a == b
  assert not (tmp_path / 'shards' / 'samples.npz').exists()


def test_every_reader_takes_the_output_folder_in_place(tmp_path, capsys):
  """The last stage is meant, the only one that is kept by default."""
  out = tmp_path / 'my samples'
  draw(out, class_names=NAMES)
  told = capsys.readouterr().out.partition('train on them with ')[2]
  assert f'--config.train_data.path={out}' in shlex.split(told)
  assert not (out / 'small').exists()
  images = image_set.load_images(out)
  assert (images.count, images.names) == (10, None)
  assert image_set.suffixes_of(out) == ['.array_record']
  before = image_set.fingerprint_of(out)
  given = labelled_set.section(out)
  source, given = labelled_set.open_set(out, given, ['fox', 'dog', 'cat'])
  assert given['kind'] == 'array_records'
  assert [int(source[n]['label']) for n in range(4)] == [2, 1, 0, 2]
  copy = tmp_path / 'copy'
  prepare.prepare(array_record.ArrayRecords(out), size=4, out=copy)
  prepared = array_record.ArrayRecords(copy)
  assert (len(prepared), prepared.image_size) == (10, 4)
  assert prepared[4]['label'] == 1
  np.testing.assert_array_equal(prepared[4]['image'], images.read(4)[::2, ::2])
  os.utime(out / 'large' / shard(1), (1, 1))
  assert image_set.fingerprint_of(out) != before


@pytest.mark.parametrize('labels', [None, [2, 0]])
def test_classes_without_names_are_numbers(tmp_path, labels):
  draw(tmp_path, labels=labels)
  source = array_record.ArrayRecords(tmp_path)
  assert source.class_names == (() if labels is None else ('0', '1', '2'))
  assert not source.named or labels is None
  assert source[0]['label'] == (0 if labels is None else 2)
  if labels is not None:
    named = array_record.ArrayRecords(tmp_path, NAMES)
    assert named.class_names == tuple(NAMES) and named[1]['label'] == 0
    with pytest.raises(ValueError, match='labels up to 2, but there are 2 cla'):
      array_record.ArrayRecords(tmp_path, NAMES[:2])


def test_names_of_other_classes_are_refused(tmp_path):
  draw(tmp_path, class_names=NAMES)
  with pytest.raises(ValueError, match='1 classes that are not among the 3 ex'):
    array_record.ArrayRecords(tmp_path, ['cat', 'dog', 'owl'])


KILLED = """
import os, signal, sys
import test_sample_shards as tests
from cdm.data import record_format
from cdm.sampling import sample_storage
sample_storage.FEWEST = sample_storage.MOST = 4
pack, count = record_format.pack, iter(range(100))
def killing(element):
  if next(count) == 13:  # in the middle of the second shard, of both stages
    os.kill(os.getpid(), signal.SIGKILL)
  return pack(element)
record_format.pack = killing
tests.draw(sys.argv[1], kept='all')
"""


def test_a_run_killed_in_a_shard_continues_to_the_same_bytes(tmp_path, capsys):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  environment = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join([os.path.dirname(__file__), *sys.path]),
  }
  killed = subprocess.run(
    [sys.executable, '-c', KILLED, str(parts)],
    env=environment,
    capture_output=True,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  # The first shard is whole; the second is not there under its name.
  left = contents(parts / 'large')
  assert {n for n in left if not n.endswith('.partial')} == {
    shard(0),
    'index.json',
  }
  assert any(name.endswith('.partial') for name in left)
  with pytest.raises(ValueError, match='Run the same cdm sample command again'):
    array_record.ArrayRecords(parts)
  draw(parts, kept='all')
  assert 'Samples: 4 of 10 are already in' in capsys.readouterr().out
  draw(whole, kept='all')
  for stage in ('small', 'large'):
    assert contents(parts / stage) == contents(whole / stage)


def test_a_damaged_shard_is_drawn_again_and_said(tmp_path, capsys):
  draw(tmp_path)
  path = tmp_path / 'large' / shard(1)
  before = contents(tmp_path / 'large')
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(ValueError, match='same cdm sample command again'):
    array_record.ArrayRecords(tmp_path)
  capsys.readouterr()
  draw(tmp_path)
  said = capsys.readouterr().out
  assert f'Drawn again: {path}' in said and '6 of 10 are already' in said
  assert contents(tmp_path / 'large') == before
  inode = path.stat().st_ino
  draw(tmp_path)
  assert path.stat().st_ino == inode  # nothing is drawn that is there


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_no_half_shard(tmp_path, monkeypatch, error):
  """Whether the drawing or the writing fails."""
  if error is KeyboardInterrupt:
    count, draw_all = iter(range(10)), generate.cascade.sampler

    def sampler(stages):
      run = draw_all(stages)

      def drawn(*given):
        if next(count) == 2:
          raise error
        return run(*given)

      return drawn

    monkeypatch.setattr(generate.cascade, 'sampler', sampler)
  else:
    count, pack = iter(range(10)), record_format.pack

    def failing(element):
      if next(count) == 6:
        raise error('the disk is gone')
      return pack(element)

    monkeypatch.setattr(record_format, 'pack', failing)
  with pytest.raises(error):
    draw(tmp_path)
  names = contents(tmp_path / 'large').keys()
  assert names <= {shard(0), 'index.json'} and 'index.json' in names


def test_processes_share_out_whole_shards():
  """Whatever their number, each image is in one batch, and in its shard."""
  layout = sample_shards.Layout(num=10, per_shard=4)
  for missing, rows in (([0, 1, 2], [[0, 1], [2, 3]]), ([1], [[0, 2], [1, 3]])):
    shares = []
    for i, own in enumerate(rows):
      shards = missing[i::2]
      images = [n for k in shards for n in layout.images(k)]
      shares.append(
        sample_shards.Share(np.array(own), shards, np.array(images))
      )
    drawn = [[], []]
    total = 0
    for images, new in sample_shards.batches(shares, 4):
      assert len(images) == 4
      total += new
      for share, seen in zip(shares, drawn, strict=True):
        seen += images[share.rows].tolist()
    for share, seen in zip(shares, drawn, strict=True):
      assert seen[: len(share.images)] == share.images.tolist()
    assert total == sum(len(layout.images(k)) for k in missing)


def test_many_samples_become_shards_and_an_earlier_start_decides(
  tmp_path, monkeypatch
):
  cascade = stages()

  def choose(num, **given):
    chosen = sample_storage.choose(tmp_path, cascade, num=num, **given)
    return chosen.format, chosen.kept

  assert choose(100_000) == ('png', 'all')
  assert choose(100_001) == ('array_records', 'last')
  assert choose(5, format='array_records') == ('array_records', 'last')
  assert choose(5, kept='last') == ('png', 'last')
  draw(tmp_path, kept='all')
  assert choose(10) == ('array_records', 'all')
  with pytest.raises(ValueError, match='holds samples as ArrayRecord shards'):
    choose(10, format='png')
  with pytest.raises(ValueError, match="'images': 10.* 'images': 11"):
    draw(tmp_path, num=11, kept='all')
  assert choose(10, format='png', overwrite=True) == ('png', 'all')
  draw(tmp_path, format='png', kept='last', overwrite=True)
  assert (tmp_path / 'large' / '000009.png').exists()
  assert not list(tmp_path.rglob('*.array_record'))
  assert image_set.load_images(tmp_path / 'large').count == 10
  assert choose(10**7) == ('png', 'all')


@pytest.mark.parametrize('format', sample_storage.FORMATS)
def test_a_disk_that_is_too_small_is_refused_before_drawing(
  tmp_path, monkeypatch, capsys, format
):
  free = {'bytes': 700}
  usage = lambda path: type('', (), {'free': free['bytes']})  # noqa: E731
  monkeypatch.setattr(sample_storage.shutil, 'disk_usage', usage)
  with pytest.raises(ValueError, match='10 images of .* GB before compression'):
    draw(tmp_path, format=format)
  assert not list((tmp_path / 'large').iterdir())
  free['bytes'] = 3000
  if format == 'array_records':
    free['bytes'] = 1500
  draw(tmp_path, format=format)  # 1,920 bytes, and as many in an archive
  assert 'warning: ' in capsys.readouterr().out
