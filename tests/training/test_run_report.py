"""Runs summed up: a table for the terminal, a page, and the facts as JSON."""

import base64
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from support import file_names

from cdm.config import loader
from cdm.data.files import damaged_file
from cdm.evaluation import metrics_table
from cdm.reporting import image_files
from cdm.reporting.shown_number import ABSENT
from cdm.training import overview_caption, run_report

NUMBERS = metrics_table.numbers()


def run(folder, name='base', rows=(), lowres=None, seconds=()):
  """Writes what a training run leaves, as far as a summary reads it."""
  folder.mkdir()
  c = loader.ConfigDict(
    dict(
      name=name,
      pipeline=dict(image_size=16),
      lowres=lowres,
      train=dict(batch_size=8, num_steps=20),
    )
  )
  (folder / 'config.json').write_text(loader.to_json(c), encoding='utf-8')
  lines = [json.dumps(row) + '\n' for row in rows]
  (folder / 'scalars.jsonl').write_text(''.join(lines), encoding='utf-8')
  lines = [
    json.dumps({'seconds': s, 'peak_host_bytes': int(1e6 * s)}) + '\n'
    for s in seconds
  ]
  if lines:
    (folder / 'sessions.jsonl').write_text(''.join(lines), encoding='utf-8')
  return folder


ROWS = (
  {'step': 10, 'loss': 0.5, 'images_per_second': 3.0},
  {'step': 20, 'loss': 0.25, 'images_per_second': 4.0},
  {'step': 20, 'eval_loss': 0.75},
)
ROW = {
  'n': 3,
  'image_size': [16, 16],
  'psnr': 21.5,
  'ssim': 0.75,
  'consistency': 0.00025,
  'bicubic': {'psnr': 20.25, 'ssim': 0.5, 'consistency': 0.0005},
  'conventions': {'psnr': 'dB', 'ssim': 'windows'},
}


def test_the_last_loss_is_told_with_what_the_run_took(tmp_path):
  a = run(tmp_path / 'a', rows=ROWS, seconds=(100, 50))
  b = run(tmp_path / 'b', 'sr', lowres=dict(size=4))
  facts = run_report.summarise([a, b])
  first, second = facts['runs']
  assert (first['step'], first['loss']) == (20, 0.25)
  assert first['images_per_second'] == 4.0
  assert first['seconds'] == 150 and first['peak_host_bytes'] == 100e6
  assert second['loss'] is None and second['lowres_size'] == 4
  lines = run_report.text(facts, numbers=NUMBERS).splitlines()
  assert lines[1].split() == [
    'base',
    '16',
    '20/20',
    '0.2500',
    '150',
    '100',
    'MB',
  ]
  assert lines[2].split() == ['sr', '4', '->', '16', '0/20', '-', '-', '-']


def test_the_held_out_curve_stands_beside_the_training_loss(tmp_path):
  """The best checkpoint has a ring, and a run that overfits is named."""
  rows = [
    row
    for step, held_out in (
      (10, 0.5),
      (20, 0.4),
      (30, 0.5),
      (40, 0.6),
      (50, 0.7),
    )
    for row in (
      {'step': step, 'loss': 1 / step},
      {'step': step, 'held_out/loss': 0.9, 'held_out/ema_loss': held_out},
      {'step': step, 'held_out/psnr': 20.0, 'held_out/psnr_bicubic': 19.0},
    )
  ]
  a = run(tmp_path / 'a', rows=rows)
  (a / 'checkpoints').mkdir()
  best = {'step': 20, 'metric': 'held_out/ema_loss', 'value': 0.4}
  (a / 'checkpoints' / 'best').write_text(json.dumps(best), encoding='utf-8')
  facts = run_report.summarise([a, run(tmp_path / 'b', 'other', rows=ROWS)])
  assert facts['runs'][0]['best'] == best
  assert 'best' not in facts['runs'][1]
  text = run_report.text(facts, numbers=NUMBERS)
  assert 'base: the best checkpoint is that of step 20, held_out/ema' in text
  assert 'base overfits: the held-out loss of its EMA has risen in' in text
  page = run_report.html(facts, title='x', numbers=NUMBERS)
  assert page.count('class="mark"') == 2  # on the loss and on the PSNR
  assert 'the ring is the best checkpoint by held_out/ema_loss, of s' in page
  assert page.count('base overfits') == 1 and 'other overfits' not in page
  for name in ('held out, EMA', 'held out, raw', 'bicubic', 'PSNR, dB'):
    assert f'>{name}</text>' in page


