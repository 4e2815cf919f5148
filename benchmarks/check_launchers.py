"""Checks what the launchers render against the schemas of who will read it.

  pip install pyyaml jsonschema kubernetes-validate google-cloud-aiplatform \\
      google-cloud-batch skypilot xpk
  python benchmarks/check_launchers.py --jobset_crd=FILE

FILE is config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml of
github.com/kubernetes-sigs/jobset. Checks what the installed packages allow and
names what was left out; the packages may also be installed one by one.
"""

import argparse
import importlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMON = [
  '--config=configs/smoke.py',
  """--config.train_data.path=/a b/it's "$HOME" $(id) %x""",
]
GCS = ['--storage=gs://lab-runs', '--workdir=/gcs/lab-runs/r']
NFS = ['--storage=10.0.0.2:/runs', '--workdir=/nfs/r']
IMAGE = ['--image=images.example/p/r/cdm:tpu']
TPU = ['--tpu=tpu-v6e-slice', '--topology=4x4', '--queue=q', '--spot']
GPU = ['--gpu=nvidia-h100-80gb', '--nodes=2']
VERTEX = ['--region=r', '--machine_type=a3-highgpu-8g', '--nodes=3', '--spot']
H100 = ['--accelerator_type=NVIDIA_H100_80GB', '--accelerator_count=8']
BATCH = ['--location=l', '--machine_type=a2-highgpu-8g', '--spot']
A100 = ['--gpu_type=nvidia-tesla-a100', '--gpus=8']


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--jobset_crd', metavar='FILE', type=pathlib.Path)
  args = parser.parse_args()
  if args.jobset_crd:
    report('gke', lambda: jobset(args.jobset_crd))
  else:
    print('gke: left out, --jobset_crd not given')
  for name, check in (
    ('skypilot', skypilot),
    ('vertex', vertex),
    ('batch', batch),
    ('xpk', xpk),
  ):
    report(name, check)


def report(name, check):
  """Prints what a check found, or which package it lacks."""
  try:
    print(f'{name}: {check()}')
  except ImportError as error:
    print(f'{name}: left out, {error.name} is not installed')


def rendered(target, *arguments):
  """-> (name, text) of the one file that a target renders."""
  shell = dry_run(target, *arguments)
  pattern = r"^cat > (\S+) <<'END_OF_FILE'\n(.*?)\nEND_OF_FILE$"
  ((_, text),) = re.findall(pattern, shell, re.MULTILINE | re.DOTALL)
  return text


def dry_run(target, *arguments):
  return subprocess.run(
    [sys.executable, ROOT / 'launch' / 'launch.py', target, '--dry-run']
    + [*COMMON, *arguments],
    cwd=ROOT,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
    encoding='utf-8',
  ).stdout


def jobset(crd):
  """JobSet's own schema, and Kubernetes' of the pods inside."""
  import jsonschema
  import kubernetes_validate

  definition = yaml.safe_load(crd.read_text(encoding='utf-8'))
  (version,) = definition['spec']['versions']
  schema = strict(version['schema']['openAPIV3Schema'])
  checked = 0
  for kind in (TPU, GPU):
    for storage in (GCS, NFS):
      manifest = yaml.safe_load(rendered('gke', *IMAGE, *kind, *storage))
      jsonschema.Draft7Validator(schema).validate(manifest)
      (job,) = manifest['spec']['replicatedJobs']
      template = job['template']
      for_batch = {'apiVersion': 'batch/v1', 'kind': 'Job'}
      for_batch |= {'metadata': {'name': 'j'}, 'spec': template['spec']}
      kubernetes_validate.validate(for_batch, '1.32', strict=True)
      checked += 1
  return f'{checked} manifests fit the CRD and Kubernetes 1.32'


def strict(schema):
  """-> a structural schema of Kubernetes that refuses unknown fields."""
  if not isinstance(schema, dict):
    return schema
  if schema.get('x-kubernetes-int-or-string'):
    return {'type': ['integer', 'string']}
  schema = dict(schema)
  for key in ('properties',):
    if key in schema:
      schema[key] = {k: strict(v) for k, v in schema[key].items()}
  for key in ('items', 'additionalProperties'):
    if key in schema:
      schema[key] = strict(schema[key])
  known = 'properties' in schema and 'additionalProperties' not in schema
  if known and not schema.get('x-kubernetes-preserve-unknown-fields'):
    schema['additionalProperties'] = False
  return schema


def skypilot():
  """SkyPilot's own reading of the task."""
  import sky
  from sky.jobs import recovery_strategy  # noqa: F401, registers strategies

  for kind in (['--accelerators=H100:8', '--nodes=2', '--spot'],):
    task = sky.Task.from_yaml_config(
      yaml.safe_load(rendered('skypilot', *kind, *GCS))
    )
  (resources,) = task.resources
  return f'sky {sky.__version__} reads {task}; {resources.job_recovery}'


def vertex():
  """CustomJobSpec, the message that gcloud sends."""
  from google.cloud import aiplatform_v1

  for more in ([*H100, *GCS], [*NFS, '--network=n']):
    text = rendered('vertex', *IMAGE, *VERTEX, *more)
    spec = aiplatform_v1.CustomJobSpec.from_json(
      json.dumps(yaml.safe_load(text)), ignore_unknown_fields=False
    )
  pools = [pool.replica_count for pool in spec.worker_pool_specs]
  return f'reads as CustomJobSpec, machines {pools}'


def batch():
  """Job, the message that gcloud sends."""
  from google.cloud import batch_v1

  for more in ([*A100, *GCS], NFS):
    text = rendered('batch', *IMAGE, *BATCH, *more)
    job = batch_v1.Job.from_json(text, ignore_unknown_fields=False)
  return f'reads as Job, retries {job.task_groups[0].task_spec.max_retry_count}'


def xpk():
  """xpk itself, as far as it goes without a cluster."""
  importlib.import_module('xpk')
  import shlex

  shell = dry_run(
    'xpk',
    *IMAGE,
    '--cluster=c',
    '--tpu_type=v5litepod-16',
    '--project=p',
    '--zone=us-central1-a',
    '--workdir=/data/r',
  )
  words = shlex.split(shell)
  tool = pathlib.Path(sys.executable).with_name('xpk')
  with tempfile.TemporaryDirectory() as folder:
    manifest = pathlib.Path(folder, 'jobset.yaml')
    subprocess.run(
      [tool, *words[1:], '--dry-run', '--skip-validation']
      + [f'--output-manifest-file={manifest}'],
      check=True,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    jobset = yaml.safe_load(manifest.read_text(encoding='utf-8'))
  (job,) = jobset['spec']['replicatedJobs']
  pod = job['template']['spec']
  codes = pod['podFailurePolicy']['rules'][0]['onExitCodes']
  assert codes['operator'] == 'NotIn' and {1, 75} <= set(codes['values'])
  (container,) = pod['template']['spec']['containers']
  # As the shell in the pod gets it.
  line = next(
    line
    for line in container['command'][-1].replace('$$', '$').splitlines()
    if 'exec cdm' in line
  )
  said = shlex.split(line.strip().removeprefix('(').partition(') & PID')[0])
  assert said[1:3] == ['cdm', 'train'] and COMMON[1] in said, said
  return f'{job["name"]}, {pod["parallelism"]} hosts; the command arrives whole'


if __name__ == '__main__':
  main()
