"""A workload of xpk, on a cluster that xpk made.

xpk writes the JobSet; --storage is what `xpk storage attach` named, mounted
where it was told to, and --workdir lies on it.
"""

import re
import shlex

from targets import environment
from targets.plan import (
  CACHE,
  FAULT,
  JOIN_SECONDS,
  LOST,
  PLATFORMS,
  PREEMPTED,
  Plan,
  add_image,
  cache_folder,
  escaped_word,
  flags,
  in_image,
  platforms,
  positive,
)

# What xpk tells the pods of a GPU's workload of each other, as cdm wants it.
HERE = (
  'CDM_COORDINATOR_ADDRESS=$JAX_COORDINATOR_ADDRESS:$JAX_COORDINATOR_PORT',
  'CDM_NUM_PROCESSES=$NNODES',
  'CDM_PROCESS_ID=$NODE_RANK',
)
# Between machines of H100s and newer GPUs, NCCL is fast with the plugin that
# their nodes have and xpk mounts. Its own script says with which settings: gIB
# for RDMA (H200, B200), FasTrak for GPUDirect-TCPXO (H100 Mega). Without such a
# script nothing changes.
NCCL = (
  'export NCCL_LIB_DIR=/usr/local/nvidia/lib64 '
  'LD_LIBRARY_PATH=/usr/local/gib/lib64:/usr/local/nvidia/lib64; '
  'for f in /usr/local/gib/scripts/set_nccl_env.sh '
  '/usr/local/nvidia/lib64/nccl-env-profile.sh; '
  'do [ ! -r $f ] || . $f; done; '
)


def arguments(parser):
  """Adds this target's options."""
  add_image(parser)
  parser.add_argument('--cluster', required=True, metavar='NAME')
  kind = parser.add_mutually_exclusive_group(required=True)
  kind.add_argument('--tpu_type', metavar='TYPE', help='e.g. v5litepod-256')
  kind.add_argument('--device_type', metavar='TYPE', help='e.g. h100-80gb-8')
  parser.add_argument(
    '--slices', type=positive, metavar='N', help='of a TPU; default: 1'
  )
  parser.add_argument(
    '--nodes', type=positive, metavar='N', help='of a GPU; default: 1'
  )
  parser.add_argument('--project', metavar='ID')
  parser.add_argument('--zone', metavar='ZONE')
  parser.add_argument(
    '--storage', metavar='NAME', help='attached to the cluster'
  )
  parser.add_argument('--priority', metavar='LEVEL', help='very-low..very-high')
  parser.add_argument('--spot', action='store_true', help='autoprovision spot')
  parser.add_argument(
    '--restarts', type=int, default=50, metavar='N', help='at most; default: 50'
  )


def plan(args):
  """-> xpk workload create."""
  environment.refuse_secrets(
    args,
    'xpk writes variables into the JobSet, which everyone reads who may list '
    'the workloads of the cluster. Use the target gke, which makes a Secret, '
    'or a file on the storage.',
  )
  if args.tpu_type and args.nodes:
    raise ValueError(f'--nodes={args.nodes} is for GPUs; TPUs have --slices.')
  kind = kind_of(args)
  own = {
    'CDM_JOIN_SECONDS': JOIN_SECONDS,
    CACHE: cache_folder(args),
    PLATFORMS: platforms(kind),
  }
  plain, _ = environment.variables(args, own)
  given = [f'{name}={value}' for name, value in plain.items()]
  words = ['env', *(HERE if kind == 'cuda' else ())]
  words += [quoted(word) for word in (*given, *in_image(args))]
  # xpk puts the words into a shell in a pod. exec, so that the signal xpk sends
  # to the shell's child reaches cdm. Kubernetes turns $$ into $ first.
  before = NCCL if kind == 'cuda' else ''
  inside = f'{before}exec {" ".join(words)}'.replace('$', '$$')
  options = flags(
    cluster=args.cluster,
    workload=args.name,
    tpu_type=args.tpu_type,
    device_type=args.device_type,
    num_slices=args.slices,
    num_nodes=args.nodes,
    project=args.project,
    zone=args.zone,
    storage=args.storage,
    priority=args.priority,
    spot=args.spot,
    docker_image=args.image,
    max_restarts=args.restarts,
    # Killed processes are restarted anyway; 1 is who outlives one.
    restart_on_exit_codes=f'{FAULT},{PREEMPTED},{LOST}',
    termination_grace_period_seconds=300,
    command=inside,
  )
  return Plan([['xpk', 'workload', 'create', *options]])


def kind_of(args):
  """-> what JAX calls the devices: 'tpu', 'cuda' or 'cpu'."""
  type_ = args.tpu_type or args.device_type
  if args.tpu_type or re.match(r'v\d|tpu', type_):
    return 'tpu'
  # xpk's CPUs are named like machines, e.g. n2-standard-64-256.
  return 'cpu' if re.search('-(standard|megamem)-', type_) else 'cuda'


def quoted(word):
  """-> the word as bash reads it back.

  xpk also writes the command of a GPU's workload into a string of YAML in
  double quotes, unescaped.
  """
  plain = word.isprintable() and not re.search(r'["\'\\]', word)
  return shlex.quote(word) if plain else escaped_word(word)