def test_a_gan_that_has_collapsed_is_named_in_the_table_and_on_the_page(
  tmp_path,
):
  game = {'discriminator_accuracy': 0.9, 'spread_original': 1.0, 'loss': 1.0}
  rows = [{'step': n, 'spread_generated': 0.01, **game} for n in range(1, 11)]
  gone, fine = (
    run(tmp_path / name, name, rows=lines)
    for name, lines in (('gone', rows), ('fine', rows[:5]))
  )
  facts = run_report.summarise([gone, fine])
  assert 'collapse' in facts['runs'][0] and 'collapse' not in facts['runs'][1]
  assert 'gone has collapsed' in run_report.text(facts, numbers=NUMBERS)
  page = run_report.html(facts, title='x', numbers=NUMBERS)
  assert page.count('has collapsed') == 1


def test_damaged_records_are_named_and_the_rest_is_reported(tmp_path, caplog):
  a = run(tmp_path / 'a', rows=ROWS, seconds=(100, 50))
  for name, line in (
    ('scalars.jsonl', b'{"step": 30, "loss": "\xff"}\n{"loss": 1.0}\n'),
    ('sessions.jsonl', b'\n\n{"seconds": "3", "peak_host_bytes": 1}\n'),
  ):
    with open(a / name, 'ab') as file:
      file.write(line)
  with open(a / 'scalars.jsonl', 'a', encoding='utf-8') as file:
    file.write('{"step": 40, "loss": NaN}\n')
  facts = run_report.summarise([a])
  assert facts['runs'][0]['seconds'] == 150 and facts['runs'][0]['step'] == 40
  for place in ('scalars.jsonl, line 4', 'sessions.jsonl, line 5'):
    assert f'{place}, is damaged' in caplog.text
  run_report.text(facts, numbers=NUMBERS)
  run_report.html(facts, title='x', numbers=NUMBERS)


@pytest.mark.parametrize(
  ('name', 'text', 'told'),
  [
    ('config.json', '{"name": ', 'it is not JSON'),
    ('config.json', '{"name": "a"}', "has no 'pipeline'"),
    ('row.json', json.dumps(ROW | {'n': 'x'}), r"\['n'\] is 'x', not an int"),
    ('row.json', json.dumps(ROW | {'bicubic': 3}), r"\['bicubic'\] is 3"),
  ],
)
def test_a_damaged_file_is_a_data_error_by_its_place(
  tmp_path, name, text, told
):
  a = run(tmp_path / 'a', rows=ROWS)
  (a / 'row.json').write_text(json.dumps(ROW), encoding='utf-8')
  (a / name).write_text(text, encoding='utf-8')
  with pytest.raises(
    damaged_file.DamagedFile, match=f'{name} is damaged.*{told}'
  ):
    run_report.summarise([a], row=a / 'row.json')


def test_an_enlarged_photograph_comes_first(tmp_path):
  path = tmp_path / 'cat_compare.png'
  image_files.write_png(path, np.full((3, 9, 3), 7, np.uint8))
  facts = run_report.summarise([run(tmp_path / 'a', rows=ROWS)], enlarged=path)
  run_report.write(facts, tmp_path / 'out', title='x', numbers=NUMBERS)
  out = tmp_path / 'out'
  assert (out / 'enlarged.png').read_bytes() == path.read_bytes()
  page = (out / 'report.html').read_text(encoding='utf-8')
  first = page.index('A photograph, enlarged')
  assert first < page.index(base64.b64encode(path.read_bytes()).decode())
  assert first < page.index('Training')
  # A report without it is one, too.
  facts = run_report.summarise([run(tmp_path / 'b', rows=ROWS)])
  run_report.write(facts, out, title='x', numbers=NUMBERS)


