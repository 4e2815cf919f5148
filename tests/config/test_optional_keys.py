"""Keys that no config states are set in every config that has the section."""

import inspect

import pytest
from support import smoke_runs

from cdm.config import (
  datasets,
  facial_priors,
  loader,
  optional_keys,
  placement,
)
from cdm.data import data_origin, folder, pipeline
from cdm.methods import diffusion_options
from cdm.models import unet
from cdm.training import run_config

SMOKE = smoke_runs.CONFIGS / 'smoke.py'


def test_their_values_are_those_of_the_class_that_reads_them():
  readers = {
    'train': run_config.Run,
    'pipeline': pipeline.PipelineOptions,
    'mesh': placement.Mesh,
    'sampler': diffusion_options.Sampling,
  }
  network = inspect.signature(unet.UNet).parameters
  parameters = inspect.signature(folder.Folder).parameters
  for dotted, value in optional_keys.OPTIONAL.items():
    section, key = dotted.split('.')
    if section in readers:
      assert readers[section]._field_defaults[key] == value
    elif section == 'model':
      assert network[key].default == value
    elif key == datasets.ALLOW_MISSING:
      assert datasets.allows_missing_classes({}) == value
    elif key in facial_priors.KEYS:
      assert facial_priors.KEYS[key] == value
    elif key == data_origin.DATA_SET:
      named = {'kind': 'folder', key: value}
      assert data_origin.of_section(named) == {}
    else:
      assert parameters[key].default == value


def test_a_folder_that_an_override_names_orders_numbers_as_numbers():
  path = ('eval_data.path', '/data')
  c = loader.load(SMOKE, [('eval_data.kind', 'folder'), path])
  assert c.eval_data.order == 'numbers'
  c = loader.load(
    SMOKE,
    [('eval_data.kind', 'folder'), path, ('eval_data.order', 'text')],
  )
  assert c.eval_data.order == 'text'


@pytest.mark.parametrize(
  ('text', 'names'),
  [
    ('a,b', ('a', 'b')),
    ("('a', 'b')", ('a', 'b')),
    ('', ()),
    ('()', ()),
    ('None', ('x',)),
  ],
)
def test_the_names_of_classes_are_a_list_or_a_text(tmp_path, text, names):
  for name in ('a', 'b') if len(names) == 2 else ('x',):
    (tmp_path / name).mkdir()
    (tmp_path / name / '0.png').write_bytes(b'')
  faces = smoke_runs.CONFIGS / 'faces_small_64.py'  # a config with ()
  c = loader.load(
    faces,
    [('train_data.class_names', text), ('train_data.path', str(tmp_path))],
  )
  source = datasets.open_source(c.train_data)
  assert source.class_names == names


def test_a_config_that_lacks_one_takes_it_from_the_command_line():
  c = loader.load(SMOKE, [('train.init_from', 'runs/a@8')])
  assert c.train.init_from == 'runs/a@8'
  assert run_config.read_train_section(c).init_from == 'runs/a@8'
  assert 'init_from' not in loader.load(SMOKE).train


def test_an_old_saved_config_takes_it_too():
  saved = loader.from_json(loader.to_json(loader.load(SMOKE)), 'config.json')
  loader.override_all(saved, [('train.init_missing', 'initialize')])
  assert saved.train.init_missing == 'initialize'


def test_a_config_says_what_runs_of_an_earlier_version_did():
  """Theirs enlarged images; one that is read from its file does not."""
  c = loader.load(SMOKE)
  assert c.pipeline.allow_enlarging is False
  text = loader.to_json(c)
  assert loader.from_json(text, 'x').pipeline.allow_enlarging is False
  earlier = text.replace('"allow_enlarging": false,', '')
  assert earlier != text
  assert loader.from_json(earlier, 'x').pipeline.allow_enlarging is True
  allowed = loader.load(SMOKE, [('pipeline.allow_enlarging', 'True')])
  assert allowed.pipeline.allow_enlarging is True


@pytest.mark.parametrize(
  'name', ['init_form', 'pretrained', 'resume_checkpoint']
)
def test_a_near_or_foreign_name_is_answered_with_the_key(name):
  with pytest.raises(
    ValueError, match=r'Did you mean config\.train\.init_from'
  ):
    loader.load(SMOKE, [(f'train.{name}', 'x')])


def test_a_config_without_the_section_does_not_have_the_key():
  with pytest.raises(ValueError, match=r'config has no .train.'):
    loader.load(
      smoke_runs.CONFIGS / 'smoke_cascade.py', [('train.init_from', 'x')]
    )
