"""Every value of a config is used, or refused in one sentence with its key."""

import copy
import math
import pathlib

import numpy as np
import pytest

from cdm.config import datasets, key_errors, loader, placement, stage
from cdm.training import ema_section, run_config

CONFIGS = pathlib.Path(loader.CONFIGS)
HOSTILE = (
  None, True, 0, -1, 3, 10**12, 10**400, -1.0, 0.5, math.nan, -math.inf, 1j,
  '', 'x', '1', 'nan', b'x', (), (0,), [1, 2], (1, 'x'), (math.nan, 1.0),
  (2.0, 1.0), ((),), (None,), {}, {'kind': ['x']}, {1}, np.float32('nan'),
  np.zeros(3),
)  # fmt: skip


def build_all(c, section):
  """Builds what a section takes part in, as the commands do, but traces none.

  (One pixel of the sampler is traced.)
  """
  if section in ('train', 'seed'):
    run_config.read_train_section(c)
  elif section == 'ema':
    ema_section.read_ema_section(c.ema, batch_size=8)
  elif section == 'optimizer':
    run_config.make_optimizer(c.optimizer, 100)
  elif section == 'mesh':
    placement.mesh(c.mesh)
    shapes = {'params': {'kernel': np.zeros((8, 8))}}
    placement.rules(c.mesh, shapes, placement.mesh({}))
  elif section in ('train_data', 'eval_data'):
    datasets.open_source(c[section], section)
  elif section == 'pipeline':
    source = datasets.open_source(c.train_data)
    stage.stage(c)
    datasets.training_batches(c, source, seed=0)
  else:
    stage.stage(c)


def leaves(node, prefix=()):
  for key, value in node.items():
    if isinstance(value, dict):
      yield prefix + (key,)  # the section itself
      yield from leaves(value, prefix + (key,))
    else:
      yield prefix + (key,)


def changed(plain, keys, value):
  """-> the config with another value at one of its leaves."""
  new = copy.deepcopy(plain)
  node = new
  for key in keys[:-1]:
    node = node[key]
  node[keys[-1]] = value
  return loader.ConfigDict(new)


def refusal(c, section):
  """-> the sentence that refuses a config, or None."""
  try:
    build_all(c, section)
  except ValueError as error:
    return str(error)
  return None


def cases():
  """-> {(config, key): plain config}; a key that two share is taken once."""
  found = {}
  for name in ('smoke_sr', 'smoke_cas', 'sr3_faces16to128', 'photos8'):
    plain = loader.load(CONFIGS / f'{name}.py').to_dict()
    for keys in leaves(plain):
      if keys[0] in ('paper', 'name') or keys[-1] == 'data_dir':
        continue
      kind = plain[keys[0]].get('kind') if len(keys) > 1 else None
      if keys[0] == 'eval_data' and kind == 'tfds':
        continue  # needs its package
      found.setdefault((keys, str(kind)), (name, plain))
  return found


def test_a_hostile_value_is_taken_or_refused_in_one_sentence_with_its_key():
  refused = taken = 0
  for (keys, _), (name, plain) in cases().items():
    dotted = '.'.join(keys)
    for value in HOSTILE:
      try:
        text = refusal(changed(plain, keys, value), keys[0])
      except Exception as error:
        pytest.fail(f'{name}, {dotted} = {value!r}: {error!r}')
      if text is None:
        taken += 1
        continue
      refused += 1
      where = f'{name}, {dotted} = {value!r}: {text}'
      assert text.startswith('config.'), where
      assert '\n' not in text and len(text) < 900, where
      assert '--config.' in text or 'Define' in text, where
  assert refused > 2000
  assert taken > 150


