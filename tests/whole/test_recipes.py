"""The page of recipes says what the configs say, and they what papers print."""

import pathlib
import re

import pytest

from cdm.config.loader import load
from cdm.distributed import device_specs

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'recipes.md').read_text(encoding='utf-8')
# Typed from the papers' tables, and from others' tables for [SiD].
PUBLISHED = {
  'edm2_imagenet64_s': {'fid_train': 1.58, 'parameters': 280_000_000},
  'edm2_imagenet64_l': {'fid_train': 1.33, 'parameters': 778_000_000},
  'uvit_imagenet128': {'fid_val': 3.23, 'inception_score': 171.9},
  'uvit_imagenet256': {'fid_val': 3.75},
  'edm2_imagenet64to256': {'fid_train': 4.88, 'fid_val': 4.63},
  'edm2_cascade256': {'fid_train': 4.88, 'fid_val': 4.63},
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_the_page_has_the_row_of_a_config(name):
  path = ROOT / 'configs' / f'{name}.py'
  config = load(path)
  paper = {key: config.paper[key] for key in PUBLISHED[name]}
  assert paper == PUBLISHED[name] and config.paper.source
  text = path.read_text(encoding='utf-8')
  (count,) = re.findall(r'^Parameters: ([\d,]*\d)', text, re.MULTILINE)
  row = next(line for line in PAGE.splitlines() if f'| `{name}` |' in line)
  assert f'| {count} |' in row
  fid = paper.get('fid_train', paper.get('fid_val'))
  assert str(fid) in row or 'none' in row


@pytest.mark.parametrize(('size', 'name'), [('S', 's'), ('L', 'l')])
def test_the_recipe_of_edm2_is_that_of_its_config(size, name):
  c = load(ROOT / 'configs' / f'edm2_imagenet64_{name}.py')
  row = next(x for x in PAGE.splitlines() if x.startswith(f'| {size} |'))
  cells = [cell.strip() for cell in row.strip('|').split('|')[1:]]
  found = [float(cell.replace(',', '')) for cell in cells[:5]]
  assert found == [
    c.model.features,
    c.optimizer.learning_rate,
    c.model.dropout,
    c.train.num_steps,
    c.paper.fid_train,
  ]
  # Adam's eps of a sum over the values of an image, for their mean.
  values = 3 * c.pipeline.image_size**2
  assert c.optimizer.eps == pytest.approx(1e-8 / values, rel=1e-3)


@pytest.mark.parametrize('name', [n for n in PUBLISHED if 'cascade' not in n])
def test_the_least_cost_is_that_of_the_peak(name):
  c, chip = load(ROOT / 'configs' / f'{name}.py'), device_specs.CHIPS['v6e']
  first, second = (x for x in PAGE.splitlines() if f'| `{name}` |' in x)
  (forward,) = re.findall(r'([\d.]+) TFLOP', first)
  total = 3 * float(forward) * 1e12 * c.train.batch_size * c.train.num_steps
  hours = total / (64 * chip.flops) / 3600
  cells = [cell.strip() for cell in second.strip('|').split('|')[1:]]
  assert cells == [
    f'{total:.2e}',
    f'{hours:.3g} h',
    f'${hours * 64 * chip.price:,.0f}',
  ]
