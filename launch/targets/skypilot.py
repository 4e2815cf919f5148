"""A managed job of SkyPilot, on whichever cloud has the machines.

The checkout is copied to them; the run is recovered when a machine was taken
away, or when it ended with 75 (preempted), 77 (lost a machine), 1 (a fault) or
was killed.
"""

from targets.plan import (
  CACHE,
  FAULT,
  KILLED,
  LOST,
  PREEMPTED,
  ROOT,
  Plan,
  add_storage,
  as_shell_word,
  as_shell_words,
  as_yaml,
  bucket_of,
  cache_folder,
  in_image,
  mount_point,
  positive,
  render,
)


def arguments(parser):
  """Adds this target's options."""
  parser.add_argument(
    '--accelerators',
    required=True,
    metavar='TYPE:N',
    help='per node, e.g. H100:8 or tpu-v5litepod-16',
  )
  add_storage(parser)
  parser.add_argument(
    '--nodes', type=positive, default=1, metavar='N', help='GPU; default: 1'
  )
  parser.add_argument('--infra', metavar='CLOUD', help='e.g. gcp/us-central1')
  parser.add_argument('--spot', action='store_true', help='spot machines')
  parser.add_argument(
    '--restarts',
    type=int,
    default=50,
    metavar='N',
    help='after errors, at most; preemptions do not count; default: 50',
  )


def plan(args):
  """-> a task and its sky jobs launch."""
  bucket = bucket_of(args)
  if bucket is None:
    raise ValueError(
      f'--storage={args.storage}: SkyPilot mounts buckets alone; say gs://...'
    )
  point = mount_point(args)
  tpu = args.accelerators.startswith('tpu-')
  if tpu and args.nodes > 1:
    raise ValueError(
      f'--nodes={args.nodes}: a TPU slice is one node to SkyPilot; name a '
      'larger one in --accelerators instead.'
    )
  text = render(
    'skypilot.yaml',
    name=args.name,
    workdir=as_yaml(str(ROOT)),
    nodes=args.nodes,
    accelerators=as_yaml(args.accelerators),
    infra=as_yaml(args.infra),
    spot=as_yaml(args.spot),
    restarts=args.restarts,
    retried=as_yaml([FAULT, PREEMPTED, LOST, *KILLED]),
    mounts=as_yaml({point: {'source': f'gs://{bucket}', 'mode': 'MOUNT'}}),
    cache=as_shell_word(f'{CACHE}={cache_folder(args, point)}'),
    extra='tpu' if tpu else 'cuda',
    command=as_shell_words(in_image(args)),
  )
  task = f'{args.name}.yaml'
  return Plan([['sky', 'jobs', 'launch', '--yes', task]], {task: text})
