"""A work directory in a bucket, without a mount, on the clouds."""

import pytest
from support.launched import rendered

IMAGE = '--image=images.example/p/r/cdm:1'
TARGETS = {
  'tpu-vm': [IMAGE, '--type=v5litepod-16', '--zone=z'],
  'skypilot': ['--accelerators=H100:8'],
  'vertex': [IMAGE, '--region=r', '--machine_type=m'],
  'batch': [IMAGE, '--location=l', '--machine_type=m'],
}


@pytest.mark.parametrize('workdir', ['gs://b/r', 'gs://b/r/'])
@pytest.mark.parametrize('target', TARGETS)
def test_it_stays_one(target, workdir):
  """Not gs:/b, as a path of the system would be."""
  storage = ['--storage=gs://b', f'--workdir={workdir}']
  text = '\n'.join(rendered(target, *TARGETS[target], *storage))
  assert 'gs:/b' not in text.replace('gs://b', '')
  assert f'--workdir={workdir}' in text
  assert 'gs://b/r/compilation_cache' in text
