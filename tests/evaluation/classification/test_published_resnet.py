"""ResNet-50's errors on sets and on super-resolved images.

The network is replaced by one that reads the class out of the pixels; that it
is torchvision's is tested in models/test_resnet.py.
"""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support import grey_classes, published_weights, smoke_runs
from support.declared import assert_declared
from support.grey_classes import CHOSEN
from support.oracles import data, oracle, rule_weights

from cdm.data import folder, sample_photos, subset, transforms
from cdm.evaluation import row_types
from cdm.evaluation.classification import published_resnet
from cdm.methods.lowres_conditioning import Lowres
from cdm.models.pretrained import imagenet_classes
from cdm.ops import resize
from cdm.sampling import restore, stage_record, upscaler
from cdm.sampling.cascade import Stage


@pytest.fixture
def place(tmp_path, monkeypatch):
  """-> folder with a set of 12 pictures, one of them in the wrong class."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  calls = []

  grey_classes.stand_in(calls, monkeypatch.setattr)
  grey_classes.write_pictures(tmp_path / 'set')
  monkeypatch.setattr(published_resnet, 'classified', calls, raising=False)
  return tmp_path


def run(capsys, *words):
  code = smoke_runs.cdm('accuracy', *words)
  out = capsys.readouterr()
  return code, json.loads(out.out) if not code else out.err


def test_errors_of_a_set_are_counted_by_hand(place, capsys):
  code, row = run(
    capsys, f'--samples={place / "set"}', f'--out={place / "r.json"}'
  )
  assert code == 0 and row['n'] == 12
  assert row['top1_error'] == pytest.approx(1 / 12)
  assert row['top5_error'] == 0.0 and row['top1'] == pytest.approx(11 / 12)
  low, high = row['intervals']['top1_error']
  assert low <= 1 / 12 <= high
  assert '**top-1 error 0.083' in (place / 'r.md').read_text(encoding='utf-8')
  assert json.loads((place / 'r.json').read_text(encoding='utf-8')) == row
  assert not list((place / 'cache').rglob('*.jsonl'))


def test_an_archive_gives_the_numbers_of_its_folder(place, capsys):
  source = folder.Folder(place / 'set')
  x = np.stack([source[i]['image'] for i in range(12)])
  labels = imagenet_classes.labels_of(source.class_names)[source.labels]
  np.savez(place / 'a.npz', x, labels)
  row = run(capsys, f'--samples={place / "a.npz"}')[1]
  assert row['top1_error'] == pytest.approx(1 / 12)
  assert 'the classes have no names' in row['warnings'][0]


def test_the_first_images_are_first_by_file_name(place, capsys):
  """The wrong one is the 7th of 12 by name, in whatever folder it is."""
  rows = [
    run(capsys, f'--samples={place / "set"}', f'--num={n}')[1] for n in (6, 7)
  ]
  assert [row['top1_error'] for row in rows] == pytest.approx([0, 1 / 7])
  assert rows[0]['which'] == 'first by file name'
  source = folder.Folder(place / 'set')
  names = [source.files[i] for i in subset.first_validation(source, 12)]
  assert [int(name[-6:-4]) for name in names] == list(range(79, 91))


def stage(*, made, num_classes=None):
  """Magnifies 64 to 256; `made` turns the enlarged picture into the result."""

  def sample(params, *, keys, lowres, label=None, **_):
    x = resize.resize(lowres, 256, method='nearest')
    return made(x, label)

  params = jnp.float32(1.0)
  lowres = Lowres(size=64)
  return Stage('sr', 256, sample, params, lowres, num_classes=num_classes)


@pytest.fixture
def restored(monkeypatch):
  """-> function that puts a stage where a trained one is asked for."""

  def put(made, **fields):
    saved = published_resnet.loader.load(
      smoke_runs.CONFIGS / 'sr3_imagenet64to256.py'
    )
    record = stage_record.StageRecord(saved.name, 7, 0.0, {'kind': 'ddim'})
    monkeypatch.setattr(
      restore,
      'restored_upscaler',
      lambda *args, **given: (
        upscaler.stage_upscaler(
          stage(made=made, **fields), record, batch_size=8
        ),
        saved,
      ),
    )

  return put


def test_a_stage_is_judged_beside_bicubic_and_the_originals(
  place, capsys, restored
):
  restored(lambda x, label: x + 2 * 20 / 255)  # one class brighter
  words = ('--workdir=W', f'--reference={place / "set"}', '--batch_size=8')
  code, row = run(capsys, *words, f'--out={place / "r.json"}')
  assert code == 0
  # Three of twelve are of the brightest class, which stays; one of them is
  # not, but of class 1 and dark, so that brightened it is right.
  assert row['top1_error'] == pytest.approx(8 / 12)
  assert row['bicubic']['top1_error'] == pytest.approx(1 / 12)
  assert row['baseline']['top1_error'] == pytest.approx(1 / 12)
  assert row['samples_recipe']['sizes'] == [224, 56, 64, 256, 224]
  assert_declared(row, row_types.ErrorRow)
  assert_declared(row['bicubic'], row_types.ErrorRates)
  assert_declared(row['samples_recipe'], row_types.ImageManifest)
  assert row['paper']['resnet50_error_top1'] == 0.317
  assert all(x.shape[1:] == (224, 224, 3) for x in published_resnet.classified)
  line = (place / 'r.md').read_text(encoding='utf-8')
  assert '(paper: resnet50_error_top1 0.317)' in line
  assert 'baseline 0.083 / 0.000; bicubic 0.083 / 0.000' in line


def test_the_low_resolution_image_is_the_original_shrunk():
  """56 pixels by Pillow's bicubic, then 64; and back to 224 for bicubic."""
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
  low, original, bicubic = published_resnet.make_versions(x, 4, 64)

  def pillow(image, size):
    image = Image.fromarray(image)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))

  small = pillow(x[0], 56)
  np.testing.assert_array_equal(low[0], pillow(small, 64))
  np.testing.assert_array_equal(bicubic[0], pillow(small, 224))
  assert original is x


