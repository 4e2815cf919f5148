"""The walls of the house: who may import whom, and who may import what."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOUSE = ROOT / 'cdm'

# Room -> floor. A room may import rooms of lower floors and itself; two
# rooms of one floor do not know each other.
FLOORS = {
  'data': 0,
  'diffusion': 0,
  'distributed': 0,
  'ops': 0,
  'checkpointing': 1,
  'methods': 1,
  'reporting': 1,
  'models': 2,
  'config': 3,
  'sampling': 4,
  'training': 4,
  'evaluation': 5,
  'planning': 5,
  'cli': 6,
  '__main__': 7,
}
# Absences that carry meaning, beyond the floors.
NEVER = {
  'diffusion': {'models', 'images', 'data', 'checkpoint', 'stored', 'report'},
  'models': {'diffusion', 'images', 'data', 'checkpoint', 'stored', 'report'},
  'metrics': {'models', 'diffusion', 'data'},
  'cascade': {'train', 'models', 'data', 'checkpoint', 'stored'},
  'train': {'cascade', 'models', 'diffusion', 'tasks', 'data'},
  'web': {'models', 'diffusion', 'data', 'checkpoint', 'stored'},
  'tasks': {'data', 'checkpoint', 'stored', 'report', 'sharding', 'models'},
}
EXTERNAL = {
  'ml_collections': {'build', 'config'},
  'tensorflow': {'data', 'reporting'},
  'tensorflow_datasets': {'data'},
  'grain': {'data'},
  'orbax': {'checkpoint', 'stored', 'checkpointing'},
  'clu': {'reporting'},
  'optax': {'train', 'training'},
}


def files():
  return sorted(HOUSE.rglob('*.py'))


def room(path):
  return path.relative_to(HOUSE).parts[0].removesuffix('.py')


def imports(path):
  """-> [(dotted name, line)] of everything a file imports, anywhere in it."""
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found += [(alias.name, node.lineno) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}:{node.lineno} imports relatively'
      found += [
        (f'{node.module}.{alias.name}', node.lineno) for alias in node.names
      ]
  return found


def own(name):
  """-> room of an imported name of this package, or None."""
  parts = name.split('.')
  if parts[0] != 'cdm' or len(parts) == 1:
    return None
  return parts[1]


@pytest.mark.parametrize('path', files(), ids=lambda p: str(p.name))
def test_imports_run_downwards(path):
  here = room(path)
  if here == '__init__':
    assert not imports(path), 'importing cdm wakes no room'
    return
  assert here in FLOORS, f'{here} has no floor; add it to the plan'
  for name, line in imports(path):
    there = own(name)
    if there is None or there == here:
      continue
    where = f'{path.relative_to(ROOT)}:{line} imports {name}'
    assert there in FLOORS, where
    below = FLOORS[there] < FLOORS[here]
    assert below, f'{where}: {here} may not know {there}'
    assert there not in NEVER.get(here, ()), f'{where}: a wall stands there'


def test_no_two_files_import_each_other():
  graph = {}
  for path in files():
    me = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    graph[me] = {
      target
      for name, _ in imports(path)
      for target in (name, name.rpartition('.')[0])
      if target.startswith('cdm.')
    }

  def visit(node, trail):
    assert node not in trail, ' -> '.join([*trail, node])
    for target in graph.get(node, ()):
      if target in graph:
        visit(target, [*trail, node])

  for node in graph:
    visit(node, [])


def test_outside_libraries_stay_behind_their_doors():
  for path in files():
    for name, line in imports(path):
      library = name.split('.')[0]
      rooms = EXTERNAL.get(library)
      assert rooms is None or room(path) in rooms, f'{path}:{line} {name}'


def test_data_never_imports_jax():
  for path in sorted((HOUSE / 'data').rglob('*.py')):
    for name, line in imports(path):
      assert name.split('.')[0] not in ('jax', 'flax'), f'{path}:{line}'


def test_configs_never_import_cdm():
  for path in sorted((ROOT / 'configs').glob('*.py')):
    names = [name.split('.')[0] for name, _ in imports(path)]
    assert set(names) == {'ml_collections'}, path


def test_package_files_are_empty():
  for path in HOUSE.rglob('__init__.py'):
    assert len(path.read_text().splitlines()) <= 5, path


def test_launch_scripts_are_not_imported():
  for path in files():
    assert all('launch' not in name for name, _ in imports(path)), path


def test_help_wakes_nothing_heavy():
  """What makes `cdm --help` answer at once."""
  code = (
    'import sys, cdm.cli.main as c\n'
    'try: c.main(["--help"])\n'
    'except SystemExit: pass\n'
    'heavy = {"jax", "flax", "numpy", "tensorflow", "grain", "orbax", "PIL"}\n'
    'print(sorted(heavy & set(sys.modules)))\n'
  )
  out = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert out.splitlines()[-1] == '[]'


def test_training_rooms_do_not_wake_tensorflow():
  code = (
    'import sys\n'
    'import cdm.reporting.metric_writer, cdm.checkpointing.writer, '
    'cdm.data.folder, '
    'cdm.config.stage\n'
    'print("tensorflow" in sys.modules)\n'
  )
  out = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert out.splitlines()[-1] == 'False'
