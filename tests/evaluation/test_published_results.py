"""Published numbers: as the papers print them, and as our documents do."""

import pathlib
import re

import pytest

from cdm.evaluation import published_results
from cdm.evaluation.published_results import READ, number, tables

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / 'docs' / 'reproduction.md'
# How the document marks a number; what is inferred is told beneath the table.
MARKS = {'SECOND_HAND': ' *(S)*', 'UNVERIFIED': ' *(U)*'}
# The tables of CDM and SR3 that the document shows as tables.
DOCUMENTED = [
  name
  for name in tables()
  if name.startswith(('cdm_', 'sr3_')) and name != 'sr3_unofficial'
]


def documented():
  """-> the tables of the document: [[cells of a row, the first its header]]."""
  found, rows = [], []
  for line in [*DOCUMENT.read_text(encoding='utf-8').splitlines(), '']:
    if line.startswith('|'):
      rows.append([cell.strip() for cell in line.strip('|').split('|')])
    elif rows:
      found.append([rows[0], *rows[2:]])
      rows = []
  return found


def cells_of(table, method):
  """-> {heading: text} of a method, wherever the document shows it.

  Its row begins with the labels of the table and the method; or the methods are
  columns, and the headings begin the rows.
  """
  for header, *rows in documented():
    if method in header and set(table.columns) <= {row[0] for row in rows}:
      return {row[0]: row[header.index(method)] for row in rows}
    if not set(table.columns) & set(header):
      continue
    for row in rows:
      first = [*row[: len(table.labels) + 1]]
      same = [*table.labels, method] == first
      longer = first[-1].startswith((f'{method}, ', f'{method}: '))
      if same or (longer and [*table.labels] == first[:-1]):
        cells = dict(zip(header, row, strict=True))
        if all(heading in cells for heading in headings(table, method)):
          return cells
  raise AssertionError(f'{method} of {table.source} is not in {DOCUMENT.name}')


def headings(table, method):
  """-> the headings under which a paper prints something of a method."""
  return [h for h, key in table.columns.items() if key in table.rows[method]]


@pytest.mark.parametrize('name', DOCUMENTED)
def test_the_document_shows_the_published_numbers(name):
  table = tables()[name]
  for method, numbers in table.rows.items():
    cells = cells_of(table, method)
    for heading, key in table.columns.items():
      published = numbers.get(key)
      expected = ''
      if published is not None:
        expected = published.text + MARKS.get(published.known, '')
      assert cells.get(heading, '') == expected, (method, heading)


def test_all_numbers_can_be_read_and_say_how_they_are_known():
  for name, table in tables().items():
    assert table.rows and table.source and table.what, name
    for numbers in table.rows.values():
      assert set(numbers) <= set(table.columns.values())
      for one in numbers.values():
        assert one.value >= 0
        assert one.known in published_results.MARKS.values()


def test_a_number_is_found_by_table_method_and_metric():
  """As [SR3] tab. 1 and [CDM] tab. 1 print them."""
  found = number('sr3_faces', 'FSRGAN', 'consistency_1e-5')
  assert (found.value, found.known) == (33.8, READ)
  assert number('cdm_imagenet128', 'LOGAN', 'fid_train').value == 3.36
  assert number('cdm_imagenet128', 'LOGAN', 'fid_val') is None
  assert number('cdm_imagenet64', 'CDM', 'inception_score').value == 67.95
  assert number('prsr_celeba', 'bicubic', 'psnr_printed').known == 'UNVERIFIED'
  assert number('pulse_opinions', 'FSRGAN', 'mean_opinion_score').value == 2.92


def test_the_systems_without_code_are_in_every_table_that_has_them():
  """BigGAN-deep, VQ-VAE-2, LOGAN and ADM, at the sizes that CDM compares."""
  rows = {
    size: ' '.join(tables()[f'cdm_imagenet{size}'].rows)
    for size in (64, 128, 256)
  }
  for size, names in {
    64: ('BigGAN-deep', 'ADM'),
    128: ('BigGAN-deep', 'LOGAN', 'ADM'),
    256: ('BigGAN-deep', 'VQ-VAE-2', 'ADM'),
  }.items():
    for name in names:
      assert re.search(rf'\b{name}\b', rows[size])


def test_a_table_with_too_few_numbers_is_refused():
  with pytest.raises(ValueError, match='has 1 numbers; X has 2 columns'):
    published_results._table('X', 'y', {'a': 'a', 'b': 'b'}, 'method | 1')
