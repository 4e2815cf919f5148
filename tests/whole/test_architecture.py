"""The layers of cdm: which package may import which, and which library."""

import ast
import collections
import functools
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOUSE = ROOT / 'cdm'

# A package may import packages of the layers above it in this list, and itself.
LAYERS = (
  ('distributed', 'reporting', 'ops', 'data'),
  ('diffusion', 'models'),
  ('methods', 'checkpointing'),
  ('config',),
  ('sampling', 'training'),
  ('planning', 'evaluation', 'cli'),
  ('api',),  # the one module beside the packages
)
# Within a layer, only the first of a pair may import the second.
SIDEWAYS = {
  ('reporting', 'distributed'),  # only process 0 reports
  ('distributed', 'data'),  # of which it may know little, see `WALLS`
  ('reporting', 'data'),  # of which it may know `files`, see `WALLS`
  ('cli', 'planning'),
  ('cli', 'evaluation'),
}
# These import nothing of cdm but what stands beside them.
WALLS = {
  'cdm.distributed': ('cdm.data.shell_commands', 'cdm.data.files'),
  'cdm.ops': (),
  'cdm.data': (),
  'cdm.data.files': (),
  'cdm.reporting': (
    'cdm.distributed',
    'cdm.data.files',
    'cdm.data.shell_commands',
  ),
  'cdm.diffusion': (),
  'cdm.models': (
    'cdm.ops.keys',
    'cdm.ops.known_platform',
    'cdm.reporting.progress',
    'cdm.distributed.user_cache',
    'cdm.distributed.loopback',
  ),
  'cdm.methods': ('cdm.diffusion', 'cdm.ops'),
  'cdm.checkpointing': ('cdm.distributed', 'cdm.data.files'),
  'cdm.evaluation.metrics': ('cdm.ops',),
  'cdm.evaluation.human': (
    'cdm.data',
    'cdm.reporting',
    'cdm.evaluation.metrics.bootstrap',
    'cdm.evaluation.published_results',
  ),
  # So no page decodes a picture or wakes JAX.
  'cdm.cli.web': (
    'cdm.distributed.loopback',
    'cdm.evaluation.human',
    'cdm.reporting',
  ),
}
# Which packages may import an outside library.
EXTERNAL = {
  'ml_collections': {'config'},
  'tensorflow': {'data'},
  'clu': {'reporting'},
  'tensorboard': {'reporting'},
  'wandb': {'reporting'},
  'grain': {'data'},
  'tensorflow_datasets': {'data'},
  'pyarrow': {'data'},
  'lmdb': {'data'},
  'simplejpeg': {'data'},
  'tifffile': {'data'},
  'pillow_heif': {'data'},
  'rawpy': {'data'},
  'av': {'data'},
  'orbax': {'checkpointing'},
  'optax': {'training'},
  'starlette': {'cli'},
  'uvicorn': {'cli'},
  'onnx': {'sampling'},
}
# These files may give a file another name; all others write through the first.
MAY_RENAME = {
  'cdm.data.files.atomic_files',
  'cdm.models.pretrained.download',  # a killed download is continued
  'cdm.distributed.folder_lock',  # one lock replaces another
  'cdm.checkpointing.writer',  # sets a damaged checkpoint's folder aside
  'cdm.checkpointing.background_save',  # a whole checkpoint gets its name
  'cdm.checkpointing.folder_rename',  # tries whether it could
}
# In these, a module is named after a command, a method, or a network.
NAMED_AFTER_OTHERS = (
  'cdm.cli.commands',
  'cdm.methods',
  'cdm.models.pretrained',
)
LAYER = {name: n for n, layer in enumerate(LAYERS) for name in layer}


def files():
  return sorted(HOUSE.rglob('*.py'))


def package(path):
  return path.relative_to(HOUSE).parts[0].removesuffix('.py')


@functools.cache
def imports(path):
  """-> [(dotted name, line)] of everything a file imports, anywhere in it."""
  found = []
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      found += [(alias.name, node.lineno) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}:{node.lineno} imports relatively'
      found += [
        (f'{node.module}.{alias.name}', node.lineno) for alias in node.names
      ]
  return found


def modules():
  """-> {dotted name: path} of every module of cdm."""
  return {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts): path
    for path in files()
    if path.name != '__init__.py'
  }


class Function(NamedTuple):
  name: str
  lines: int  # with everything, a docstring too
  code_lines: int  # without its docstring
  arguments: int  # besides self; *rest and **rest count as one each


def functions(path):
  """-> [Function] of all functions of a file, wherever they are."""
  found = []
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.FunctionDef):
      lines = node.end_lineno - node.lineno + 1
      text = node.body[0] if ast.get_docstring(node) else None
      docstring = text.end_lineno - text.lineno + 1 if text else 0
      found.append(
        Function(node.name, lines, lines - docstring, count_arguments(node))
      )
  return found