def test_a_killed_run_continues(place, capsys, restored, monkeypatch):
  restored(lambda x, label: x)
  words = ('--workdir=W', f'--reference={place / "set"}', '--batch_size=8')
  whole = run(capsys, *words)[1]
  before = len(published_resnet.classified)
  ranked, seen = published_resnet.rank_versions, []

  def dies(*given):
    seen.append(given)
    if len(seen) == 2:
      raise KeyboardInterrupt
    return ranked(*given)

  monkeypatch.setattr(published_resnet, 'rank_versions', dies)
  assert run(capsys, *words)[0] == 130
  monkeypatch.setattr(published_resnet, 'rank_versions', ranked)
  assert run(capsys, *words)[1] == whole
  assert (
    len(published_resnet.classified) == 2 * before
  )  # no batch was classified twice


def test_a_conditional_stage_is_told_the_class_by_name(
  place, capsys, restored, monkeypatch
):
  """It paints the grey level of what it is told: all is right if that is."""
  level = jnp.array([0.0, 20, 40, 60]) * 2 / 255 - 1  # of CHOSEN
  order = [CHOSEN.index(name) for name in sorted(CHOSEN)]  # of the stage

  def paint(x, label):
    return 0 * x + level[jnp.array(order)][label][:, None, None, None]

  restored(paint, num_classes=4)
  names = sorted(CHOSEN)
  monkeypatch.setattr(
    published_resnet.class_names, 'read', lambda workdir: names
  )
  words = ('--workdir=W', f'--reference={place / "set"}')
  assert run(capsys, *words)[1]['top1_error'] == 0.0
  order, names = order[::-1], names[::-1]
  assert run(capsys, *words)[1]['top1_error'] == 0.0
  names = names[:3]
  assert 'was not trained on the class' in run(capsys, *words)[1]


