"""Groups: read as they were written, compared as chance allows."""

import json

import numpy as np
import pytest

from cdm.data.files import damaged_file
from cdm.evaluation import groups

NAMES = ('a/1.png', 'a/2.png', 'b/3.png', 'b/7.jpg')


def write(path, text):
  path.write_text(text, encoding='utf-8')
  return path


def test_csv_and_json_say_the_same(tmp_path):
  table = write(
    tmp_path / 'a.csv',
    '\ufeffimage,gender,age\n1,f,"under 30"\n\n 2 , m,30 and over\n',
  )
  held = write(
    tmp_path / 'a.json',
    json.dumps(
      {
        '1': {'gender': 'f', 'age': 'under 30'},
        '2': {'age': '30 and over', 'gender': 'm'},
      }
    ),
  )
  expected = {'1': ('f', 'under 30'), '2': ('m', '30 and over')}
  for path in (table, held):
    assert groups.read(path) == (expected, ('gender', 'age'))
  short = write(tmp_path / 'b.json', '{"1": "f", "2": "m"}')
  assert groups.read(short) == ({'1': ('f',), '2': ('m',)}, ('group',))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'is empty'),
    (' \n\n', 'is empty'),
    ('image,gender\n', 'holds no groups'),
    ('image\n1\n', 'holds no groups'),
    ('image,gender\n1,f\n1,m\n', "names image '1' twice"),
    ('image,gender\n1,\n', r"image '1' has \[''\]"),
    ('image,gender\n1,f,old\n', "image '1' has"),
  ],
)
def test_a_csv_without_groups_is_refused(text, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    groups.read(write(tmp_path / 'g.csv', text))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{"1": ', 'is not JSON'),
    ('["f"]', 'holds a list; an object'),
    ('{}', 'holds no groups'),
    ('{"1": {"gender": "f"}, "2": {"age": "9"}}', "image '2' has"),
    ('{"1": {"gender": "f"}, "2": {"gender": ""}}', "image '2' has"),
    ('{"1": {"gender": []}}', r"\['gender'\] is a list, not"),
    ('[' * 9999, 'nested too deeply'),
  ],
)
def test_a_json_without_groups_is_refused(text, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    groups.read(write(tmp_path / 'g.json', text))
  with pytest.raises(ValueError, match='there is no such file'):
    groups.read(tmp_path / 'other.json')


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (
      'image,group\n1,é\n'.encode('latin-1'),
      r'g.csv, line 2: byte 14 .* UTF-8',
    ),
    (b'image,group\n1,"' + b'x' * 200_000, 'g.csv is no CSV: field larger'),
  ],
)
def test_a_csv_that_is_no_text_is_a_data_error(data, message, tmp_path):
  path = tmp_path / 'g.csv'
  path.write_bytes(data)
  with pytest.raises(damaged_file.DamagedFile, match=message):
    groups.read(path)
  path.write_bytes(b',\n')
  with pytest.raises(ValueError, match='holds no groups'):
    groups.read(path)


def assign(found, records=(0, 2, 3), names=NAMES):
  return groups.assign(found, list(records), names, count=4, path='g.csv')


@pytest.mark.parametrize('spell', ['a/1.png', 'a/1', '1.png', '1'])
def test_an_image_goes_by_its_path_its_name_or_its_number(spell):
  """Where files are called by numbers, those are meant."""
  others = {'b/3': ('m',), '7': ('m',)}
  assert assign({spell: ('f',), **others}) == {0: ('f',), 2: ('m',), 3: ('m',)}
  by_number = {'0': ('f',), '2': ('m',), '3': ('x',)}
  assert assign(by_number, names=None)[3] == ('x',)


def test_images_that_are_not_looked_at_may_be_there():
  every = {name: ('f',) for name in NAMES}
  assert assign(every, records=[2]) == {2: ('f',)}


@pytest.mark.parametrize(
  ('found', 'names', 'message'),
  [
    ({'9': ('f',)}, NAMES, r"image '9', which .* like 'a/1\.png'"),
    ({'9': ('f',)}, None, r"image '9', which .*\(4 images, numbered from 0"),
    ({'1': ('f',)}, NAMES, r'lacks image 2 \(b/3\.png\) and 1 more of the 3'),
    ({'1': ('f',)}, ('a/1.png', 'b/1.png', 'c', 'd'), "'1' is the name of sev"),
  ],
)
def test_labels_of_other_images_are_refused(found, names, message):
  with pytest.raises(ValueError, match=message):
    assign(found, names=names)


