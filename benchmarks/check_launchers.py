"""Checks what the launchers render against the schemas of who will read it.

  pip install pyyaml jsonschema kubernetes-validate google-cloud-aiplatform \\
      google-cloud-batch skypilot xpk
  python benchmarks/check_launchers.py --jobset_crd=FILE

FILE is config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml of
github.com/kubernetes-sigs/jobset. Checks what the installed packages allow and
names what was left out; the packages may also be installed one by one. Where a
SLURM runs, sbatch reads its script, and where a Docker runs, it reads the
Dockerfile; benchmarks/slurm_daemons.sh starts a SLURM.
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
BATCH = ['--location=l', '--spot']
A3 = ['--machine_type=a3-highgpu-8g']
T4 = ['--machine_type=n1-standard-8', '--gpu_type=nvidia-tesla-t4']


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--jobset_crd', metavar='FILE', type=pathlib.Path)
  args = parser.parse_args()
  if args.jobset_crd:
    report('gke, JobSet', lambda: jobset(args.jobset_crd))
  else:
    print('gke, JobSet: left out, --jobset_crd not given')
  for name, check in (
    ('gke, Kubernetes', kubernetes),
    ('slurm', slurm),
    ('docker', docker),
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


def require_tool(*words):
  """Raises ModuleNotFoundError unless the command runs and ends with 0."""
  try:
    subprocess.run(words, check=True, capture_output=True, timeout=20)
  except (OSError, subprocess.SubprocessError):
    raise ModuleNotFoundError(name=words[0]) from None


def rendered(target, *arguments):
  """-> text of the one file that a target renders."""
  (text,) = all_rendered(target, *arguments)
  return text


def all_rendered(target, *arguments):
  """-> texts of the files that a target renders."""
  shell = dry_run(target, *arguments)
  pattern = r"^cat > \S+ <<'END_OF_FILE'\n(.*?)\nEND_OF_FILE$"
  return re.findall(pattern, shell, re.MULTILINE | re.DOTALL)


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


def manifests():
  """-> [(JobSet, other objects)] of the target gke, read by a YAML reader."""
  found = []
  for kind in (TPU, GPU):
    for storage in (GCS, NFS):
      texts = all_rendered(
        'gke', *IMAGE, *kind, *storage, '--env=A_TOKEN=x', '--env=NO=$(A) "'
      )
      *others, jobset = [yaml.safe_load(text) for text in texts]
      found.append((jobset, others))
  return found


def kubernetes():
  """Kubernetes' own schema of the Secret, and of the jobs in the JobSet."""
  import kubernetes_validate

  for jobset, others in manifests():
    (job,) = jobset['spec']['replicatedJobs']
    for_batch = {'apiVersion': 'batch/v1', 'kind': 'Job'}
    for_batch |= {'metadata': {'name': 'j'}, 'spec': job['template']['spec']}
    for manifest in (for_batch, *others):
      kubernetes_validate.validate(manifest, '1.32', strict=True)
  return 'jobs and secrets fit Kubernetes 1.32'


def jobset(crd):
  """JobSet's own schema."""
  import jsonschema

  definition = yaml.safe_load(crd.read_text(encoding='utf-8'))
  (version,) = definition['spec']['versions']
  schema = strict(version['schema']['openAPIV3Schema'])
  found = [manifest for manifest, _ in manifests()]
  for manifest in found:
    jsonschema.Draft7Validator(schema).validate(manifest)
  return f'{len(found)} manifests fit the CRD'


def slurm():
  """sbatch's own reading of the script, without a job."""
  require_tool('sinfo')
  script = rendered(
    'slurm',
    *['--workdir=/x', '--tasks_per_node=1', '--cpus_per_task=1'],
    *['--time=1:00:00', '--env=A=it\'s "$HOME"'],
  )
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'a.sbatch')
    path.write_text(script, encoding='utf-8')
    words = ['sbatch', '--test-only', str(path)]
    done = subprocess.run(words, capture_output=True, encoding='utf-8')
  assert done.returncode == 0, done.stderr
  return done.stderr.strip()


