import numpy as np
import pytest

from cdm.data import class_labels
from cdm.data.class_labels import Labels


def labels(*values, names, named=True):
  return Labels(np.array(values, np.int32), names, named)


def test_classes_are_found_by_name_and_withheld_labels_stay():
  own = labels(0, 1, 2, -1, names=('cat', 'dog', 'owl'))
  new = class_labels.translated(own, ('owl', 'ape', 'cat', 'dog'), 'x')
  assert new.values.tolist() == [2, 3, 0, -1]
  assert new.class_names == ('owl', 'ape', 'cat', 'dog')


def test_numbers_without_names_count_the_classes_that_are_given():
  own = labels(1, 0, names=('0', '1'), named=False)
  new = class_labels.translated(own, ('cat', 'dog'), 'x')
  assert new.values.tolist() == [1, 0] and new.named
  with pytest.raises(ValueError, match='x has labels up to 1, but there are 1'):
    class_labels.translated(own, ('cat',), 'x')


def test_no_classes_are_asked_for_or_nothing_is():
  own = labels(1, 0, names=('cat', 'dog'))
  assert class_labels.translated(own, None, 'x') is own
  assert class_labels.translated(own, (), 'x').values.tolist() == [0, 0]


def test_classes_that_are_not_asked_for_are_refused_by_name():
  own = labels(1, 0, names=('cat', 'dog'))
  with pytest.raises(ValueError, match="1 classes .* first 'dog'"):
    class_labels.translated(own, ('cat', 'owl'), 'x')
  with pytest.raises(ValueError, match='x has no labels, but 1 classes are'):
    class_labels.translated(class_labels.none(2), ('cat',), 'x')


def test_wordnet_ids_are_counted_in_their_order():
  own = labels(0, 1, names=('n02119789', 'n01440764'))
  new = class_labels.in_order_of_ids(own)
  assert new.class_names == ('n01440764', 'n02119789')
  assert new.values.tolist() == [1, 0]
  other = labels(0, 1, names=('zebra', 'ape'))
  assert class_labels.in_order_of_ids(other) is other