@pytest.mark.parametrize(
  ('key', 'values'),
  [
    ('train.batch_size', (True, 1.0, 'x', None, [1], 0, math.nan)),
    ('optimizer.learning_rate', ('x', None, [1], math.nan, math.inf, True)),
    ('ema.decay', (1.0, -0.1, math.nan, '0.9')),
    ('model.multipliers', ((), 2, 'ab', (1, None), (0, 1), (1, math.nan))),
    ('model.dropout', (1.0, -0.1, math.nan, (0.1,), 'x')),
    ('model.num_heads', (0, -1, 3)),
    ('model.patch_size', (0, 3)),
    ('model.norm_eps', (0.0, -1.0)),
    ('method.label_dropout', (1.5, -0.5, math.nan)),
    ('method.norm', (3, True, 2.0)),
    ('sampler.guidance_weight', (math.nan, math.inf, 'x')),
    ('sampler.guidance_interval', (1, (1, 2, 3), (2.0, 1.0), (math.nan, 1.0))),
    ('sampler.eta', (-1.0, 5.0, math.nan)),
    ('sampler.grid.spacing', ('x', '0', '65', True)),
    ('schedule.num_steps', (0, 10**9, 1.5)),
    ('schedule.max_beta', (0.0, 1.0, math.nan)),
    ('lowres.max_level', (0.0, 1.1, math.nan)),
    ('lowres.size', (0, 5, 16.0)),
    ('train_data.seed', (-1, 0.5)),
    ('train_data.num_images', (0, None)),
    ('pipeline.max_skip_fraction', (-0.1, 1.1, math.nan)),
    ('pipeline.flip', (1, 'no')),
    ('mesh.data', (0, 1.0)),
    ('seed', (-1, 2**32, 1.0)),
  ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_its_own_key(key, values):
  plain = loader.load(CONFIGS / 'smoke_sr.py').to_dict()
  keys = tuple(key.split('.'))
  for value in values:
    text = refusal(changed(plain, keys, value), keys[0])
    assert text is not None, (key, value)
    own = f'config.{key}'
    begins = text.startswith((f'{own} ', f'{own}:'))
    about_mesh = keys[0] == 'mesh' and text.startswith('config.mesh')
    size = key == 'model.patch_size' and 'pipeline.image_size' in text
    assert begins or about_mesh or size, (key, value, text)
    for odd, word in ((math.nan, 'NaN'), (math.inf, 'infinity')):
      held = value if isinstance(value, tuple) else (value,)
      if any(v is odd for v in held):
        assert word in text, text


def test_a_missing_section_or_key_is_named():
  plain = loader.load(CONFIGS / 'smoke_sr.py').to_dict()
  for section in ('model', 'method', 'schedule', 'lowres', 'sampler'):
    c = {k: v for k, v in plain.items() if k != section}
    text = refusal(loader.ConfigDict(c), section)
    assert text.startswith(f'config.{section} is missing'), text
  del plain['pipeline']['image_size']
  text = refusal(loader.ConfigDict(plain), 'model')
  assert text.startswith('config.pipeline.image_size is missing')


@pytest.mark.parametrize(
  ('text', 'section', 'keys', 'worded'),
  [
    (
      'eta is -1; use 0 or more.',
      'sampler',
      ('eta',),
      'config.sampler.eta is -1; use 0 or more. Set it with '
      '--config.sampler.eta=VALUE.',
    ),
    (
      'method.norm is 3; use 1 or 2.',
      None,
      (),
      'config.method.norm is 3; use 1 or 2. Set it with '
      '--config.method.norm=VALUE.',
    ),
    (
      "'x' is not there.",
      'train_data',
      (),
      "config.train_data: 'x' is not there. Set it with "
      '--config.train_data.KEY=VALUE.',
    ),
    ('config.a is 1; use --config.a=2.', 'b', (), None),
    ('Run: pip install x', 'm', ('a',), None),
    ('nothing to do with it', None, (), None),
  ],
)
def test_an_error_is_worded_once(text, section, keys, worded):
  once = key_errors.worded(text, section, keys)
  if worded is not None:
    assert once == worded
  assert key_errors.worded(once, section, keys) == once


def test_what_a_value_is_shown_as_is_short():
  for value, text in (
    (math.nan, 'NaN (not a number)'),
    (-math.inf, 'minus infinity'),
    ('ab', "'ab'"),
  ):
    assert key_errors.shown(value) == text
  for value in (10**5000, 'x' * 5000, [0] * 5000):
    assert len(key_errors.shown(value)) <= 80


def test_the_data_of_a_config_is_named_by_its_path(tmp_path):
  for section in ('train_data', 'eval_data'):
    with pytest.raises(ValueError, match='is not a folder') as caught:
      datasets.open_source(
        {'kind': 'folder', 'path': str(tmp_path / 'no')}, section
      )
    assert str(caught.value).startswith(f'config.{section}.path: ')
    assert str(caught.value).endswith(f'--config.{section}.path=VALUE.')
