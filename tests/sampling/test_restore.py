"""What restoring a stage leaves in manifests, byte for byte."""

import json

import pytest
from support import smoke_runs

from cdm.sampling import restore

RECORD = restore.StageRecord('sr3', 400, 0.1, {'kind': 'ddim', 'eta': 0.0})
SAMPLER = '"sampler": {"kind": "ddim", "eta": 0.0}}'


@pytest.mark.parametrize(
  ('made', 'text'),
  [
    (
      RECORD.manifest('name', after_level={'downsample': 'area'}),
      '{"name": "sr3", "checkpoint": 400, "level": 0.1, "downsample": "area", ',
    ),
    (
      RECORD.manifest(after_checkpoint={'seed': 3}, after_level={'count': 8}),
      '{"experiment": "sr3", "checkpoint": 400, "seed": 3, "level": 0.1, '
      '"count": 8, ',
    ),
    (
      RECORD.cascade_entry({'name': 'sr', 'truncated': True}, 'sr'),
      '{"name": "sr", "truncated": true, "folder": "sr", "experiment": "sr3", '
      '"checkpoint": 400, ',
    ),
  ],
)
def test_manifests_are_those_that_folders_on_disk_hold(made, text):
  """An interrupted folder continues only if its manifest is the same."""
  assert json.dumps(made) == text + SAMPLER


def test_a_level_stands_in_a_cascade_where_its_config_has_it():
  section = {'name': 'sr', 'level': 0.1, 'sampler': None}
  entry = RECORD.cascade_entry(section, 'sr')
  assert list(entry)[:4] == ['name', 'level', 'sampler', 'folder']
  assert entry['sampler'] == RECORD.sampler


def test_drawing_warns_of_a_sampler_that_starts_where_training_never_was(
  caplog,
):
  workdir = smoke_runs.trained() / 'base'
  restore.restored_stage(workdir, name='base')
  assert not caplog.records
  restore.restored_stage(
    workdir, name='base', overrides=[('sampler.grid.spacing', 'ddim4')]
  )
  [record] = caplog.records
  text = record.getMessage()
  assert text.startswith('warning: config.sampler.grid begins at alpha_bar')
