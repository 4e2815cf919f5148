"""The plans in docs/ say what the code says of the same facts."""

import json
import pathlib

import pytest

from benchmarks import plan_table
from cdm.distributed import device_specs

DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs'
ROWS = plan_table.read(DOCS / 'plans.jsonl')
COMMAND = 'python benchmarks/plan_table.py --out=docs/plans.jsonl --reestimate'


@pytest.mark.parametrize('key', ROWS, ids=lambda key: ' '.join(key[:2]))
def test_stored_estimates_are_those_of_the_code(key):
  row = ROWS[key]
  now = plan_table.estimated(row)['estimate']
  if not row['fits']:
    assert row['estimate'] is now is None
    return
  assert row['estimate'].keys() == now.keys(), COMMAND
  for name, value in now.items():
    # Another machine may round a float in another way.
    if isinstance(value, float):
      value = pytest.approx(value, rel=1e-9)
    assert row['estimate'][name] == value, COMMAND


def test_the_table_of_the_documentation_is_that_of_the_file():
  shown = (DOCS / 'operations.md').read_text(encoding='utf-8')
  assert plan_table.table(ROWS) in shown, f'paste what is printed by {COMMAND}'


def test_a_row_of_other_figures_is_estimated_anew(tmp_path, capsys):
  """[bytes moved] / bandwidth, times the steps, times the price."""
  stored = ROWS['sr3_faces64', 'v6e:8x8', ('mesh.fsdp=1',)]
  old = {**stored, 'estimate': {**stored['estimate'], 'step_seconds': 9.0}}
  still = ROWS['sr3_faces64to512', 'v6e:8x8', ('mesh.fsdp=1',)]  # no estimate
  path = tmp_path / 'plans.jsonl'
  path.write_text(
    ''.join(json.dumps(row) + '\n' for row in (old, still)), encoding='utf-8'
  )
  plan_table.reestimate(path)
  assert '1 of 2 rows have changed' in capsys.readouterr().err
  new, same = plan_table.read(path).values()
  assert same == still
  assert {**new, 'estimate': None} == {**old, 'estimate': None}
  chip = device_specs.CHIPS['v6e']
  seconds = stored['bytes_moved_per_device'] / chip.hbm_bandwidth
  found = new['estimate']
  assert found['bound_by'] == 'memory'
  assert found['step_seconds'] == pytest.approx(seconds)
  assert found['days'] == pytest.approx(800_000 * seconds / 86_400)
  dollars = 800_000 * seconds / 3600 * 64 * chip.price
  assert found['dollars'] == pytest.approx(dollars)
  before = path.read_bytes()
  plan_table.reestimate(path)
  assert path.read_bytes() == before


def test_memory_of_the_small_slices_is_as_fast_as_their_page_says():
  """800 and 1600 GBps: [v6e] of `device_specs`."""
  for kind, expected in (('v5e', 800e9), ('v6e', 1600e9)):
    assert device_specs.CHIPS[kind].hbm_bandwidth == expected
