"""A workload of xpk, on a cluster that xpk made.

xpk writes the JobSet; --storage is what `xpk storage attach` named, mounted
where it was told to, and --workdir lies on it.
"""

from targets.plan import (
  CACHE,
  FAULT,
  JOIN_SECONDS,
  LOST,
  PREEMPTED,
  Plan,
  add_image,
  as_shell_words,
  cache_folder,
  flags,
  in_image,
  positive,
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
  # xpk puts the words into a shell in a pod: Kubernetes turns $$ into $ first.
  # exec, so that the signal xpk sends to the shell's child reaches cdm.
  words = ['env', f'CDM_JOIN_SECONDS={JOIN_SECONDS}']
  if cache_folder(args):
    words.append(f'{CACHE}={cache_folder(args)}')
  words += in_image(args)
  inside = 'exec ' + as_shell_words(words).replace('$', '$$')
  options = flags(
    cluster=args.cluster,
    workload=args.name,
    tpu_type=args.tpu_type,
    device_type=args.device_type,
    num_slices=args.slices,
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
