"""Commands in messages are those of this interpreter."""

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys

from cdm.data import shell_commands

ROOT = pathlib.Path(__file__).resolve().parents[2]
ODD = "/opt/my python's/bin/$python"


def read_by_bash(line):
  """-> the words of a command, as bash takes them."""
  done = subprocess.run(
    ['bash', '-c', f'printf "%s\\0" {line}'],
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  )
  return done.stdout.split('\0')[:-1]


def without(monkeypatch, missing):
  """Plays an interpreter that lacks a package."""
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: None if name == missing else found(name),
  )


def test_a_command_names_this_interpreter_and_bash_reads_it_back(monkeypatch):
  words = ['-m', 'pip', 'install', '--constraint', 'a b.txt', ".['x']"]
  monkeypatch.setattr(sys, 'executable', ODD)
  assert read_by_bash(shell_commands.run(*words)) == [ODD, *words]
  without(monkeypatch, 'nothing')
  if importlib.util.find_spec('pip'):
    assert read_by_bash(shell_commands.install(*words[3:])) == [ODD, *words]


def test_an_environment_without_pip_is_installed_into_by_uv(monkeypatch):
  without(monkeypatch, 'pip')
  monkeypatch.setattr(sys, 'executable', ODD)
  words = read_by_bash(shell_commands.install('cdm[plan]'))
  assert words == ['uv', 'pip', 'install', '--python', ODD, 'cdm[plan]']


def test_a_command_is_runnable_where_python_does_not_know_its_own_path(
  monkeypatch,
):
  monkeypatch.setattr(sys, 'executable', '')
  assert shell_commands.run('-c', '1') == 'python3 -c 1'


def texts_of(path):
  """-> the texts of a program but its docstrings, [(line, text)]."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  docstrings = {
    id(node.body[0].value)
    for node in ast.walk(tree)
    if hasattr(node, 'body')
    and isinstance(node.body, list)
    and node.body
    and isinstance(node.body[0], ast.Expr)
  }
  return [
    (node.lineno, node.value)
    for node in ast.walk(tree)
    if isinstance(node, ast.Constant)
    and isinstance(node.value, str)
    and id(node) not in docstrings
  ]


def test_no_message_tells_of_another_pip_or_python():
  """What a message tells to run is worded by `shell_commands`."""
  bare = re.compile(r'\bpip3? install|\bpython3? -[mc]\b')
  paths = sorted((ROOT / 'cdm').rglob('*.py'))
  paths += sorted((ROOT / 'launch').rglob('*.py'))
  found = [
    f'{path}:{line} {text}'
    for path in paths
    for line, text in texts_of(path)
    if bare.search(text)
  ]
  assert len(paths) > 100 and not found
