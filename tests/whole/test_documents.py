"""What the documents tell people to type is understood.

Every `cdm` command of README, docs, configs and help texts is parsed, its
config is there, and its overrides are taken.
"""

import ast
import importlib
import pathlib
import re
import shlex

import pytest

from cdm.cli import main
from cdm.config import loader

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
# Stands for any config where the text has X.
ANY = {'configs/X.py': 'configs/smoke.py'}
ANY |= {'configs/X_cascade.py': 'configs/smoke_cascade.py'}
ANY |= {'configs/cas_X.py': 'configs/smoke_cas.py'}
# What follows in the sentence is not typed.
PROSE = re.compile(r'\s(?:\.\.\.|\[[^]]*\]|#.*|>.*|\|.*|&&.*)')


def texts():
  """-> [(where, text), ...]."""
  found = [(path.name, path.read_text(encoding='utf-8')) for path in DOCUMENTS]
  for path in sorted((ROOT / 'configs').glob('*.py')):
    found.append(
      (
        path.name,
        ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))),
      )
    )
  for name in main.COMMANDS:
    module = importlib.import_module(f'cdm.cli.commands.{name}')
    found.append((f'cdm {name} --help', module.EPILOG))
  return [*found, ('cdm --help', main.EPILOG)]


def commands(text):
  """-> the commands in a text: lines of code, and code inside a line."""
  text = re.sub(r'\\\n\s*', ' ', text)
  lines = re.findall(r'^\s*(?:[\w./]*bin/)?(cdm [a-z]\w*.*)$', text, re.M)
  inline = re.findall(r'`(cdm [a-z]\w* [^`]*)`', text)
  whole = [PROSE.sub('', line) for line in lines if '`' not in line]
  return [
    line
    for line in [*whole, *(PROSE.sub('', line) for line in inline)]
    if ' -' in line and line.split()[1] in main.COMMANDS
  ]


EVERY = [(where, line) for where, text in texts() for line in commands(text)]


def test_they_are_found():
  assert len(EVERY) > 60
  assert {line.split()[1] for _, line in EVERY} == set(main.COMMANDS)


@pytest.mark.parametrize('where, line', EVERY)
def test_a_command_is_understood(where, line):
  for any_config, one in ANY.items():
    line = line.replace(any_config, one)
  line = re.sub(r'\b(?:N|k|S|B|L)\b(?![\w.])', '1', line)
  words, overrides = main.split_overrides(shlex.split(line)[1:])
  for prefix in main.OVERRIDES:
    words, _ = main.split_overrides(words, prefix)
  if '--help' in words:
    return
  try:
    args = main.parse(words)
  except ValueError as error:
    # A sentence may name a part of a command; what it names is known.
    if 'required' not in str(error):
      raise
    return
  named = [str(value) for value in vars(args).values() if value is not None]
  for path in re.findall(r'configs/\w+\.py', ' '.join(named)):
    assert (ROOT / path).is_file(), f'{where}: {line}'
  path = re.search(r'configs/\w+\.py', ' '.join(named))
  if path and overrides:
    loader.load(ROOT / path[0], overrides)
