"""Names of classes: on disk, as a user types them, and as they are shown."""

import pytest

from cdm.data import class_names

NAMES = ['dog', 'crane', 'tench, Tinca tinca', 'crane', '10', '7']


def test_names_come_back_as_they_were(tmp_path):
  assert class_names.read(tmp_path) is None
  class_names.write(tmp_path, ())
  assert class_names.read(tmp_path) is None
  class_names.write(tmp_path, ('Hündin', 'b'))
  assert class_names.read(tmp_path) == ['Hündin', 'b']
  assert [path.name for path in tmp_path.iterdir()] == ['classes.json']


@pytest.mark.parametrize('text', ['["a", ', '{"a": 1}', '["a", 1]'])
def test_damaged_names_are_refused_by_their_file(text, tmp_path):
  (tmp_path / 'classes.json').write_text(text, encoding='utf-8')
  with pytest.raises(ValueError, match=r'json is damaged: it is not a list'):
    class_names.read(tmp_path)


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('names.txt', 'dog\n\n tench, Tinca tinca \r\nHündin\n'),
    ('classes.json', '["dog", "tench, Tinca tinca", "Hündin"]'),
  ],
)
def test_names_are_given_as_a_file_or_as_a_list(name, content, tmp_path):
  (tmp_path / name).write_text(content, encoding='utf-8')
  found = class_names.parse(str(tmp_path / name))
  assert found == ('dog', 'tench, Tinca tinca', 'Hündin')
  assert class_names.parse('dog, cat,3') == ('dog', 'cat', '3')
  assert class_names.parse('') == class_names.parse(' ') == ()


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('a,b,a', "class 2, 'a', is that of class 0 too"),
    ('a,,b', "class 1, '', is empty"),
    ('nowhere/names', 'there is no file nowhere/names'),
    ('names.txt', 'there is no file names.txt'),
  ],
)
def test_names_that_cannot_be_meant_are_refused(text, message):
  with pytest.raises(ValueError, match=message):
    class_names.parse(text)


@pytest.mark.parametrize(
  'text, label',
  [('dog', 0), ('0', 0), ('5', 5), ('10', 4), ('7', 5), (' dog ', 0)],
)
def test_a_label_is_a_name_if_it_is_one_else_an_index(text, label):
  assert class_names.find_label(text, NAMES, 6) == label


@pytest.mark.parametrize(
  'text, message',
  [
    (
      'cat',
      "'cat' is not a class; give an index from 0 to 5 or .*: dog",
    ),
    ('6', "'6' is not a class"),
    ('-1', "'-1' is not a class"),
    ('crane', "'crane' is the name of the classes 1, 3; give the index"),
    ('', "'' is not a class"),
  ],
)
def test_what_is_no_class_is_refused_with_those_that_are(text, message):
  with pytest.raises(ValueError, match=message):
    class_names.find_label(text, NAMES, 6)


def test_without_names_only_an_index_is_a_class():
  assert class_names.find_label('3', None, 4) == 3
  with pytest.raises(ValueError, match=r'from 0 to 3\.'):
    class_names.find_label('dog', None, 4)


def test_a_list_of_labels_may_hold_names_with_commas():
  assert class_names.find_labels('dog,3,5', NAMES, 6) == [0, 3, 5]
  assert class_names.find_labels('tench, Tinca tinca', NAMES, 6) == [2]


def test_a_label_is_shown_by_its_name():
  assert class_names.describe(0, NAMES) == 'dog (class 0)'
  assert class_names.describe(9, NAMES) == 'class 9'
  assert class_names.describe(2, None) == 'class 2'