def test_a_loss_that_was_not_finite_does_not_break_the_table(tmp_path):
  rows = (*ROWS, {'step': 21, 'loss': None})
  facts = run_report.summarise([run(tmp_path / 'a', rows=rows)])
  assert facts['runs'][0]['loss'] == 0.25
  run_report.write(facts, tmp_path / 'out', title='x', numbers=NUMBERS)


def test_the_numbers_stand_beside_those_of_bicubic(tmp_path):
  (tmp_path / 'row.json').write_text(json.dumps(ROW), encoding='utf-8')
  facts = run_report.summarise([run(tmp_path / 'a')], row=tmp_path / 'row.json')
  lines = run_report.text(facts, numbers=NUMBERS).splitlines()
  assert lines[-2].split() == ['ours', '21.50', '0.750', '25.00']
  assert lines[-1].split() == ['bicubic', '20.25', '0.500', '50.00']


def test_without_pairs_of_another_kind_there_is_a_dash(tmp_path):
  """PSNR of an identical pair is infinite, and no low-res was given."""
  row = {k: v for k, v in ROW.items() if k not in ('bicubic', 'consistency')}
  (tmp_path / 'row.json').write_text(
    json.dumps(row | {'psnr': None}), encoding='utf-8'
  )
  facts = run_report.summarise([run(tmp_path / 'a')], row=tmp_path / 'row.json')
  lines = run_report.text(facts, numbers=NUMBERS).splitlines()
  assert lines[-2].split() == ['images', 'SSIM']
  assert lines[-1].split() == ['ours', '0.750']
  page = run_report.html(facts, title='x', numbers=NUMBERS)
  assert 'PSNR' not in page and 'shrinks back' not in page
  assert 'Bicubic' not in page and 'class="best"' not in page
  (tmp_path / 'row.json').write_text(
    json.dumps({**ROW, 'psnr': None, 'bicubic': {**ROW['bicubic']}}),
    encoding='utf-8',
  )
  facts = run_report.summarise([run(tmp_path / 'b')], row=tmp_path / 'row.json')
  line = run_report.text(facts, numbers=NUMBERS).splitlines()[-2]
  assert line.split() == ['ours', ABSENT, '0.750', '25.00']


@pytest.mark.parametrize(
  'psnr, who', [(21.5, 'ours'), (19.0, 'bicubic'), (20.25, None)]
)
def test_the_better_number_of_a_column_is_marked_whoever_s_it_is(
  tmp_path, psnr, who
):
  row = {**ROW, 'psnr': psnr, 'counts': {'psnr': 2, 'ssim': 3}}
  (tmp_path / 'row.json').write_text(json.dumps(row), encoding='utf-8')
  facts = run_report.summarise([run(tmp_path / 'a')], row=tmp_path / 'row.json')
  page = run_report.html(facts, title='x', numbers=NUMBERS)
  best = re.findall(r'<td class="best">([^<]*)</td>', page)
  assert best == [
    *(['21.50'] if who == 'ours' else []),
    *('0.750', '25.00'),
    *(['20.25'] if who == 'bicubic' else []),
  ]
  assert ('here its PSNR is higher' in page) == (who == 'bicubic')
  assert 'PSNR is over 2 of them' in page and 'SSIM is over' not in page


@pytest.mark.parametrize(
  'name, manifest, caption',
  [
    ('sampling', {'labels': None, 'stages': [{}]}, 'Drawn without a label.'),
    (
      'sampling',
      {'labels': [0, 1], 'stages': [{}, {}]},
      'A row per class; each group shows one image at every stage.',
    ),
    (
      'upscaling',
      {'experiment': 'sr'},
      'Images of the evaluation data of sr.',
    ),
    ('sampling', [], ''),
    (None, None, ''),
  ],
)
def test_a_caption_says_what_the_manifest_says(
  tmp_path, name, manifest, caption
):
  if name:
    (tmp_path / f'{name}.json').write_text(
      json.dumps(manifest), encoding='utf-8'
    )
  assert overview_caption.describe(tmp_path) == caption


