"""A custom job of Vertex AI, on one or several machines with GPUs.

Vertex AI starts a job again whose spot machines were taken away, up to six
times, and one that ended with 134 or 139, up to three times; the image ends so
where another start may mend the run, see vertex_join.py. It ends the job, and
its machines, after any other code and after `--days`. It mounts buckets of the
project as /gcs/BUCKET by itself.
"""

from targets import environment
from targets.plan import (
  CACHE,
  JOIN_SECONDS,
  PLATFORMS,
  Plan,
  add_image,
  add_storage,
  as_yaml,
  bucket_of,
  cache_folder,
  comes_with_gpus,
  flags,
  in_image,
  mount_point,
  platforms,
  positive,
  render,
)

STRATEGIES = {True: 'SPOT', False: 'STANDARD'}


def arguments(parser):
  """Adds this target's options."""
  add_image(parser)
  parser.add_argument('--region', required=True, metavar='REGION')
  parser.add_argument(
    '--machine_type', required=True, metavar='TYPE', help='e.g. a3-highgpu-8g'
  )
  parser.add_argument(
    '--accelerator_type', metavar='TYPE', help='e.g. NVIDIA_H100_80GB'
  )
  parser.add_argument(
    '--accelerator_count', type=positive, metavar='N', help='per machine'
  )
  add_storage(parser)
  parser.add_argument(
    '--nodes', type=positive, default=1, metavar='N', help='default: 1'
  )
  parser.add_argument('--project', metavar='ID')
  parser.add_argument('--service_account', metavar='EMAIL')
  parser.add_argument('--network', metavar='NAME', help='needed for NFS')
  parser.add_argument('--spot', action='store_true', help='spot machines')
  parser.add_argument(
    '--days', type=positive, default=7, metavar='N', help='at most; default: 7'
  )


def plan(args):
  """-> a job and its gcloud ai custom-jobs create."""
  if (args.accelerator_type is None) != (args.accelerator_count is None):
    raise ValueError(
      '--accelerator_type and --accelerator_count go together, or neither.'
    )
  if not args.accelerator_type and comes_with_gpus(args.machine_type):
    # The job would be one for CPUs, beside idle GPUs.
    raise ValueError(
      f'--machine_type={args.machine_type} has GPUs; name them with '
      '--accelerator_type and --accelerator_count, e.g. NVIDIA_H100_80GB and 8.'
    )
  point = mount_point(args)
  machine = {'machineType': args.machine_type}
  if args.accelerator_type:
    machine['acceleratorType'] = args.accelerator_type
    machine['acceleratorCount'] = args.accelerator_count
  words = in_image(args)
  environment.refuse_secrets(
    args,
    'Whoever may see the job reads its variables, and Vertex AI has no others. '
    'Let the run read it from a file on the storage.',
  )
  own = {
    CACHE: cache_folder(args, point),
    PLATFORMS: platforms('cuda' if args.accelerator_type else 'cpu'),
    'CDM_JOIN_SECONDS': JOIN_SECONDS if args.nodes > 1 else None,
  }
  plain, _ = environment.variables(args, own)
  pool = {
    'machineSpec': machine,
    'containerSpec': {
      'imageUri': args.image,
      'command': ['python', '/cdm/launch/vertex_join.py', *words],
      # Vertex AI replaces $(NAME), as Kubernetes does.
      'env': [
        {'name': name, 'value': value.replace('$', '$$')}
        for name, value in plain.items()
      ],
    },
  }
  if bucket_of(args) is None:
    server, _, path = args.storage.partition(':')
    mount = {'server': server, 'path': path, 'mountPoint': point}
    pool['nfsMounts'] = [mount]
  # The first pool is of one machine always; the others are in the second.
  pools = [{**pool, 'replicaCount': 1}]
  if args.nodes > 1:
    pools.append({**pool, 'replicaCount': args.nodes - 1})
  text = render(
    'vertex.yaml',
    pools='\n'.join(f'- {as_yaml(pool)}' for pool in pools),
    strategy=STRATEGIES[args.spot],
    seconds=args.days * 24 * 3600,
    service_account=as_yaml(args.service_account or ''),
    network=as_yaml(args.network or ''),
  )
  job = f'{args.name}.yaml'
  options = flags(
    region=args.region,
    project=args.project,
    display_name=args.name,
    config=job,
  )
  return Plan(
    [['gcloud', 'ai', 'custom-jobs', 'create', *options]], {job: text}
  )
