"""What the launchers render, read by the platforms' own code where it is there.

The packages are not part of cdm: a test whose package is missing says so.
"""

import importlib.util
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location(
  'check_launchers', ROOT / 'benchmarks' / 'check_launchers.py'
)
check_launchers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_launchers)


@pytest.mark.parametrize('name', ['kubernetes', 'slurm', 'docker', 'xpk'])
def test_the_platform_reads_what_is_rendered(name):
  try:
    assert getattr(check_launchers, name)()
  except ImportError as error:
    pytest.skip(f'{error.name} is not installed, or does not run')


def pods(*arguments):
  """-> [(pod, its annotations)] of a manifest of the target gke."""
  import yaml

  texts = check_launchers.all_rendered(
    'gke', *check_launchers.IMAGE, *arguments
  )
  (job,) = yaml.safe_load(texts[-1])['spec']['replicatedJobs']
  template = job['template']['spec']['template']
  return template['spec'], template['metadata']['annotations']


TPU, GPU = check_launchers.TPU, check_launchers.GPU
GCS, NFS = check_launchers.GCS, check_launchers.NFS


def volume_of(pod):
  (volume,) = [one for one in pod['volumes'] if one['name'] == 'storage']
  return volume


def test_a_pod_on_the_hosts_network_mounts_its_bucket_as_itself():
  """A volume attribute, as text; see its driver on authentication."""
  pod, _ = pods(*TPU, *GCS)
  assert pod['hostNetwork'] is True
  attributes = volume_of(pod)['csi']['volumeAttributes']
  assert attributes['hostNetworkPodKSA'] == 'true'
  pod, _ = pods(*GPU, *GCS)
  assert 'hostNetwork' not in pod
  assert 'hostNetworkPodKSA' not in volume_of(pod)['csi']['volumeAttributes']


@pytest.mark.parametrize('kind', [TPU, GPU])
def test_the_mount_of_a_bucket_has_no_limits_of_its_own(kind):
  """By default it would share a quarter of a core and 256 MiB."""
  _, annotations = pods(*kind, *GCS)
  limits = {n: v for n, v in annotations.items() if n.endswith('-limit')}
  assert limits == {
    'gke-gcsfuse/cpu-limit': '0',
    'gke-gcsfuse/memory-limit': '0',
    'gke-gcsfuse/ephemeral-storage-limit': '0',
  }
  _, annotations = pods(*kind, *NFS)
  assert annotations == {}


@pytest.mark.parametrize('kind', [TPU, GPU])
def test_nodes_ask_for_the_newest_image_of_a_tag(kind):
  pod, _ = pods(*kind, *NFS)
  assert [c['imagePullPolicy'] for c in pod['containers']] == ['Always']


def docker_lines(*arguments):
  return check_launchers.dry_run('docker', *arguments).splitlines()


@pytest.mark.parametrize(
  'given, name',
  [
    ([], 'cdm:cuda-COMMIT'),
    (['--tag=host:5000/p/cdm'], 'host:5000/p/cdm:cuda-COMMIT'),
    (['--tag=host/p/cdm:own'], 'host/p/cdm:own'),
  ],
)
def test_an_image_of_another_commit_has_another_tag(given, name):
  lines = docker_lines('--extra=cuda', '--push', *given)
  found = re.search('--tag=(\\S+)', '\n'.join(lines))[1]
  if 'COMMIT' not in name:
    assert found == name
    return
  known = re.search('--build-arg=COMMIT=(\\S+)', '\n'.join(lines))
  if known is None:  # No git, or not its checkout.
    assert found == name.removesuffix('-COMMIT')
    return
  assert re.fullmatch('[0-9a-f]{12}(-dirty)?', known[1])
  assert found == name.replace('COMMIT', known[1])
  assert f'# for the other targets: --image={found}' in lines


@pytest.mark.parametrize('workdir', ['gs://b/r', 'gs://b/r/'])
def test_a_work_directory_in_a_bucket_stays_one(workdir):
  """Not gs:/b, as a path of the system would be."""
  for target, more in (
    ('docker', []),
    ('slurm', []),
    ('local', []),
    ('gke', [*check_launchers.IMAGE, *TPU, GCS[0]]),
    ('xpk', [*check_launchers.IMAGE, '--cluster=c', '--tpu_type=v5litepod-8']),
  ):
    text = check_launchers.dry_run(target, *more, f'--workdir={workdir}')
    assert 'gs:/b' not in text.replace('gs://b', '')
    assert f'--workdir={workdir}' in text
    assert '--volume=gs' not in text and 'mkdir' not in text
    assert ('gs://b/r/compilation_cache' in text) == (target != 'local')


def test_the_image_finds_the_drivers_libraries_and_knows_its_commit():
  text = (ROOT / 'launch' / 'Dockerfile').read_text(encoding='utf-8')
  assert 'ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64\n' in text
  assert 'ARG COMMIT\nENV CDM_COMMIT=$COMMIT\n' in text


def test_slurm_gives_a_task_its_cores_in_each_step(tmp_path):
  text = check_launchers.rendered('slurm', '--workdir=w', '--cpus_per_task=7')
  assert '#SBATCH --cpus-per-task=7\n' in text
  srun = tmp_path / 'srun'
  srun.write_text('#!/bin/sh\necho "$@"\n', encoding='utf-8')
  srun.chmod(0o755)
  step = text[text.index('\nsrun ') : text.index('\nCODE=')]
  for cores, said in (('7', True), (None, False)):
    environment = {'PATH': f'{tmp_path}:/usr/bin:/bin'}
    environment |= {'SLURM_CPUS_PER_TASK': cores} if cores else {}
    done = subprocess.run(
      ['bash', '-uc', step],
      env=environment,
      capture_output=True,
      check=True,
      encoding='utf-8',
    )
    assert ('--cpus-per-task=7' in done.stdout.split()) == said
    assert 'cdm train' in done.stdout


def test_gpus_without_cores_are_pointed_out():
  text = check_launchers.dry_run('slurm', '--workdir=w', '--gpus_per_node=8')
  assert '# Without --cpus_per_task each task gets one core' in text
  text = check_launchers.dry_run(
    'slurm', '--workdir=w', '--gpus_per_node=8', '--cpus_per_task=9'
  )
  assert '--cpus_per_task' not in text
