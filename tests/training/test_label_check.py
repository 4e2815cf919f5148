"""What is refused before a stage trains on labels that it does not know."""

import json
import types

import numpy as np
import pytest

from cdm.checkpointing import reader
from cdm.config.loader import ConfigDict
from cdm.data import class_names, folder
from cdm.training import label_check


class Batches:
  """The same labels for ever."""

  def __init__(self, labels):
    self.labels, self.position = np.array(labels), None

  def __next__(self):
    return {'label': self.labels}

  def get_state(self):
    return 'here'

  def set_state(self, state):
    self.position = state


def labelled(labels, num_classes, before_resuming=lambda: None):
  return label_check.LabelCheckedBatches(
    Batches(labels), num_classes, before_resuming=before_resuming
  )


@pytest.mark.parametrize('labels', [[0, 3], [2, -1]])
def test_a_label_out_of_range_ends_the_run(labels):
  batches = labelled(labels, 3)
  with pytest.raises(ValueError, match=r'num_classes is 3: labels are 0 to 2'):
    next(batches)


def test_labels_in_range_pass_and_without_classes_all_do():
  assert next(labelled([0, 2], 3))['label'].tolist() == [0, 2]
  assert next(labelled([7, -1], None))['label'].tolist() == [7, -1]


def test_a_position_is_restored_only_if_it_may_be():
  batches = Batches([0])

  def refuse():
    raise ValueError('not these')

  refused = label_check.LabelCheckedBatches(batches, 1, before_resuming=refuse)
  with pytest.raises(ValueError, match='not these'):
    refused.set_state('there')
  assert batches.position is None
  allowed = label_check.LabelCheckedBatches(
    batches, 1, before_resuming=lambda: None
  )
  allowed.set_state('there')
  assert batches.position == 'there' and allowed.get_state() == 'here'


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ('ab', None),
    ('ba', "Class 0 .* is 'a', but in the data it is 'b'"),
    ('abc', "Class 2 .* is None, but in the data it is 'c'"),
    ('a', "Class 1 .* is 'b', but in the data it is None"),
  ],
)
def test_a_label_keeps_its_meaning(names, message, tmp_path, monkeypatch):
  source = types.SimpleNamespace(class_names=tuple(names))
  (tmp_path / 'classes.json').write_text(
    json.dumps(['a', 'b']), encoding='utf-8'
  )
  label_check.check_classes(tmp_path, source)  # nothing has been trained yet
  monkeypatch.setattr(reader, 'complete_steps', lambda _: [2])
  if message is None:
    label_check.check_classes(tmp_path, source)
    return
  with pytest.raises(ValueError, match=message):
    label_check.check_classes(tmp_path, source)


def test_the_names_of_the_classes_are_written_and_compared(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(reader, 'complete_steps', lambda _: [2])
  source = types.SimpleNamespace(class_names=('a', 'b'))
  class_names.write(tmp_path, source.class_names)
  label_check.check_classes(tmp_path, source)
  assert [path.name for path in tmp_path.iterdir()] == ['classes.json']


@pytest.mark.parametrize('saved', [{}, {'order': 'text'}])
def test_a_run_goes_on_in_the_order_of_its_pictures(saved, tmp_path):
  """Runs of versions without the key count the pictures as text."""

  def check(names, **now):
    folder_of = tmp_path / '-'.join(names)
    folder_of.mkdir(exist_ok=True)
    for name in names:
      (folder_of / name).write_bytes(b'')
    section = {'kind': 'folder', 'path': str(folder_of)}
    label_check.check_order(
      ConfigDict({'train_data': section | saved}),
      ConfigDict({'train_data': section | now}),
      folder.Folder(str(folder_of), **now),
    )

  check(('0.png', '9.png', '10.png'))
  check(('00.png', '09.png', '10.png'), order='numbers')  # the same order
  with pytest.raises(ValueError, match='Use --config.train_data.order=text'):
    check(('0.png', '9.png', '10.png'), order='numbers')
