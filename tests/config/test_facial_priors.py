"""Maps of faces in a config: those of the network, or one sentence."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from cdm.cli import main
from cdm.config import datasets, facial_priors, loader, stage
from cdm.training import program

CONFIG = pathlib.Path(__file__).resolve().parents[2] / 'configs/smoke_fsrgan.py'
COUNT = 8


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A folder of pictures, with two points and a map of parts for each."""
  root = tmp_path_factory.mktemp('faces')
  lines = ['lefteye_x lefteye_y righteye_x righteye_y']
  for folder in ('pictures', 'maps'):
    (root / folder).mkdir()
  for i in range(COUNT):
    pixels = np.full((20, 24, 3), 10 * i, np.uint8)
    Image.fromarray(pixels).save(root / 'pictures' / f'{i}.png')
    Image.fromarray(pixels[..., 0] // 80).save(root / 'maps' / f'{i}.png')
    lines.append(f'{i}.png 7 8 17 {i}')
  (root / 'points.txt').write_text('\n'.join(lines), encoding='utf-8')
  return root


def config(root, **overrides):
  """-> the smoke config on these pictures; __ stands for the dot."""
  given = {
    'train_data.kind': 'folder',
    'train_data.path': root / 'pictures',
    'train_data.class_names': '()',
    'pipeline.flip': True,
  }
  given |= {key.replace('__', '.'): v for key, v in overrides.items()}
  return loader.load(CONFIG, [(key, str(v)) for key, v in given.items()])


def train(c):
  source = datasets.open_source(c.train_data)
  iterator = datasets.training_batches(c, source, seed=0)
  batch = next(iterator)
  iterator.close()
  return batch


@pytest.mark.parametrize(
  ('keys', 'maps'),
  [
    (('landmarks',), 2),
    (('parsing',), 19),
    (('landmarks', 'parsing'), 21),
    (('landmarks', 'parsing', 'parts'), 5),
    ((), 0),
  ],
)
def test_a_batch_is_what_the_step_is_compiled_for(root, keys, maps):
  """The keys are set as on the command line, and survive a saved config."""
  values = {
    'landmarks': root / 'points.txt',
    'parsing': root / 'maps',
    'parts': "('background', 'face', 'hair')",
  }
  c = config(
    root,
    model__num_maps=maps,
    **{f'train_data__{key}': values[key] for key in keys},
  )
  c = loader.from_json(loader.to_json(c), 'config.json')
  batch = train(c)
  shapes = program.assemble(c).batch
  assert set(batch) == set(shapes) == {'image', 'label', *['prior'][:maps]}
  for key, array in batch.items():
    assert array.dtype == shapes[key].dtype
    assert array.shape == shapes[key].shape
  assert stage.stage(c).net.num_maps == facial_priors.of_network(c) == maps


LANDMARKS = {'train_data__landmarks': 'points.txt', 'model__num_maps': 2}


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      LANDMARKS | {'model__num_maps': 5},
      r'^config\.train_data\.landmarks has 2 maps, but config\.model\.num_maps '
      r'is 5\. Set --config\.model\.num_maps=2',
    ),
    (
      LANDMARKS | {'train_data__parsing': 'maps'},
      r'^config\.train_data\.landmarks and config\.train_data\.parsing have 21 '
      r'maps, but config\.model\.num_maps is 2',
    ),
    (
      {'model__num_maps': 5},
      r'^config\.model\.num_maps is 5, but config\.train_data gives no maps.*'
      r'--config\.train_data\.landmarks=FILE .*or set --config\.model\.num_',
    ),
    (
      LANDMARKS | {'train_data__landmarks': 'absent.txt'},
      r'^config\.train_data\.landmarks: .*absent\.txt: No such file',
    ),
    (
      LANDMARKS | {'train_data__parsing': 'absent'},
      r'^config\.train_data\.parsing: the folder .*absent is not there',
    ),
    (
      {'train_data__parts': "('a', 'b')"},
      r'^config\.train_data\.parts names parts .*--config\.train_data\.parsing',
    ),
    (
      LANDMARKS
      | {'train_data__parsing': 'maps', 'train_data__parts': '(1, 2)'},
      r'^config\.train_data\.parts is \(1, 2\); it must be a list of texts',
    ),
  ],
)
def test_maps_that_are_not_those_of_the_network_are_refused(
  root, overrides, message, monkeypatch
):
  monkeypatch.chdir(root)
  with pytest.raises(ValueError, match=message) as error:
    train(config(root, **overrides))
  assert '\n' not in str(error.value)


def test_maps_of_evaluation_data_are_refused(root):
  c = config(root, train_data__landmarks=root / 'points.txt', model__num_maps=2)
  with c.unlocked():
    c.eval_data = c.train_data
  with pytest.raises(
    ValueError, match=r'config\.eval_data\.landmarks is given'
  ):
    train(c)
  # Where a trained network is used on them, they are of no concern.
  assert len(datasets.open_source(c.eval_data, 'eval_data')) == COUNT


def test_a_method_without_maps_has_no_use_for_them(root):
  c = config(root, train_data__landmarks=root / 'points.txt')
  with c.unlocked():
    c.method = {'kind': 'regression'}
  with pytest.raises(ValueError, match=r"kind is 'regression', and only 'fsr"):
    train(c)


def test_pictures_without_names_have_no_maps(root):
  c = config(root, **LANDMARKS)
  source = datasets.open_source(
    {'kind': 'synthetic', 'image_size': 16, 'num_images': 8}
  )
  with pytest.raises(ValueError, match=r'no names\. Use --config'):
    datasets.training_batches(c, source, seed=0)


def test_prepared_shards_keep_no_maps(root, tmp_path, capsys):
  pictures, out = root / 'pictures', tmp_path / 'shards'
  prepare = [
    'prepare',
    f'--source={pictures}',
    '--size=16',
    f'--out={out}',
    '--no_classes',
  ]
  assert main.main([*prepare, '--source.landmarks=points.txt']) == 2
  assert 'Train from the pictures themselves' in capsys.readouterr().err
  assert not out.exists()
  assert main.main(prepare) == 0
  c = config(root, **LANDMARKS)
  with c.unlocked():
    c.train_data.kind, c.train_data.path = 'array_records', str(out)
    del c.train_data['order']
  with pytest.raises(
    ValueError,
    match=r'^config\.train_data\.landmarks is given, but prepared shards keep',
  ):
    train(c)
