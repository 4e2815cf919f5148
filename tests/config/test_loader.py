"""Loading of configs and overrides: exact values in, clear errors out."""

import pytest
from ml_collections import ConfigDict

from cdm.config import loader
from cdm.data.files import damaged_file

FILE = """
from ml_collections import ConfigDict

def get_config():
  c = ConfigDict()
  c.name = 'tiny'
  c.train = dict(batch_size=8, num_steps=100, clip=None, rate=1e-3, on=True)
  c.model = dict(multipliers=(1, 2))
  c.stages = [dict(name='base', level=0.0), dict(name='sr', level=0.5)]
  return c
"""


@pytest.fixture
def path(tmp_path):
  path = tmp_path / 'tiny.py'
  path.write_text(FILE, encoding='utf-8')
  return path


def load(path, **overrides):
  return loader.load(
    path, [(k.replace('__', '.'), v) for k, v in overrides.items()]
  )


def test_overrides_keep_the_type_of_what_they_replace(path):
  c = load(
    path,
    train__batch_size='16',
    train__num_steps='1e4',
    train__rate='1',
    train__on='false',
    train__clip='0.5',
    model__multipliers='(1, 2, 4)',
    name='3',
  )
  assert c.train.to_dict() == dict(
    batch_size=16, num_steps=10_000, clip=0.5, rate=1.0, on=False
  )
  assert isinstance(c.train.num_steps, int)
  assert isinstance(c.train.rate, float)
  assert c.model.multipliers == (1, 2, 4)
  assert c.name == '3'


def test_a_stage_is_named_or_numbered(path):
  c = load(path, stages__sr__level='0.25', stages__0__level='0.125')
  assert [s['level'] for s in c.stages] == [0.125, 0.25]
  whole = load(path, stages__sr__level='1').stages[1]['level']
  assert isinstance(whole, float)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('train.batchsize', '8', r'Did you mean config\.train\.batch_size\?'),
    ('trian.batch_size', '8', r'Did you mean config\.train\.batch_size\?'),
    ('batch_size', '8', r'Did you mean config\.train\.batch_size\? Set it'),
    ('train.lr', '8', r'^config\.train\.lr: config\.train has no .lr.\. It'),
    ('zzz', '8', r'has no .zzz.\. It has: model, name, stages, train\. Set'),
    ('stages.0', '8', r'config\.stages\.0 is a section'),
    ('model.multipliers.0', '8', r'is \(1, 2\), not a section, so'),
    ('train.batch_size', 'many', r"is 8, of type int; 'many'"),
    ('train.batch_size', '8.5', r'is 8, of type int'),
    ('train.batch_size', 'True', r'of type bool'),
    ('train.on', '2', r'takes True or False'),
    ('train.batch_size', '-' * 5000, r"of type int; '-+\.\.\. is of"),
    ('train.batch_size', '-' * 50_000 + '1', r'is 8, of type int'),
    ('train.batch_size', '{[]: 1}', r'is 8, of type int'),
    ('train', '2', r'config\.train is a section'),
    ('name.x', '2', r'config\.name is .tiny., not a section'),
    ('stages.super.level', '1', r"config\.stages has no 'super'"),
  ],
)
def test_a_wrong_override_is_named(path, key, value, message):
  with pytest.raises(ValueError, match=message):
    loader.load(path, [(key, value)])


def test_a_section_that_may_be_absent_is_replaced_by_none(tmp_path):
  path = tmp_path / 'absent.py'
  path.write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    '  return ConfigDict(dict(lowres=dict(size=8), model=dict(size=8)))\n',
    encoding='utf-8',
  )
  assert loader.load(path, [('lowres', 'None')]).lowres is None
  for key, value in (('lowres', '8'), ('model', 'None')):
    with pytest.raises(ValueError, match=f'config.{key} is a section'):
      loader.load(path, [(key, value)])


def test_another_kind_empties_its_section(tmp_path):
  path = tmp_path / 'kinds.py'
  path.write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    '  return ConfigDict(dict(data=dict(kind="tfds", split="train")))\n',
    encoding='utf-8',
  )
  given = [
    ('data.kind', 'folder'),
    ('data.path', '/data/x'),
    ('data.grid.kind', 'full'),
    ('data.grid.num_steps', '4'),
  ]
  assert loader.load(path, given).data.to_dict() == dict(
    kind='folder', path='/data/x', grid=dict(kind='full', num_steps=4)
  )
  with pytest.raises(ValueError, match=r"has no 'path'"):
    loader.load(path, given[1:])