def test_images_are_divided_by_each_column_and_by_all():
  given = {0: ('f', 'old'), 1: ('m', 'old'), 2: ('f', 'young')}
  found = groups.divisions(('gender', 'age'), given)
  assert found == {
    'gender': {'f': [0, 2], 'm': [1]},
    'age': {'old': [0, 1], 'young': [2]},
    'gender and age': {'f, old': [0], 'f, young': [2], 'm, old': [1]},
  }
  one = {0: ('f', 'old'), 1: ('m', 'old')}
  assert list(groups.divisions(('gender', 'age'), one)) == ['gender']
  with pytest.raises(ValueError, match="images are of one group, 'f'; there"):
    groups.divisions(('gender',), {0: ('f',), 1: ('f',)})


def scores(means, count=40, spread=1.0, seed=0):
  """-> (division, {record: value}) of groups of normal values."""
  rng = np.random.default_rng(seed)
  division, values = {}, {}
  for i, (name, mean) in enumerate(means.items()):
    records = list(range(i * count, (i + 1) * count))
    division[name] = records
    values |= {n: float(rng.normal(mean, spread)) for n in records}
  return division, values


def test_the_worst_group_is_named_and_the_gap_is_the_difference_of_means():
  division, values = scores({'a': 30.0, 'b': 28.0, 'c': 31.0})
  better = {'psnr': 1, 'error': -1}
  columns = {'psnr': values, 'error': {n: -v for n, v in values.items()}}
  found = groups.compare(division, columns, better=better)
  assert [row['group'] for row in found['rows']] == ['b', 'a', 'c']
  assert set(found['gaps']) == {'psnr', 'error'}
  assert [g['group'] for g in found['gaps'].values()] == ['b', 'b']
  assert found['gaps']['psnr']['sure'] and found['gaps']['error']['sure']
  others = [values[n] for n in division['a'] + division['c']]
  gap = np.mean([values[n] for n in division['b']]) - np.mean(others)
  assert found['gaps']['psnr']['mean'] == pytest.approx(gap)
  assert found['gaps']['error']['mean'] == pytest.approx(-gap)
  turned = dict(reversed(columns.items()))
  found = groups.compare(division, turned, better=better)
  assert found['rows'][0]['group'] == 'b'  # of an error, more is worse


def test_intervals_are_those_of_normal_theory():
  division, values = scores({'a': 30.0, 'b': 30.0}, count=400)
  found = groups.compare(division, {'psnr': values}, better={'psnr': 1})
  row = found['rows'][0]['psnr']
  width = 2 * 1.96 / np.sqrt(400)
  assert row['high'] - row['low'] == pytest.approx(width, rel=0.15)
  gap = found['gaps']['psnr']
  assert gap['high'] - gap['low'] == pytest.approx(width * 2**0.5, rel=0.15)


def test_groups_that_differ_by_chance_are_hardly_ever_called_different():
  """The worst of ten is always low; alone, 5% each would be 40% of all."""
  sure = 0
  for seed in range(40):
    division, values = scores(dict.fromkeys('abcdefghij', 30.0), 30, seed=seed)
    found = groups.compare(division, {'psnr': values}, better={'psnr': 1})
    sure += found['gaps']['psnr']['sure']
  assert sure <= 5


def test_a_group_of_few_images_is_never_the_worst():
  division, values = scores({'a': 30.0, 'b': 29.0}, count=20)
  division['few'] = list(range(1000, 1000 + groups.FEWEST - 1))
  values |= dict.fromkeys(division['few'], 3.0)
  found = groups.compare(division, {'psnr': values}, better={'psnr': 1})
  assert found['gaps']['psnr']['group'] == 'b'
  assert [row['group'] for row in found['rows']] == ['b', 'a', 'few']
  assert [row['enough'] for row in found['rows']] == [True, True, False]
  alone = {'a': division['a'], 'few': division['few']}
  found = groups.compare(alone, {'psnr': values}, better={'psnr': 1})
  assert found['gaps'] == {}


def test_values_that_are_not_known_are_left_out():
  assert groups.summary([None, 2.0, None, 4.0])['mean'] == 3.0
  assert groups.summary([2.0]) == {'mean': 2.0, 'low': None, 'high': None}
  assert groups.summary([None])['mean'] is None
