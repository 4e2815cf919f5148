"""A job of Google Cloud Batch, on one machine with all its GPUs.

Batch retries a task whose machine was preempted, at most ten times, and deletes
the machine after the task's end or `--days`. Runs on several machines belong to
gke, slurm, vertex or skypilot: Batch may replace one machine of many, and the
others would not know its address.
"""

from targets import environment
from targets.plan import (
  CACHE,
  FAULT,
  KILLED,
  LOST,
  OPEN_FILES,
  PLATFORMS,
  PREEMPTED,
  SHARED_MEMORY,
  Plan,
  add_image,
  add_storage,
  as_json,
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
from targets.secret_versions import references

# Of Batch itself: the machine was preempted, fell silent, was rebooted, does
# not answer, was made anew; docs.cloud.google.com/batch/docs/troubleshooting
# says of each of them to retry. Not 50005: the time is over.
MACHINE_LOST = (50001, 50002, 50003, 50004, 50006)
RETRIED = (FAULT, PREEMPTED, LOST, *KILLED)
MOST_RETRIES = 10


def arguments(parser):
  """Adds this target's options."""
  add_image(parser)
  parser.add_argument('--location', required=True, metavar='REGION')
  parser.add_argument(
    '--machine_type', required=True, metavar='TYPE', help='e.g. a3-highgpu-8g'
  )
  parser.add_argument(
    '--gpu_type',
    metavar='TYPE',
    help='e.g. nvidia-tesla-t4; not for types that come with GPUs (a3-, g2-)',
  )
  parser.add_argument('--gpus', type=positive, default=1, metavar='N')
  add_storage(parser)
  parser.add_argument('--project', metavar='ID')
  parser.add_argument('--service_account', metavar='EMAIL')
  parser.add_argument('--spot', action='store_true', help='a spot machine')
  parser.add_argument(
    '--days', type=positive, default=7, metavar='N', help='at most; default: 7'
  )
  parser.add_argument(
    '--restarts',
    type=int,
    default=MOST_RETRIES,
    metavar='N',
    help=f'at most, and at most {MOST_RETRIES}; default: {MOST_RETRIES}',
  )


def plan(args):
  """-> a job and its gcloud batch jobs submit."""
  if args.restarts > MOST_RETRIES:
    raise ValueError(
      f'--restarts={args.restarts}: Batch retries at most {MOST_RETRIES} times.'
    )
  point = mount_point(args)
  bucket = bucket_of(args)
  if bucket:
    source = {'gcs': {'remotePath': bucket}}
  else:
    server, _, path = args.storage.partition(':')
    source = {'nfs': {'server': server, 'remotePath': path}}
  gpus = [{'type': args.gpu_type, 'count': args.gpus}] if args.gpu_type else []
  has_gpus = bool(gpus) or comes_with_gpus(args.machine_type)
  account = {'email': args.service_account} if args.service_account else {}
  own = {
    CACHE: cache_folder(args, point),
    PLATFORMS: platforms('cuda' if has_gpus else 'cpu'),
  }
  plain, _ = environment.variables(args, own)
  text = render(
    'batch.json',
    image=as_json(args.image),
    command=as_json(in_image(args)),
    # Batch's container options are split at blanks. A mounted bucket is
    # root's.
    options=as_json(
      f'--user=0:0 --shm-size={SHARED_MEMORY} --stop-timeout=300 '
      f'--ulimit=nofile={OPEN_FILES}:{OPEN_FILES}'
    ),
    variables=as_json(plain),
    secrets=as_json(references(args)),
    mounts=as_json([f'{point}:{point}']),
    volumes=as_json([{**source, 'mountPath': point}]),
    retries=args.restarts,
    retried=as_json([*RETRIED, *MACHINE_LOST]),
    seconds=args.days * 24 * 3600,
    machine_type=as_json(args.machine_type),
    provisioning=as_json('SPOT' if args.spot else 'STANDARD'),
    gpus=as_json(gpus),
    # With the driver, Batch gives containers the GPUs too.
    drivers=as_json(has_gpus),
    account=as_json(account),
  )
  job = f'{args.name}.json'
  options = flags(location=args.location, project=args.project, config=job)
  return Plan(
    [['gcloud', 'batch', 'jobs', 'submit', args.name, *options]], {job: text}
  )
