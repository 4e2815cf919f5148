"""The flags of labels, names and order set the keys of a data section."""

import argparse
import json

import numpy as np
import pytest
from PIL import Image

from cdm.cli import label_flags, main


def flags(*words):
  parser = argparse.ArgumentParser()
  label_flags.arguments(parser)
  return parser.parse_args(words)


def test_what_is_not_given_leaves_the_data_as_they_are():
  tfds = {'kind': 'tfds', 'name': 'x', 'split': 'train'}
  assert label_flags.with_flags(tfds, flags(), '--source=x') == tfds
  folder = {'kind': 'folder', 'path': 'x'}
  found = label_flags.with_flags(folder, flags(), '--source=x')
  assert found == folder | {'order': 'numbers'}
  found = label_flags.with_flags(folder, flags('--class_names='), '--source=x')
  assert found['class_names'] == ()


@pytest.mark.parametrize(
  ('section', 'words', 'message'),
  [
    (
      {'kind': 'tfds', 'name': 'x'},
      ('--labels=y',),
      '--labels does not apply to --source=x, which is read as tfds',
    ),
    ({'kind': 'folder', 'class_names': ()}, ('--class_names=a',), 'exclude'),
    ({'kind': 'folder'}, ('--class_names=a,a',), 'is that of class 0 too'),
  ],
)
def test_flags_that_do_not_apply_are_refused(section, words, message):
  with pytest.raises(ValueError, match=message):
    label_flags.with_flags(section, flags(*words), '--source=x')


def test_a_flat_folder_is_prepared_with_the_labels_of_a_file(tmp_path, capsys):
  pytest.importorskip('array_record')
  root = tmp_path / 'val'
  root.mkdir()
  for n in (0, 1, 2, 10):
    pixels = np.full((4, 4, 3), n, np.uint8)
    Image.fromarray(pixels).save(root / f'{n}.png')
  labels = tmp_path / 'labels.csv'
  labels.write_text(
    'image,label\n10,cat\n0,dog\n1,cat\n2,cat\n', encoding='utf-8'
  )
  words = (f'--source={root}', '--size=4', f'--out={tmp_path / "out"}')
  given = (f'--labels={labels}', '--class_names=owl,dog,cat')
  assert main.main(['prepare', *words, *given]) == 0
  index = json.loads((tmp_path / 'out' / 'index.json').read_bytes())
  assert index['class_names'] == ['owl', 'dog', 'cat']
  assert index['recipe']['order'] == 'numbers'
  capsys.readouterr()
  assert main.main(['prepare', *words, *given, '--order=text']) == 2
  assert 'order' in capsys.readouterr().err

  from cdm.data import array_record

  source = array_record.ArrayRecords(tmp_path / 'out')
  values = [int(source[i]['image'][0, 0, 0]) for i in range(4)]
  assert values == [0, 1, 2, 10]
  assert [int(source[i]['label']) for i in range(4)] == [1, 2, 2, 2]