def count_arguments(node):
  taken = node.args
  named = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs]
  rest = [one for one in (taken.vararg, taken.kwarg) if one]
  return len([a for a in named if a.arg not in ('self', 'cls')] + rest)


def percentile(lengths, percent):
  """-> the length that so many per cent of them do not exceed."""
  return sorted(lengths)[-(-len(lengths) * percent // 100) - 1]


def stem(name):
  """-> a module's name without its ending: upscale, upscaling, upscaler."""
  name = re.sub(r'(ing|ers?|ors?|ed|es|e|s)$', '', name)
  return re.sub(r'(.)\1$', r'\1', name)  # plann-ing is of plan


def inside(name, package):
  return f'{name}.'.startswith(f'{package}.')


def test_cdm_holds_its_packages_and_nothing_else():
  """A new module belongs to a package, a new package to a layer."""
  found = {
    path.stem
    for path in HOUSE.iterdir()
    if path.name[:2] != '__' and path.name != 'py.typed'
  }
  assert found == set(LAYER)
  assert len(found - {'api'}) <= 14
  top = {path.name for path in HOUSE.glob('*.py')}
  assert top == {'__init__.py', '__main__.py', 'api.py'}


@pytest.mark.parametrize('name', modules())
def test_imports_run_downwards(name):
  here = name.split('.')[1]
  for imported, line in imports(modules()[name]):
    if not inside(imported, 'cdm') or imported == 'cdm':
      continue
    there = imported.split('.')[1]
    where = f'{name}, line {line}, imports {imported}'
    if here not in ('__main__', there):
      below = LAYER[there] < LAYER[here] or (here, there) in SIDEWAYS
      assert below, f'{where}: {here} may not know {there}'
    for wall, doors in WALLS.items():
      if inside(name, wall) and not inside(imported, wall):
        known = any(inside(imported, door) for door in doors)
        assert known, f'{where}: {wall} may not know it'


def test_files_and_functions_stay_short():
  code_lines = []
  for path in files():
    lines = len(path.read_text(encoding='utf-8').splitlines())
    assert lines <= 450, f'{path} has {lines} lines'
    for function in functions(path):
      assert function.lines <= 110, f'{path}: {function}'
      code_lines.append(function.code_lines)
  assert percentile(code_lines, 90) <= 30


def test_no_function_takes_more_than_eight_arguments():
  """What belongs together is passed as one NamedTuple or dataclass."""
  found = [
    f'{name}.{function.name}'
    for name, path in modules().items()
    for function in functions(path)
    if function.arguments > 8
  ]
  assert not found


def test_no_two_modules_differ_by_an_ending():
  by_stem = collections.defaultdict(set)
  for name in modules():
    if not any(inside(name, package) for package in NAMED_AFTER_OTHERS):
      last = name.rpartition('.')[2]
      by_stem[stem(last)].add(last)
  assert not [names for names in by_stem.values() if len(names) > 1]


def test_no_module_is_named_like_one_of_python():
  taken = {*sys.stdlib_module_names, 'testing', 'pytest', 'conftest'}
  names = [name for name in modules() if name != 'cdm.__main__']
  assert not [name for name in names if name.rpartition('.')[2] in taken]


def test_importing_cdm_imports_nothing():
  assert not imports(HOUSE / '__init__.py')


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

  whole = set()  # from which no way leads back

  def visit(node, trail):
    assert node not in trail, ' -> '.join([*trail, node])
    if node in whole:
      return
    for target in graph[node]:
      if target in graph:
        visit(target, [*trail, node])
    whole.add(node)

  for node in graph:
    visit(node, [])


def test_outside_libraries_stay_in_their_packages():
  for path in files():
    for name, line in imports(path):
      library = name.split('.')[0]
      packages = EXTERNAL.get(library)
      assert packages is None or package(path) in packages, (
        f'{path}:{line} {name}'
      )


def renames(node):
  """Whether a call gives a file another name, by `os`, `shutil` or `pathlib`.

  `str.replace` has two arguments, `dataclasses.replace` names its own.
  """
  if not isinstance(node, ast.Call):
    return False
  if ast.unparse(node.func) in ('os.replace', 'os.rename', 'shutil.move'):
    return True
  method = getattr(node.func, 'attr', '') in ('rename', 'replace')
  return method and len(node.args) == 1 and not node.keywords


def test_files_are_written_atomically_in_one_place():
  """Whoever writes a file that must be whole uses `write_atomically`."""
  found = {
    name
    for name, path in modules().items()
    if any(map(renames, ast.walk(ast.parse(path.read_text(encoding='utf-8')))))
  }
  assert found == MAY_RENAME


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
    assert len(path.read_text(encoding='utf-8').splitlines()) <= 5, path


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
    encoding='utf-8',
  ).stdout
  assert out.splitlines()[-1] == '[]'


def test_training_packages_do_not_wake_tensorflow():
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
    encoding='utf-8',
  ).stdout
  assert out.splitlines()[-1] == 'False'
