"""CelebA's list of landmarks, its copy in CSV, and lists that are none."""

import numpy as np
import pytest

from cdm.data import landmark_file
from cdm.data.files import damaged_file

# The first lines of CelebA's own file, as its users print them.
CELEBA = """\
2
lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x \
leftmouth_y rightmouth_x rightmouth_y
000001.jpg 69  109  106  113   77  142   73  152  108  154
000002.jpg 69  110  107  112   81  135   70  151  108  153
"""
FILES = ('000001.jpg', '000002.jpg')


def csv_of(text):
  """-> the same as Kaggle has it: no count, a name for the first column."""
  _, header, *rows = text.splitlines()
  lines = [f'image_id {header}', *rows]
  return '\n'.join(','.join(line.split()) for line in lines) + '\n'


def read(tmp_path, text, files=FILES, name='list.txt'):
  path = tmp_path / name
  path.write_text(text, encoding='utf-8')
  return landmark_file.read(path, files)


@pytest.mark.parametrize('form', ['text', 'csv', 'no count', 'windows'])
def test_celebas_list_is_read_in_every_form(tmp_path, form):
  text = {
    'text': CELEBA,
    'csv': csv_of(CELEBA),
    'no count': CELEBA[2:],
    'windows': CELEBA.replace('\n', '\r\n'),
  }[form]
  found = read(tmp_path, text)
  assert found.names == (
    *('lefteye', 'leftmouth', 'nose', 'righteye', 'rightmouth'),
  )
  assert found.points.shape == (2, 5, 2)
  of = dict(zip(found.names, found.of(0).tolist(), strict=True))
  assert of['lefteye'] == [69, 109] and of['righteye'] == [106, 113]
  assert of['nose'] == [77, 142] and of['rightmouth'] == [108, 154]
  np.testing.assert_array_equal(found.of(1)[0], [69, 110])


def test_a_folder_may_have_some_of_the_pictures_in_any_order(tmp_path):
  """As the training split of CelebA, or copies of it in another format."""
  found = read(tmp_path, CELEBA, files=('b/000002.png',))
  np.testing.assert_array_equal(found.of(0)[2], [81, 135])
  found = read(tmp_path, CELEBA, files=FILES[::-1])
  np.testing.assert_array_equal(found.points[:, 2, 0], [81, 77])


def test_the_outermost_points_are_those_of_the_largest_coordinates(tmp_path):
  text = CELEBA.replace('106  113', '170  113').replace('108  153', '108  210')
  assert read(tmp_path, text).outermost() == [0, 1]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (('000002.jpg', '000003.jpg'), 'has no line for 000002.jpg: .*Give every'),
    (('000002.jpg', '000001.jpg'), 'Line 4 .* line 3 names already'),
    (('  154\n', '\n'), r'Line 3 of .*a name and 10 numbers are expected'),
    (('  154\n', '  154  7\n'), r'Line 3 of .*a name and 10 numbers'),
    (('154', '15_'), r'Line 3 of .*a name and 10 numbers are expected'),
    (('154', 'nan'), r'Line 3 of .*a name and 10 numbers are expected'),
    (('109', '-1'), r'Line 3 of .* a point at -1, which is outside of 000001'),
    (('lefteye_x ', ''), "The header of .* is 'lefteye_y .* names no points"),
    (('nose_x nose_y', 'nose_x jaw_y'), 'The header of .*names no points'),
  ],
)
@pytest.mark.parametrize('form', ['text', 'csv'])
def test_a_list_that_is_none_is_refused_in_one_sentence(
  tmp_path, change, message, form
):
  text = CELEBA.replace(*change, 1)
  if form == 'csv':
    text = csv_of(text)
    for line in (3, 4):  # The count is a line, too.
      message = message.replace(f'ine {line}', f'ine {line - 1}')
    message = message.replace("is 'lefteye_y ", "is 'image_id,lefteye_y,")
  with pytest.raises(ValueError, match=message) as error:
    read(tmp_path, text)
  assert '\n' not in str(error.value)


def test_a_list_that_was_cut_off_is_refused(tmp_path):
  with pytest.raises(
    damaged_file.DamagedFile, match='says that it has 2 lines, and has 1. Fetch'
  ):
    read(tmp_path, CELEBA[: CELEBA.index('000002')])


def test_what_is_no_text_is_refused(tmp_path):
  with pytest.raises(damaged_file.DamagedFile, match='is a page of HTML'):
    read(tmp_path, '<!doctype html>Quota exceeded')
  with pytest.raises(ValueError, match='No such file'):
    landmark_file.read(tmp_path / 'absent.txt', FILES)
