"""Public functions of the machinery carry types, of arguments and results.

In `ops`, `diffusion`, `models` and `methods` the docstring's shapes and ranges
are the truth, so types are welcome there and not required.
"""

import ast
import pathlib

import pytest

HOUSE = pathlib.Path(__file__).resolve().parents[2] / 'cdm'
PACKAGES = (
  'distributed reporting data checkpointing config sampling training planning '
  'evaluation cli'
).split()


def public_functions(body, prefix=''):
  """Yields (name, node) of public functions and methods, and __init__."""
  for node in body:
    if isinstance(node, ast.ClassDef) and node.name[0] != '_':
      yield from public_functions(node.body, f'{node.name}.')
    elif isinstance(node, ast.FunctionDef):
      if node.name[0] != '_' or node.name in ('__init__', '__call__'):
        yield f'{prefix}{node.name}', node


def missing(node):
  """-> what of a function has no annotation."""
  given = node.args
  arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
  bare = [
    a.arg
    for a in arguments
    if a.annotation is None and a.arg not in ('self', 'cls')
  ]
  if node.returns is None and node.name != '__init__':
    bare.append('its result')
  return bare


@pytest.mark.parametrize('package', PACKAGES)
def test_public_functions_carry_types(package):
  wrong = [
    f'{path.relative_to(HOUSE)}: {name} has no type for {", ".join(bare)}'
    for path in sorted((HOUSE / package).rglob('*.py'))
    for name, node in public_functions(
      ast.parse(path.read_text(encoding='utf-8')).body
    )
    if (bare := missing(node))
  ]
  assert not wrong, '\n'.join(wrong)