def docker():
  """BuildKit's own reading of the Dockerfile."""
  require_tool('docker', 'buildx', 'version')
  file = f'--file={ROOT / "launch" / "Dockerfile"}'
  words = ['docker', 'build', '--check', file, str(ROOT)]
  done = subprocess.run(words, capture_output=True, encoding='utf-8')
  assert done.returncode == 0, done.stdout + done.stderr
  return 'docker build --check finds nothing'


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
  """SkyPilot's own reading of the task, and what it does at exit codes."""
  import sky
  from sky.jobs import recovery_strategy
  from sky.utils import dag_utils

  for kind in (
    ['--accelerators=H100:8', '--nodes=2', '--spot'],
    *([f'--accelerators={slice_}'] for slice_ in SLICES),
  ):
    text = rendered('skypilot', *kind, *GCS, *ENV, '--env=A_TOKEN=x')
    task = sky.Task.from_yaml_config(yaml.safe_load(text))
    assert task.envs['XLA_FLAGS'] == ENV[0].partition('XLA_FLAGS=')[2]
    if kind[0].partition('=')[2] in SLICES:
      (resources,) = task.resources
      version = resources.accelerator_args['runtime_version']
      assert version == SLICES[kind[0].partition('=')[2]], (kind, version)
  with sky.Dag() as dag:
    dag.add(task)
  dag_utils.fill_default_config_in_dag_for_job_launch(dag)
  executor = recovery_strategy.StrategyExecutor.make(
    *('cluster', sky.backends.CloudVmRayBackend(), task, 1, 0, None),
    *(set(), None, None),
  )
  for codes, recovers in (
    ([75], True),
    ([75, 137], True),
    ([3], False),
    ([3, 137], False),
    ([137, 1], False),
  ):
    found = executor.should_restart_on_failure(exit_codes=codes)
    assert found == recovers, codes
  return (
    f'sky {sky.__version__} reads GPUs and {len(SLICES)} kinds of slices, '
    'and recovers 75+137 but not 3+137'
  )


# With the software that each kind needs.
SLICES = {
  'tpu-v3-8': 'tpu-ubuntu2204-base',
  'tpu-v4-8': 'tpu-ubuntu2204-base',
  'tpu-v5litepod-16': 'v2-alpha-tpuv5-lite',
  'tpu-v5p-8': 'v2-alpha-tpuv5',
  'tpu-v6e-8': 'v2-alpha-tpuv6e',
}
ENV = ["""--env=XLA_FLAGS=--xla_a=$HOME "x" 'y' $(A)"""]


def vertex():
  """CustomJobSpec, the message that gcloud sends."""
  from google.cloud import aiplatform_v1

  for more in (GCS, [*NFS, '--network=n']):
    text = rendered('vertex', *IMAGE, *VERTEX, *H100, *more, *ENV)
    spec = aiplatform_v1.CustomJobSpec.from_json(
      json.dumps(yaml.safe_load(text)), ignore_unknown_fields=False
    )
    assert spec.scheduling.strategy.name == 'SPOT'
    assert spec.scheduling.restart_job_on_worker_restart
  pools = [pool.replica_count for pool in spec.worker_pool_specs]
  return f'reads as CustomJobSpec, machines {pools}'


def batch():
  """Job, the message that gcloud sends."""
  from google.cloud import batch_v1

  for more in (
    [*A3, *GCS, '--env=A_TOKEN=projects/p/secrets/s/versions/1'],
    [*T4, *NFS],
  ):
    text = rendered('batch', *IMAGE, *BATCH, *more, *ENV)
    job = batch_v1.Job.from_json(text, ignore_unknown_fields=False)
    (instance,) = job.allocation_policy.instances
    assert instance.install_gpu_drivers
  spec = job.task_groups[0].task_spec
  codes = list(spec.lifecycle_policies[0].action_condition.exit_codes)
  assert {75, 77, 50001, 50006} <= set(codes) and not {3, 50005} & set(codes)
  return f'reads as Job, retries {codes} {spec.max_retry_count} times'


