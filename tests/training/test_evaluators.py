"""Held-out images are opened at the start by the runs that read them."""

import types

import pytest
from support import smoke_runs

from cdm.config import loader
from cdm.data import synthetic
from cdm.training import eval_section, evaluators

NONE = eval_section.Evaluation()


def checked(upscales=False, grids=False, num_classes=4, held_out=3, **options):
  """Checks held-out data of three classes; -> the config."""
  c = loader.load(
    smoke_runs.CONFIGS / 'smoke.py',
    [
      ('eval_data.num_classes', str(held_out)),
      ('train.num_samples', '4' if grids else '0'),
    ],
  )
  assembled = types.SimpleNamespace(
    evaluation=NONE._replace(**options),
    built=types.SimpleNamespace(
      lowres=object() if upscales else None,
      net=types.SimpleNamespace(num_classes=num_classes),
    ),
  )
  source = synthetic.Synthetic(image_size=4, num_images=4, num_classes=4)
  found = evaluators.with_training_classes(c, assembled, source)
  assert found is c


@pytest.mark.parametrize(
  'reads',
  [
    dict(every_steps=2, batches=1),
    dict(every_steps=2, batches=0, num_pairs=1, upscales=True),
    dict(fid_every_steps=2, upscales=True),
    dict(grids=True, upscales=True),
  ],
)
def test_runs_that_read_held_out_images_check_their_classes(reads):
  with pytest.raises(ValueError, match="missing, first 'grating 3'"):
    checked(**reads)
  checked(held_out=4, **reads)
  checked(num_classes=None, **reads)


@pytest.mark.parametrize(
  'reads',
  [
    {},
    dict(batches=1),
    dict(every_steps=2, batches=0, num_pairs=1),
    dict(fid_every_steps=2),
    dict(grids=True),
  ],
)
def test_runs_that_read_none_check_none(reads):
  checked(**reads)
