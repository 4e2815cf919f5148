import json
import os

import pytest

from cdm.checkpointing import checksums


@pytest.fixture
def folder(tmp_path):
  """A folder of two files, and of a third two levels below."""
  (tmp_path / 'state' / 'd').mkdir(parents=True)
  (tmp_path / 'a').write_bytes(b'0123456789')
  (tmp_path / 'empty').touch()
  (tmp_path / 'state' / 'd' / 'b').write_bytes(bytes(3 << 21))  # two chunks
  checksums.write(tmp_path)
  return tmp_path


def test_files_as_they_were_written_match(folder):
  assert checksums.check(folder)
  assert checksums.check(folder, below='state')
  listed = json.loads((folder / checksums.FILE).read_text(encoding='utf-8'))
  assert sorted(listed) == ['a', 'empty', 'state/d/b']
  # `123456789` has the CRC-32 that its specification gives as the check.
  (folder / 'a').write_bytes(b'123456789')
  checksums.write(folder)
  listed = json.loads((folder / checksums.FILE).read_text(encoding='utf-8'))
  assert listed['a'] == [9, 0xCBF43926]
  assert listed['empty'] == [0, 0]


@pytest.mark.parametrize(
  ('name', 'content', 'reason'),
  [
    ('a', b'0123456788', 'a has another CRC-32'),
    ('a', b'012345678', 'a has 9 of 10 bytes'),
    ('a', None, 'a is missing'),
    ('empty', b'x', 'empty has 1 of 0 bytes'),
    ('state/d/b', bytes((3 << 21) - 1) + b'x', 'state/d/b has another'),
    (checksums.FILE, b'{"a": [10', 'checksums.json cannot be read'),
    (checksums.FILE, b'{"a": [10]}', 'checksums.json cannot be read'),
  ],
)
def test_the_first_file_that_differs_is_named(folder, name, content, reason):
  if content is None:
    (folder / name).unlink()
  else:
    (folder / name).write_bytes(content)
  with pytest.raises(checksums.Damaged, match=reason):
    checksums.check(folder)


def test_a_folder_in_it_is_compared_alone(folder):
  (folder / 'a').unlink()
  assert checksums.check(folder, below='state')
  (folder / 'state' / 'd' / 'b').unlink()
  with pytest.raises(checksums.Damaged, match='state/d/b is missing'):
    checksums.check(folder, below='state')
  with pytest.raises(checksums.Damaged, match='lists no file of stat/'):
    checksums.check(folder, below='stat')


def test_without_checksums_nothing_is_compared(folder):
  (folder / checksums.FILE).unlink()
  (folder / 'a').unlink()
  assert not checksums.check(folder)


def test_files_that_will_change_and_unfinished_ones_are_not_listed(folder):
  os.rename(folder / 'empty', folder / '.x.partial')
  checksums.write(folder, leave_out=['a'])
  (folder / 'a').unlink()
  (folder / '.x.partial').unlink()
  (folder / 'new').touch()
  assert checksums.check(folder)