XPK = [
  '--cluster=c',
  '--project=p',
  '--zone=us-central1-a',
  '--workdir=/data/r',
]
XPK_ENV = """--env=XLA_FLAGS=--xla_a=$HOME "x" 'y'"""


def xpk():
  """xpk itself, as far as it goes without a cluster."""
  importlib.import_module('xpk')
  found = []
  for kind in (
    ['--tpu_type=v5litepod-16', '--slices=2'],
    ['--device_type=h100-80gb-8', '--nodes=4'],  # GPUDirect-TCPX
    ['--device_type=h100-mega-80gb-8', '--nodes=4'],  # GPUDirect-TCPXO
    ['--device_type=h200-141gb-8', '--nodes=4'],  # RDMA
    ['--device_type=l4-1', '--nodes=2'],
  ):
    (job,) = xpk_manifest(*kind)['spec']['replicatedJobs']
    check_xpk_job(job)
    found.append(f'{kind[0].partition("=")[2]} {replicas(job)}')
  return f'the command arrives whole; hosts: {", ".join(found)}'


def replicas(job):
  return job['replicas'] * job['template']['spec']['parallelism']


def xpk_manifest(*kind):
  """-> the JobSet that xpk makes of the launcher's command."""
  import shlex

  words = shlex.split(dry_run('xpk', *IMAGE, *XPK, *kind, XPK_ENV))
  with tempfile.TemporaryDirectory() as folder:
    manifest = pathlib.Path(folder, 'jobset.yaml')
    subprocess.run(
      [
        sys.executable,
        '-m',
        'xpk.main',
        *words[1:],
        '--dry-run',
        '--skip-validation',
      ]
      + [f'--output-manifest-file={manifest}'],
      check=True,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    return yaml.safe_load(manifest.read_text(encoding='utf-8'))


def check_xpk_job(job):
  """Asserts that codes and words are in it as the launcher meant them."""
  import shlex

  pod = job['template']['spec']
  codes = pod['podFailurePolicy']['rules'][0]['onExitCodes']
  assert codes['operator'] == 'NotIn' and {1, 75} <= set(codes['values'])
  (container,) = pod['template']['spec']['containers']
  # As the shell in the pod gets it, with what it replaces before it runs cdm.
  script = container['command'][-1].replace('$$', '$')
  (line,) = [line for line in script.splitlines() if 'exec env ' in line]
  inside = line.strip().removeprefix('(').partition(') & PID')[0]
  show = shlex.join([sys.executable, '-S', '-c', SHOW])
  said = subprocess.run(
    ['bash', '-c', inside.replace(' cdm train ', f' {show} cdm train ')],
    env={'NNODES': '4', 'NODE_RANK': '1', 'PATH': '/usr/bin:/bin'},
    check=True,
    stdout=subprocess.PIPE,
    encoding='utf-8',
  ).stdout
  words, environment = json.loads(said)
  assert words[:2] == ['cdm', 'train'] and COMMON[1] in words, words
  assert environment['XLA_FLAGS'] == XPK_ENV.partition('XLA_FLAGS=')[2]
  if environment['JAX_PLATFORMS'] == 'cuda':
    assert environment['CDM_PROCESS_ID'] == '1'
    assert pod['parallelism'] > 1
    names = {one['name'] for one in container['env']}
    assert {'JAX_COORDINATOR_ADDRESS', 'JAX_COORDINATOR_PORT'} <= names
    assert {'NNODES', 'NODE_RANK'} <= names


SHOW = (
  'import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))'
)


if __name__ == '__main__':
  main()
