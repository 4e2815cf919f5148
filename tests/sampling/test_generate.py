"""Pictures on disk: what is there is kept, what is missing is drawn."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cdm.data import npz_dataset
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import resize
from cdm.sampling import cascade, generate
from cdm.sampling.cascade import Stage


def stages(num_classes=None):
  """Noise of 4 px whose red is the label, and its magnification to 8 px."""

  def small(params, *, keys, label=None, **_):
    x = jax.vmap(lambda key: jax.random.uniform(key, (4, 4, 3)))(keys)
    if label is not None:
      x = x.at[..., 0].set(label[:, None, None] / 127.5 - 1.0)
    return x

  def large(params, *, keys, lowres, **_):
    return resize.resize(lowres, 8, method='nearest')

  params = jnp.float32(1.0)
  first = Stage('small', 4, small, params, num_classes=num_classes)
  return [first, Stage('large', 8, large, params, lowres=Lowres(size=4))]


def draw(
  out, *, num=5, batch_size=2, labels=None, seed=0, names=None, overwrite=False
):
  generate.draw_to_folder(
    out,
    stages(None if labels is None else 3),
    manifest={'seed': seed, 'labels': labels},
    num=num,
    batch_size=batch_size,
    class_names=names,
    overwrite=overwrite,
  )


def pixels(path):
  return np.asarray(Image.open(path))


def test_an_image_belongs_to_its_number_whatever_came_before(tmp_path):
  """All at once; a few and then more; and with holes to fill."""
  draw(tmp_path / 'whole', num=5, batch_size=64)
  draw(tmp_path / 'parts', num=2)
  draw(tmp_path / 'parts', num=5, batch_size=3)
  draw(tmp_path / 'holes', num=5, batch_size=1)
  for name in ('small/000001.png', 'large/000003.png'):
    (tmp_path / 'holes' / name).unlink()
  draw(tmp_path / 'holes', num=5, batch_size=4)
  for n in range(5):
    for stage in ('small', 'large'):
      name = f'{stage}/{n:06d}.png'
      expected = pixels(tmp_path / 'whole' / name)
      np.testing.assert_array_equal(pixels(tmp_path / 'parts' / name), expected)
      np.testing.assert_array_equal(pixels(tmp_path / 'holes' / name), expected)


def test_what_is_missing_is_drawn_in_batches_of_the_same_size(
  tmp_path, monkeypatch
):
  """Another size is another program, whose bytes may differ."""
  sizes, sampler = [], cascade.sampler

  def watched(*given, **options):
    run = sampler(*given, **options)

    def draw(seed, indices, label):
      sizes.append(len(indices))
      return run(seed, indices, label)

    return draw

  monkeypatch.setattr(cascade, 'sampler', watched)
  draw(tmp_path, num=5, batch_size=3)
  (tmp_path / 'small' / '000001.png').unlink()
  draw(tmp_path, num=5, batch_size=3)
  assert sizes == [3, 3, 3]


def test_both_pictures_of_an_image_come_of_one_draw(tmp_path):
  draw(tmp_path)
  for n in range(5):
    low = pixels(tmp_path / 'small' / f'{n:06d}.png')
    high = pixels(tmp_path / 'large' / f'{n:06d}.png')
    np.testing.assert_array_equal(high, low.repeat(2, 0).repeat(2, 1))


def test_a_shorter_run_gives_the_first_images_only(tmp_path):
  draw(tmp_path, num=5)
  draw(tmp_path, num=3)
  with np.load(tmp_path / 'samples.npz') as archive:
    assert archive['arr_0'].shape == (3, 8, 8, 3)
    assert 'arr_1' not in archive


def test_labels_are_taken_in_turn_and_stay_with_their_image(tmp_path):
  draw(tmp_path, labels=[2, 0, 1], num=5, batch_size=2)
  with np.load(tmp_path / 'samples.npz') as archive:
    assert archive['arr_1'].tolist() == [2, 0, 1, 2, 0]
    assert archive['arr_0'][:, 0, 0, 0].tolist() == [2, 0, 1, 2, 0]


def test_what_is_assembled_is_not_assembled_again(tmp_path, monkeypatch):
  draw(tmp_path, num=3)
  calls, assemble = [], generate.assemble
  monkeypatch.setattr(
    generate, 'assemble', lambda *a: calls.append(a) or assemble(*a)
  )
  draw(tmp_path, num=3)
  assert not calls
  for num, remove in ((3, 'samples.png'), (3, 'samples.npz'), (2, None)):
    if remove:
      (tmp_path / remove).unlink()
    calls.clear()
    draw(tmp_path, num=num)
    assert len(calls) == 1
  (tmp_path / 'large' / '000001.png').unlink()
  draw(tmp_path, num=2)
  assert len(calls) == 2


def test_the_names_of_the_labels_stand_beside_them(tmp_path):
  draw(tmp_path, labels=[2, 0, 1], num=3, names=['a', 'b', 'c'])
  source = npz_dataset.Archive(tmp_path / 'samples.npz', ('c', 'b', 'a'))
  assert source.labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'seed': 1}, r'another manifest: seed is 0 there, 1 now'),
    ({'labels': [1, 2]}, r'labels is \[0, 1\] there, \[1, 2\] now'),
  ],
)
def test_manifests_are_never_mixed(tmp_path, change, message):
  draw(tmp_path, labels=[0, 1], num=2)
  with pytest.raises(ValueError, match=message):
    draw(tmp_path, **{'labels': [0, 1], 'num': 3} | change)
  assert len(list((tmp_path / 'small').iterdir())) == 2


def test_a_manifest_of_tuples_is_its_own(tmp_path):
  """JSON knows lists only; configs hold tuples."""
  for _ in range(2):
    draw(tmp_path, labels=(0, 1), num=2)


def test_what_lies_there_is_neither_taken_for_a_sample_nor_replaced(tmp_path):
  """Image 0 would be left undrawn, and samples.png overwritten."""
  (tmp_path / 'small').mkdir()
  mine = tmp_path / 'small' / '000000.png'
  for path in (mine, tmp_path / 'samples.png'):
    path.write_text('mine', encoding='utf-8')
    with pytest.raises(ValueError, match='not from an earlier start of this'):
      draw(tmp_path, num=2)
    assert path.read_text(encoding='utf-8') == 'mine'
  draw(tmp_path, num=2, overwrite=True)
  assert pixels(mine).shape[2] == 3
  inode = mine.stat().st_ino
  draw(tmp_path, num=2, overwrite=True)  # The same settings: it continues.
  assert mine.stat().st_ino == inode
  draw(tmp_path, num=1, seed=1, overwrite=True)
  assert [p.name for p in (tmp_path / 'small').iterdir()] == ['000000.png']


def test_a_session_is_recorded_only_when_something_was_drawn(tmp_path):
  for num in (2, 2, 3):
    draw(tmp_path, num=num)
  lines = (tmp_path / 'sessions.jsonl').read_text(encoding='utf-8').splitlines()
  assert [json.loads(line)['what'] for line in lines] == ['sample', 'sample']


@pytest.mark.parametrize(
  ('labels', 'num', 'rows'),
  [
    (None, 3, 1),
    (None, 9, 3),  # four in a row
    ([0, 1, 2], 9, 3),  # a row per class
    ([0, 0, 0, 0, 0, 1], 6, 2),  # at most four of a class
    (None, 36, 8),  # at most eight rows
    (list(range(20)), 20, 16),  # at most sixteen classes
  ],
)
def test_the_overview_has_a_row_per_class(tmp_path, labels, num, rows):
  """Pictures are magnified to 64 pixels."""
  draw(tmp_path, labels=labels, num=num, names=['dog', 'cat'])
  height = pixels(tmp_path / 'samples.png').shape[0]
  assert rows * 64 <= height < (rows + 1) * 64 + rows * 4


@pytest.mark.parametrize('damage', ['cut', 'empty', 'zeros'])
def test_an_image_that_is_damaged_is_drawn_again_and_said(
  tmp_path, capsys, damage
):
  """A crash of the machine may leave a file that was not yet on the disk."""
  draw(tmp_path, num=3)
  path = tmp_path / 'large' / '000001.png'
  whole, expected = path.read_bytes(), pixels(path)
  damaged = {'cut': whole[:60], 'empty': b'', 'zeros': bytes(len(whole))}
  path.write_bytes(damaged[damage])
  (tmp_path / 'samples.png').unlink()
  (tmp_path / 'samples.npz').unlink()
  capsys.readouterr()
  draw(tmp_path, num=3)
  out = capsys.readouterr().out
  assert f'cut off or damaged: 1 image files; the first: {path}.' in out
  assert '2 of 3 are already' in out
  np.testing.assert_array_equal(pixels(path), expected)
  assert path.read_bytes() == whole
