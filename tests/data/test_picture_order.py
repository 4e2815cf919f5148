"""The order of the pictures of a folder."""

import random

import pytest

from cdm.data import folder, numbered_names, picture_order


@pytest.mark.parametrize(
  'files',
  [
    ('0.jpg', '1.jpg', '9.jpg', '10.jpg', '100.jpg'),
    ('01.png', '1.jpg', '2.jpg', '10.jpg'),
    ('b/9.jpg', 'b/10.jpg', 'c/x.jpg', 'c/y.jpg'),
    ('2/7.jpg', '10/6.jpg', '10/7.jpg'),
    # Where one name is no number, all are text.
    ('10.jpg', '9.jpg', 'x.jpg'),
    ('a10.jpg', 'a9.jpg'),
    ('n01440764_10026.JPEG', 'n01440764_9981.JPEG'),
    # The folders of thousands of `cdm sample` lie beside the first thousand.
    tuple(map(numbered_names.relative_name, (0, 1, 999, 1000, 2000, 10000))),
  ],
)
def test_numbers_as_names_are_ordered_as_numbers(files):
  given = sorted(files)
  assert picture_order.ordered(given, 'numbers') == files
  assert picture_order.ordered(given, 'text') == tuple(given)


def test_a_list_decides_the_order(write_folder, tmp_path):
  root = tmp_path / 'pictures'
  root.mkdir()
  write_folder(root, 6)
  names = [f'{"ab"[n % 2]}/{n:04d}.png' for n in range(6)]
  random.Random(0).shuffle(names)
  path = tmp_path / 'order.txt'
  path.write_text('\n'.join(names), encoding='utf-8')
  source = folder.Folder(root, order=str(path))
  assert source.files == tuple(names)
  assert source.order == str(path)
  for i, name in enumerate(names):
    assert source.class_names[source[i]['label']] == name[0]
  assert folder.Folder(root).fingerprint != source.fingerprint
  assert picture_order.describe(source.order) == 'list order.txt'


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('0.png\n1.png\n', 'no line for 2.png'),
    ('0.png\n1.png\n1.png\n2.png\n', 'names 1.png, which line 2 names'),
    ('0.png\n1.png\n2.png\n3.png\n', 'names 3.png, which is none of the 3'),
    ('x\n', 'Line 1 .* names x, which is none'),
    ('', 'has no lines'),
  ],
)
def test_a_list_of_other_pictures_is_refused(tmp_path, text, message):
  path = tmp_path / 'order.txt'
  path.write_text(text, encoding='utf-8')
  with pytest.raises(ValueError, match=message):
    picture_order.ordered(('0.png', '1.png', '2.png'), str(path))


def test_an_unknown_order_is_refused():
  with pytest.raises(ValueError, match="number: .* Give order='numbers'"):
    picture_order.ordered(('0.png',), 'number')
