"""Text files are UTF-8 on every machine, whatever its locale is."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ('cdm', 'configs', 'launch', 'benchmarks', 'tests')
# Their functions `open` open no text file.
OF_OTHERS = ('os', 'Image', 'tarfile')


def without_encoding(code):
  """-> lines that open a text file in the encoding of the machine's locale.

  A rule of ruff finds those whose path it knows to be one; this finds calls by
  their names.
  """
  return [
    call.lineno
    for call in ast.walk(ast.parse(code))
    if isinstance(call, ast.Call)
    and not any(word.arg in ('encoding', None) for word in call.keywords)
    and opens_text(call)
  ]


def opens_text(call):
  method = isinstance(call.func, ast.Attribute)
  name = call.func.attr if method else getattr(call.func, 'id', '')
  if name in ('read_text', 'write_text'):
    return method and len(call.args) == (name == 'write_text')
  if name != 'open':
    return False
  if method and getattr(call.func.value, 'id', '') in OF_OTHERS:
    return False
  modes = [word.value for word in call.keywords if word.arg == 'mode']
  modes += call.args[0 if method else 1 :][:1]
  if not modes:
    return True
  # What is no mode opens no file by its path: archive.open(member).
  mode = modes[0].value if isinstance(modes[0], ast.Constant) else None
  return isinstance(mode, str) and set(mode) <= set('rwxat+')


@pytest.mark.parametrize('folder', FOLDERS)
def test_every_text_file_is_opened_with_an_encoding(folder):
  found = [
    f'{path.relative_to(ROOT)}:{line}'
    for path in sorted((ROOT / folder).rglob('*.py'))
    for line in without_encoding(path.read_text(encoding='utf-8'))
  ]
  assert not found, f"add encoding='utf-8': {found}"


@pytest.mark.parametrize(
  ('code', 'is_found'),
  [
    ('open(path)', True),
    ("open(path, 'w')", True),
    ("path.open('a')", True),
    ('path.read_text()', True),
    ("path.write_text('x')", True),
    ("open(path, 'rb')", False),
    ("path.write_text('x', encoding='utf-8')", False),
    ('archive.open(member)', False),
  ],
)
def test_what_is_looked_for_is_found(code, is_found):
  assert bool(without_encoding(code)) is is_found
