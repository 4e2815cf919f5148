"""Measures the code: lengths, imports and missing docstrings, one line each.

  python benchmarks/sizes.py

Lines are all lines, comments and blank ones too. A function inside another
counts by itself and as a part of the other. The layers and the ways to count
are those of tests/whole/test_architecture.py, which sets the limits.
"""

import ast
import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def architecture():
  """-> the module that holds the tests of the architecture."""
  path = ROOT / 'tests' / 'whole' / 'test_architecture.py'
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def lines(path):
  return len(path.read_text(encoding='utf-8').splitlines())


def spread(lengths, percentile):
  """-> the count of some lengths, and how they are distributed."""
  p50, p90 = (percentile(lengths, n) for n in (50, 90))
  return f'{len(lengths):,}; p50 {p50}, p90 {p90}, max {max(lengths)} lines'


def undocumented(tree):
  """-> [public function without a docstring] of a module and its classes."""
  found = []
  for node in tree.body:
    if getattr(node, 'name', '_').startswith('_'):
      continue
    if isinstance(node, ast.ClassDef):
      found += undocumented(node)
    elif isinstance(node, ast.FunctionDef):
      found += [] if ast.get_docstring(node) else [node.name]
  return found


def import_graph(modules, imports):
  """-> {module: modules of cdm that it imports}."""
  return {
    name: {
      target
      for imported, _ in imports(path)
      for target in (imported, imported.rpartition('.')[0])
      if target in modules and target != name
    }
    for name, path in modules.items()
  }


def cyclic(graph):
  """-> the modules that import themselves by way of others."""

  def reached(start):
    seen, rest = set(), [*graph[start]]
    while rest:
      name = rest.pop()
      if name not in seen:
        seen.add(name)
        rest += graph[name]
    return seen

  return [name for name in graph if name in reached(name)]


def main():
  house = architecture()
  files = house.files()
  code = [lines(path) for path in files]
  tests = [lines(path) for path in (ROOT / 'tests').rglob('*.py')]
  functions = [f for path in files for f in house.functions(path)]
  graph = import_graph(house.modules(), house.imports)
  arrows = {
    (name.split('.')[1], target.split('.')[1])
    for name, targets in graph.items()
    for target in targets
  }
  arrows = {(a, b) for a, b in arrows if a != b and a != '__main__'}
  silent = [
    name
    for path in files
    for name in undocumented(ast.parse(path.read_text(encoding='utf-8')))
  ]
  for name, value in (
    ('files', spread(code, house.percentile)),
    ('functions', spread([f.lines for f in functions], house.percentile)),
    (
      'functions without their docstrings',
      spread([f.code_lines for f in functions], house.percentile),
    ),
    ('lines', f'{sum(code):,} of code, {sum(tests):,} of tests'),
    ('test lines per code line', f'{sum(tests) / sum(code):.2f}'),
    ('modules in import cycles', len(cyclic(graph))),
    ('packages', len(house.LAYER)),
    ('arrows between packages', len(arrows)),
    ('layers', len(house.LAYERS)),
    ('public functions without docstring', len(silent)),
  ):
    print(f'{name}: {value}')


if __name__ == '__main__':
  main()
