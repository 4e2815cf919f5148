from cdm.data.forms.row_names import RowNames


def test_records_without_names_are_numbered_within_their_files():
  names = RowNames(['a', 'b', 'c'], [2, 0, 3])
  assert list(names) == ['a:0', 'a:1', 'c:0', 'c:1', 'c:2']
  assert names[1:3] == ['a:1', 'c:0'] and names[-1] == 'c:2'
