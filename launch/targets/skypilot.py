"""A managed job of SkyPilot, on whichever cloud has the machines.

The checkout is copied to them. SkyPilot recovers the run when a machine was
taken away, or when it ended with 75 (preempted). What ended with 77 (lost a
machine), 1 (a fault) or was killed starts again where it is, at most
`--restarts` times; every other end is final.
"""

from targets import environment
from targets.plan import (
  CACHE,
  FINAL,
  NEVER_JOINED,
  PLATFORMS,
  PREEMPTED,
  ROOT,
  Plan,
  add_storage,
  as_shell_words,
  as_yaml,
  bucket_of,
  cache_folder,
  in_image,
  mount_point,
  platforms,
  positive,
  render,
)
from targets.tpu_runtimes import RUNTIMES

# After these codes the run does not start again on the machines where it is:
# it would end so again, or SkyPilot finds it other machines.
ENDS = (0, *FINAL, PREEMPTED, NEVER_JOINED)


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
    help='in place, at most; preemptions do not count; default: 50',
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
  kind = 'tpu' if tpu else 'cuda'
  own = {CACHE: cache_folder(args, point), PLATFORMS: platforms(kind)}
  plain, secret = environment.variables(args, own)
  text = render(
    'skypilot.yaml',
    name=args.name,
    workdir=as_yaml(str(ROOT)),
    nodes=args.nodes,
    accelerators=as_yaml(args.accelerators),
    accelerator_args=accelerator_args(args.accelerators),
    infra=as_yaml(args.infra),
    spot=as_yaml(args.spot),
    restarts=args.restarts,
    ends='|'.join(str(code) for code in ENDS),
    recovered=as_yaml([PREEMPTED]),
    mounts=as_yaml({point: {'source': f'gs://{bucket}', 'mode': 'MOUNT'}}),
    envs=as_yaml({**plain, 'CDM_EXTRA': kind}),
    secrets=as_yaml(secret),
    command=as_shell_words(in_image(args)),
  )
  task = f'{args.name}.yaml'
  return Plan([['sky', 'jobs', 'launch', '--yes', task]], {task: text})


def accelerator_args(accelerators):
  """-> a line of the task: what SkyPilot needs besides the name of a slice.

  SkyPilot's own default is the software of v5p for v5e too, which has another,
  and one that is older than Ubuntu 22.04 for v2 to v4. GPUs need none, nor do
  slices of GKE, which have names of their own (tpu-v5-lite-podslice).
  """
  kind = accelerators.removeprefix('tpu-').partition('-')[0]
  if not accelerators.startswith('tpu-') or kind not in RUNTIMES:
    return ''
  version = as_yaml({'runtime_version': RUNTIMES[kind]})
  return f'  accelerator_args: {version}\n'
