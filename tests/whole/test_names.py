"""Names of modules and files that texts mention exist.

Texts are README and its like, documents, launch files and templates, configs,
benchmarks, and every line of the code: its strings, comments and docstrings.
"""

import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = sorted(
  path
  for pattern in (
    '*.md',
    'pyproject.toml',
    '.ci/*',
    'docs/*.md',
    'launch/**/*',
    'configs/*.py',
    'benchmarks/**/*',
    'cdm/**/*.py',
    'tests/**/*.py',
  )
  for path in ROOT.glob(pattern)
  if path.is_file() and path.suffix not in ('.pyc', '.safetensors')
)
# A dotted name, but not the end of an address or of a longer name.
DOTTED = re.compile(r'(?<![\w./-])cdm(?:\.[A-Za-z_]\w*)+')
FILE = re.compile(
  r'(?<![\w/.-])(?:cdm|tests|configs|docs|launch|benchmarks)/'
  r'[\w/-]+\.(?:py|sh|md|txt|yaml|json|jsonl)\b'
)
TICKED = re.compile(r'`([a-z_]+(?:\.[a-z_]+)*)\.([A-Za-z_]\w*)`')
# Files that the texts make up as examples, or that come into being.
EXAMPLES = re.compile(r'configs/(?:cas_)?[A-Z]+(?:_cascade)?\.py')
MODULES = [
  '.'.join(path.relative_to(ROOT).with_suffix('').parts)
  for path in ROOT.glob('cdm/**/*.py')
  if path.name[:2] != '__'
]
PACKAGES = sorted({name.rpartition('.')[0] for name in MODULES} - {'cdm'})


def resolve(name):
  """Returns what a dotted name means, or raises AttributeError."""
  parts = name.split('.')
  for count in range(len(parts), 0, -1):
    try:
      found = importlib.import_module('.'.join(parts[:count]))
    except ModuleNotFoundError:
      continue
    for part in parts[count:]:
      found = getattr(found, part)
    return found
  raise AttributeError(name)


def ids(path):
  return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', TEXTS, ids=ids)
def test_every_dotted_name_of_cdm_can_be_imported(path):
  for name in sorted(set(DOTTED.findall(path.read_text(encoding='utf-8')))):
    try:
      resolve(name)
    except AttributeError:
      pytest.fail(f'{ids(path)} names {name}, which is not there.')


@pytest.mark.parametrize('path', TEXTS, ids=ids)
def test_every_file_that_is_named_is_there(path):
  for name in sorted(set(FILE.findall(path.read_text(encoding='utf-8')))):
    there = (ROOT / name).exists() or EXAMPLES.fullmatch(name)
    assert there, f'{ids(path)} names {name}, which is not there.'


def exists(name):
  try:
    resolve(name)
  except AttributeError:
    return False
  return True


def test_backticks_name_what_a_module_holds():
  """`resize.bicubic` in a docstring is a name of a module called resize."""
  wrong = []
  for path in ROOT.glob('cdm/**/*.py'):
    for module, name in TICKED.findall(path.read_text(encoding='utf-8')):
      homes = [m for m in MODULES + PACKAGES if m.endswith(f'.{module}')]
      # Sections of a config have names of their own.
      if homes and not any(exists(f'{home}.{name}') for home in homes):
        wrong.append(f'{ids(path)}: `{module}.{name}`')
  assert not wrong, '\n'.join(wrong)


def test_the_architecture_page_lists_the_modules():
  """The shelves of interchangeable files are listed as folders alone."""
  page = (ROOT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
  drawing = page.split('\n## Files')[1].split('\n## ')[0]
  listed = set(re.findall(r'\b([a-z_0-9]+)\.py', drawing))
  shelves = (
    *('commands', 'metrics', 'classification', 'robustness', 'comparison'),
  )
  modules = [name.split('.') for name in MODULES]
  expected = {
    parts[-1]
    for parts in modules
    if not {*shelves, 'pretrained'} & set(parts[:-1])
  }
  assert expected <= listed
  assert listed <= {parts[-1] for parts in modules}