def test_a_missing_file_names_the_nearest(path):
  with pytest.raises(ValueError, match=r'Did you mean .*tiny\.py'):
    loader.load(path.with_name('tinny.py'))


def test_a_missing_config_says_where_configs_are(tmp_path, monkeypatch):
  here = loader.CONFIGS / 'smoke.py'
  with pytest.raises(ValueError, match=f'cdm has {here}; give that path'):
    loader.load(tmp_path / 'configs' / 'smoke.py')
  with pytest.raises(ValueError, match=f'configs are in {loader.CONFIGS}'):
    loader.load(tmp_path / 'configs' / 'mine.py')
  monkeypatch.setattr(loader, 'CONFIGS', tmp_path / 'site-packages' / 'configs')
  with pytest.raises(ValueError, match='an installed package does not hold'):
    loader.load(tmp_path / 'configs' / 'smoke.py')


def test_a_file_that_is_not_python_is_refused(tmp_path):
  (tmp_path / 'a.json').write_text('{}', encoding='utf-8')
  with pytest.raises(ValueError, match=r'a\.json is not a Python file'):
    loader.load(tmp_path / 'a.json')


def test_a_file_without_get_config_is_refused(tmp_path):
  (tmp_path / 'a.py').write_text('x = 1\n', encoding='utf-8')
  with pytest.raises(ValueError, match=r'defines no get_config'):
    loader.load(tmp_path / 'a.py')


def test_a_loaded_config_is_locked(path):
  with pytest.raises((AttributeError, KeyError)):
    load(path).train.new_key = 1


def test_plain_values_come_back_equal(path):
  c = load(path)
  back = loader.from_json(loader.to_json(c), 'config.json')
  assert back.train == c.train
  assert back.model.multipliers == (1, 2)
  assert loader.changes(c, back) == []


def test_a_run_of_an_earlier_cdm_is_refused_in_one_sentence():
  text = '{"name": "old", "task": {"kind": "diffusion"}}'
  with pytest.raises(ValueError, match=r"runs/old is .* 'method' now"):
    loader.from_json(text, 'runs/old')


@pytest.mark.parametrize('text', ['{"name": ', '[1]', '{"a.b": 1}', '[' * 9999])
def test_a_damaged_saved_config_is_a_data_error(tmp_path, text):
  (tmp_path / 'config.json').write_text(text, encoding='utf-8')
  with pytest.raises(damaged_file.DamagedFile, match='config.json is damaged'):
    loader.read_json(tmp_path / 'config.json')


def test_a_config_file_of_an_earlier_cdm_says_what_to_rename(tmp_path):
  (tmp_path / 'a.py').write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    "  return ConfigDict({'task': {'kind': 'diffusion'}})\n",
    encoding='utf-8',
  )
  with pytest.raises(ValueError, match=r"'task' is called 'method' now"):
    loader.load(tmp_path / 'a.py')


def test_changes_name_every_leaf_that_differs():
  old = ConfigDict(dict(a=1, s=dict(x=(1, 2), y=3)))
  new = ConfigDict(dict(a=1, s=dict(x=(1, 4), y=3), b=2))
  assert loader.changes(old, new) == [
    'config.b: absent -> 2',
    'config.s.x: [1, 2] -> [1, 4]',
  ]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('def get_config(:\n', r'wrong\.py: line 1: SyntaxError: '),
    ('\nx = y\n', r"line 2: NameError: name 'y' is not defined\. Correct"),
    ('def get_config():\n  return 1 / 0\n', r'line 2: ZeroDivisionError'),
    ('def get_config():\n  return {}\n', r'returns \{\}; it must return'),
  ],
)
def test_a_config_file_that_cannot_be_run_is_refused(tmp_path, text, message):
  (tmp_path / 'wrong.py').write_text(text, encoding='utf-8')
  with pytest.raises(ValueError, match=message):
    loader.load(tmp_path / 'wrong.py')


@pytest.mark.parametrize(
  'key',
  ['', '.', '..', 'train.', '.train', 'train..batch_size', 'name.x', 'stages',
   'stages.', 'stages.2', 'stages.-1.level', 'stages.sr', 'stages.sr.level.x',
   'train.clip.x', 'train.batch_size.x', 'model.multipliers.0', 'x' * 5000,
   'train.kind', '__class__', 'train.__class__', 'train\0', 'items', '\n'],
)  # fmt: skip
def test_no_key_ends_in_another_error_than_one_sentence(path, key):
  with pytest.raises(ValueError) as caught:
    loader.load(path, [(key, '1')])
  message = str(caught.value)
  assert message.startswith(('config.', 'config ')), message
  assert '\n' not in message and len(message) < 600
