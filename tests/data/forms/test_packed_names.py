import pickle

import pytest

from cdm.data.forms.packed_names import PackedNames


def test_names_come_back_as_they_were():
  given = ['a.png', '', 'ü/ö.png', 'b\udcff.png']
  names = PackedNames.of(given)
  assert list(names) == given and len(names) == 4
  assert [names[i] for i in range(-4, 4)] == given + given
  assert names[1:3] == ('', 'ü/ö.png')
  assert list(pickle.loads(pickle.dumps(names))) == given
  with pytest.raises(IndexError):
    names[4]
  assert list(PackedNames.of([])) == []


def test_a_million_names_take_their_own_bytes_and_eight_more():
  names = PackedNames.of(f'{n:08d}' for n in range(10_000))
  assert names.data.nbytes + names.ends.nbytes == 10_000 * 16
