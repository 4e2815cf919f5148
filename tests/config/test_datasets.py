"""Data of a config that would be enlarged is refused wherever it is opened."""

import pytest
from ml_collections import ConfigDict

from cdm.config import datasets, evaluated_images
from cdm.data import image_notes

SMALL = {'kind': 'synthetic', 'image_size': 6, 'num_images': 8}


def config(**pipeline):
  options = {'image_size': 8, 'max_skip_fraction': 0.0, **pipeline}
  return ConfigDict(
    {
      'train_data': SMALL,
      'eval_data': SMALL,
      'pipeline': options,
      'train': {'batch_size': 2},
    }
  )


def train(c):
  return next(
    datasets.training_batches(c, datasets.open_source(c.train_data), seed=0)
  )['image']


def evaluate(c):
  return evaluated_images.open_evaluated(c, 2)[0](1)[0][None]


OPENED = {
  'train': train,
  'held out': lambda c: evaluated_images.read_held_out(c, 2)([0, 1])[0],
  'evaluated': evaluate,
  'in training': lambda c: evaluated_images.open_up_to(c, 2).read([0, 1])[0],
}


@pytest.mark.parametrize('way', OPENED)
def test_smaller_images_are_refused_unless_they_may_be_enlarged(way, caplog):
  refusal = r'^config\.pipeline\.allow_enlarging is False, .*config\.\w+_data'
  for least in ({}, {'min_side': 0}):
    with pytest.raises(ValueError, match=refusal) as told:
      OPENED[way](config(**least))
    assert told.match(r'--config\.pipeline\.allow_enlarging=VALUE')
  image_notes._counts.cache_clear()  # It says each kind once.
  images = OPENED[way](config(allow_enlarging=True))
  assert images.shape[1:] == (8, 8, 3) and images.max() > 0
  assert 'its 6 pixels were enlarged to 8' in caplog.text
