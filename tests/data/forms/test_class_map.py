import pytest
from support import small_archives as small

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import class_map


@pytest.mark.parametrize(
  'text', [small.MAP_CLSLOC, 'n02100735 2\r\n\r\nn02119789\t1 kit fox']
)
def test_classes_are_in_the_order_of_their_numbers(tmp_path, text):
  path = tmp_path / class_map.FILE
  path.write_bytes(text.encode())
  assert class_map.read(path) == ('n02119789', 'n02100735')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'it has 0 lines, and no class 1'),
    ('n02119789 2 kit_fox', 'it has 1 lines, and no class 1'),
    ('n02119789 1 a\nn02100735 3 b', 'no class 2'),
    ('n02119789 1 a\nn02100735 1 b', 'line 2 numbers 1 again'),
    ('n02119789 1 a\nn02119789 2 b', 'names a class twice'),
    ('<html>', "line 1 is '<html>'"),
    ('kit_fox 1', "line 1 is 'kit_fox 1'"),
  ],
)
def test_another_file_is_refused(tmp_path, text, message):
  path = tmp_path / class_map.FILE
  path.write_text(text, encoding='utf-8')
  with pytest.raises(DamagedFile, match=f'{message}.* kit_fox. were expected'):
    class_map.read(path)