def test_the_preset_is_torchvisions():
  description, arrays = oracle('resnet50')
  assert description['settings']['image'] == ['astronaut', 0, 0, 512, 512]
  mine = transforms.resize_crop(
    sample_photos._photograph('astronaut'), short_side=256, size=224
  )
  np.testing.assert_array_equal(mine, arrays['img/preset'])


def test_the_preset_of_an_oblong_image_keeps_its_aspect():
  """As torchvision states it: the long side is cut to whole pixels."""
  rng = np.random.default_rng(0)
  for h, w in ((300, 401), (401, 300)):
    x = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
    long = 256 * 401 // 300
    size = (long, 256) if w > h else (256, long)
    whole = np.asarray(
      Image.fromarray(x).resize(size, Image.Resampling.BILINEAR)
    )
    edge = round((long - 224) / 2)
    top, left = (16, edge) if w > h else (edge, 16)
    np.testing.assert_array_equal(
      transforms.resize_crop(x, short_side=256, size=224),
      whole[top : top + 224, left : left + 224],
    )


def test_classes_of_imagenet_are_sorted_and_those_of_the_published_list():
  names = imagenet_classes.WORDNET_IDS
  assert len(set(names)) == 1000 and list(names) == sorted(names)
  assert imagenet_classes.labels_of(['n15075141', 'n01440764']).tolist() == [
    999,
    0,
  ]
  with pytest.raises(ValueError, match="1 of 2 classes .* first 'tench'"):
    imagenet_classes.labels_of(['n01440764', 'tench'])
  import zipfile

  with zipfile.ZipFile(data('imagenet_meta.zip')) as archive:
    text = archive.read('imagenet_meta/LOC_synset_mapping.txt').decode()
  assert [line.split()[0] for line in text.splitlines()] == list(names)


def test_another_file_of_weights_is_named_or_refused(tmp_path):
  with pytest.raises(ValueError, match='--classifier_weights=.*no.pth is not'):
    published_resnet.read_network(tmp_path / 'no.pth', 4)
  published_weights.write_pytorch(
    tmp_path / 'w.pth', {'fc.bias': np.ones(2)}, zipped=True
  )
  with pytest.raises(ValueError, match='these are not the weights of a ResNet'):
    published_resnet.read_network(tmp_path / 'w.pth', 4)
  state = rule_weights(oracle('resnet50')[0]['weights'])
  published_weights.write_pytorch(tmp_path / 'o.pth', state, zipped=True)
  _, recipe = published_resnet.read_network(tmp_path / 'o.pth', 4)
  assert recipe['network'] == published_resnet.OTHER


def test_numbers_of_other_weights_are_not_compared(place, capsys, monkeypatch):
  read = published_resnet.read_network
  monkeypatch.setattr(
    published_resnet,
    'read_network',
    lambda *given: (read(*given)[0], {'network': published_resnet.OTHER}),
  )
  run(capsys, f'--samples={place / "set"}', f'--out={place / "r.json"}')
  line = (place / 'r.md').read_text(encoding='utf-8')
  assert '**not comparable: the classifier is a ResNet-50 of other' in line


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    ((), 'give one of the two'),
    (('--samples=a', '--workdir=b'), 'give one of the two'),
    (('--samples=a', '--reference=b'), '--reference is for a stage'),
    (('--samples=a', '--config.x=1'), '--config... is for a stage'),
    (('--samples=a', '--level=0.0'), '--level is for a stage'),
    (('--samples=a', '--num=0'), '--num=0: it must be at least 1'),
    (('--samples=nowhere',), 'nowhere is not a labelled set'),
  ],
)
def test_what_cannot_be_judged_is_refused(words, message, capsys):
  assert message in run(capsys, *words)[1]


def test_other_classes_and_too_few_images_are_refused(place, capsys):
  assert (
    'holds 12 images'
    in run(capsys, f'--samples={place / "set"}', '--num=13')[1]
  )
  (place / 'set' / CHOSEN[0]).rename(place / 'set' / 'tench')
  assert "first 'tench'" in run(capsys, f'--samples={place / "set"}')[1]
