"""Every key that docstrings and comments cite is in the README's table."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = [
  *sorted(ROOT.glob('cdm/**/*.py')),
  *sorted(ROOT.glob('configs/*.py')),
  *sorted(ROOT.glob('docs/*.md')),
]
# A row has one key, or several with commas between them.
TABLE = {
  key
  for row in re.findall(
    r'^\| ((?:\[[^\]]+\](?:, )?)+) \|',
    (ROOT / 'README.md').read_text(encoding='utf-8'),
    re.M,
  )
  for key in re.findall(r'\[([^\]]+)\]', row)
}
# [SR3], [DPM++], [Autoguidance], and [Heusel et al. 2017].
KEY = re.compile(
  r'(?<![\w\[])\[((?:[A-Z][A-Za-z]*[A-Za-z0-9]{2}\+{0,2})'
  r'|(?:[A-Z][^\W\d]+(?: et al\.| and [A-Z]\w+)? \d{4}))\](?![(\[])'
)
# A shape, a name in code, a pattern.
OTHER_BRACKETS = {'TRIES', 'KERNEL', 'BKMGT', 'ROW', 'None', 'DASH'}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_cited_key_is_resolved(path):
  text = path.read_text(encoding='utf-8')
  # A file may resolve keys of its own in lines that begin with them.
  own = set(re.findall(r'^ *\[(\w+)\] +\w', text, re.M))
  one_line = re.sub(r'\s+', ' ', text)
  for key in sorted(set(KEY.findall(one_line)) - own - OTHER_BRACKETS):
    assert key in TABLE, f'{path.name} cites [{key}], unknown to the README'


def test_every_key_of_the_table_is_cited():
  texts = ' '.join(
    re.sub(r'\s+', ' ', path.read_text(encoding='utf-8')) for path in FILES
  )
  assert [key for key in sorted(TABLE) if f'[{key}]' not in texts] == []
