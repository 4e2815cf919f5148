"""The network costs in documents are those that `cdm describe` prints."""

import ast
import pathlib
import re

import pytest

from benchmarks import model_table
from cdm.reporting.text_table import format_si

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_document_shows_the_table_that_describe_gives():
  text = model_table.DOCUMENT.read_text(encoding='utf-8')
  (shown,) = model_table.TABLE.findall(text)
  assert shown == model_table.table(), 'benchmarks/model_table.py --write'


def test_the_table_has_every_stage_of_the_papers():
  stages = {
    path.stem
    for path in (ROOT / 'configs').glob('*.py')
    if path.stem.startswith(('cdm_', 'sr3_'))
    and 'c.stages' not in path.read_text(encoding='utf-8')
  }
  assert set(model_table.CONFIGS) == stages


@pytest.mark.parametrize('name', ['cas_imagenet128', 'cas_imagenet256'])
def test_a_classifiers_docstring_states_the_flops_of_describe(name):
  text = (ROOT / 'configs' / f'{name}.py').read_text(encoding='utf-8')
  stated = re.search(r'([\d.]+ GFLOP)\b', ast.get_docstring(ast.parse(text)))
  described = model_table.describe(name)['flops_per_image']
  assert stated[1] == format_si(described, 'FLOP')