def test_the_page_and_the_facts_and_the_pictures_lie_together(tmp_path):
  picture = np.zeros((8, 8, 3), np.uint8)
  for folder, name in (('s', 'samples.png'), ('u', 'upscaled.png')):
    (tmp_path / folder).mkdir()
    image_files.write_png(tmp_path / folder / name, picture)
  (tmp_path / 'row.json').write_text(json.dumps(ROW), encoding='utf-8')
  facts = run_report.summarise(
    [run(tmp_path / 'a', rows=ROWS)],
    samples=tmp_path / 's',
    upscaled=tmp_path / 'u',
    row=tmp_path / 'row.json',
  )
  paths = run_report.write(
    facts, tmp_path / 'out', title='Dogs & cats', numbers=NUMBERS
  )
  names = {path.name for path in paths}
  assert names == {path.name for path in (tmp_path / 'out').iterdir()}
  assert names == {'report.html', 'report.json', 'samples.png', 'upscaled.png'}
  assert json.loads(
    (tmp_path / 'out/report.json').read_text(encoding='utf-8')
  ) == json.loads(json.dumps(facts))
  page = (tmp_path / 'out/report.html').read_text(encoding='utf-8')
  assert 'Dogs &amp; cats' in page and '20.25' in page and 'windows' in page
  start = page.index('<svg')
  ET.fromstring(page[start : page.index('</svg>') + 6])
  assert page.count('data:image/png;base64') == 2


def test_the_report_may_be_written_where_its_pictures_lie(tmp_path):
  image_files.write_png(tmp_path / 'samples.png', np.zeros((8, 8, 3), np.uint8))
  before = (tmp_path / 'samples.png').read_bytes()
  facts = run_report.summarise([run(tmp_path / 'a')], samples=tmp_path)
  run_report.write(facts, tmp_path, title='x', numbers=NUMBERS)
  assert (tmp_path / 'samples.png').read_bytes() == before


@pytest.mark.parametrize('name', ['report.html', 'report.json', 'samples.png'])
def test_only_an_earlier_report_is_replaced(name, tmp_path):
  picture = np.zeros((8, 8, 3), np.uint8)
  (tmp_path / 's').mkdir()
  image_files.write_png(tmp_path / 's' / 'samples.png', picture)
  facts = run_report.summarise([run(tmp_path / 'a')], samples=tmp_path / 's')
  out = tmp_path / 'out'
  out.mkdir()
  (out / name).write_text('{}', encoding='utf-8')
  with pytest.raises(
    ValueError, match=rf'{name} is not from an earlier .*--ov'
  ):
    run_report.write(facts, out, title='x', numbers=NUMBERS)
  assert [path.name for path in out.iterdir()] == [name]
  run_report.write(facts, out, title='x', numbers=NUMBERS, overwrite=True)
  run_report.write(facts, out, title='renewed', numbers=NUMBERS)
  assert 'renewed' in (out / 'report.html').read_text(encoding='utf-8')


def test_a_path_of_any_bytes_is_escaped_on_the_page(tmp_path):
  title = file_names.of_bytes(tmp_path, b'caf\xe9')
  facts = run_report.summarise([run(tmp_path / title)])
  run_report.write(facts, tmp_path / 'out', title=title, numbers=NUMBERS)
  page = (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')
  assert 'caf\\udce9' in page


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (None, r'row\.json cannot be read'),
    ('{"psnr": ', r'row\.json cannot be read'),
    ('[1, 2]', r'is not what `cdm evaluate --out` wrote'),
    ('{"psnr": 3}', r'is not what `cdm evaluate --out` wrote'),
  ],
)
def test_a_row_that_is_none_is_refused(tmp_path, content, message):
  if content:
    (tmp_path / 'row.json').write_text(content, encoding='utf-8')
  with pytest.raises(ValueError, match=message):
    run_report.summarise([run(tmp_path / 'a')], row=tmp_path / 'row.json')
