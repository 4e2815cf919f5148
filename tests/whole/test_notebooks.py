"""The notebooks run as they are, and show what they say."""

import ast
import os
import pathlib

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from support import smoke_runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'docs' / 'notebooks'
NOTEBOOKS = sorted(FOLDER.glob('*.ipynb'))


def read(path):
  return nbformat.read(path, as_version=4)


def texts(cell):
  """-> what a cell shows as text."""
  outputs = cell.get('outputs', [])
  return [o.data['text/plain'] for o in outputs if 'data' in o]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path):
  """They would name the machine that they come from."""
  nbformat.validate(read(path))
  for cell in read(path).cells:
    assert not cell.get('outputs') and not cell.get('execution_count')


def test_the_notebook_runs_and_calls_every_function(monkeypatch):
  path = FOLDER / 'from_python.ipynb'
  notebook = read(path)
  code = '\n'.join(c.source for c in notebook.cells if c.cell_type == 'code')
  for name in ('load', 'upscale', 'restore', 'sample', 'evaluate'):
    assert f'api.{name}(' in code
  found = os.environ.get('PYTHONPATH', '')
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), found]))
  # One device, as on a laptop, but programs compiled in a hurry.
  flags = os.environ['XLA_FLAGS'].replace('count=8', 'count=1')
  monkeypatch.setenv('XLA_FLAGS', flags)
  for name, value in smoke_runs.programs().items():
    monkeypatch.setenv(name, value)
  NotebookClient(
    notebook, timeout=300, resources={'metadata': {'path': str(FOLDER)}}
  ).execute()
  shown = [text for cell in notebook.cells for text in texts(cell)]
  assert "(('disc', 'ring', 'square', 'stripes'), 2)" in shown
  assert '((24, 16), (60, 40))' in shown
  scores = ast.literal_eval(shown[-1])
  assert {'psnr', 'bicubic_psnr', 'consistency'} <= set(scores)
  assert np.isfinite(list(scores.values())).all()
