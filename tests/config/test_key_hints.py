"""The key that a name means: misspelt, of another program, or none."""

import pytest

from cdm.config import key_hints

CONFIG = {
  'seed': 0,
  'name': 'x',
  'train_data': {'kind': 'folder', 'path': 'p', 'image_size': 8},
  'pipeline': {'image_size': 8, 'worker_count': 0},
  'lowres': {'size': 4, 'augment': 'none'},
  'model': {'features': 8, 'dropout': 0.0, 'dtype': 'float32'},
  'sampler': {'kind': 'ddim', 'grid': {'spacing': '4'}},
  'optimizer': {'learning_rate': 1.0, 'clip_norm': 1.0},
  'ema': {'decay': 0.9},
  'train': {'batch_size': 8, 'num_steps': 9, 'accumulation': 1},
  'stages': ({'name': 'base', 'level': 0.0}, {'name': 'sr', 'level': 0.1}),
}


@pytest.mark.parametrize(
  ('name', 'here', 'key'),
  [
    ('lr', '', 'optimizer.learning_rate'),
    ('learning_rate', '', 'optimizer.learning_rate'),
    ('train.lr', 'train', 'optimizer.learning_rate'),
    ('batch_size', '', 'train.batch_size'),
    ('epochs', '', 'train.num_steps'),
    ('max-steps', '', 'train.num_steps'),
    ('ema_decay', '', 'ema.decay'),
    ('manual_seed', '', 'seed'),
    ('image_size', '', 'pipeline.image_size'),
    ('resolution', '', 'pipeline.image_size'),
    ('num_workers', '', 'pipeline.worker_count'),
    ('output_dir', '', '--workdir'),
    ('logdir', '', '--workdir'),
    ('fp16', '', 'model.dtype'),
    ('mixed_precision', '', 'model.dtype'),
    ('use_flash_attention', '', 'model.attention'),
    ('gradient_accumulation_steps', '', 'train.accumulation'),
    ('train.batchsize', 'train', 'train.batch_size'),
    ('trian.batch_size', '', 'train.batch_size'),
    ('optimizer.lerning_rate', 'optimizer', 'optimizer.learning_rate'),
    ('dropuot', '', 'model.dropout'),
    ('sampler.spacing', 'sampler', 'sampler.grid.spacing'),
    ('stages.super.level', 'stages', 'stages.base.level'),
    # Nothing is near.
    ('zzz', '', None),
    ('lowres.blur_sigma', 'lowres', None),
    ('guidance_scale', '', None),  # this config has no such key
    ('x' * 10_000, '', None),
  ],
)
def test_a_name_means_a_key_that_exists_or_nothing(name, here, key):
  assert key_hints.hint(CONFIG, name, here) == key


def test_no_name_of_another_program_means_two_keys():
  names = ' '.join(key_hints.OTHER_NAMES.values()).split()
  assert len(names) == len(set(names))
