"""A TPU slice from Google Cloud, asked for as a queued resource.

Every host of the slice runs the image at each boot and starts again what was
preempted. The launcher stays: it reports, asks for a new slice when this one
was taken away, and deletes it when the run is complete. It can be ended and
started again at any time; the slice goes on.
"""

from targets.plan import (
  CACHE,
  FINAL,
  NEVER_JOINED,
  OPEN_FILES,
  SHARED_MEMORY,
  Plan,
  add_image,
  add_storage,
  as_shell_word,
  as_shell_words,
  cache_folder,
  flags,
  in_image,
  mount_point,
  positive,
  render,
)
from targets.tpu_runtimes import runtime


def arguments(parser):
  """Adds this target's options."""
  add_image(parser)
  parser.add_argument(
    '--type', required=True, metavar='TYPE', help='e.g. v5litepod-256, v3-256'
  )
  parser.add_argument('--zone', required=True, metavar='ZONE')
  add_storage(parser)
  parser.add_argument('--project', metavar='ID')
  parser.add_argument('--runtime', metavar='VERSION', help='default: by type')
  parser.add_argument('--spot', action='store_true', help='may be taken away')
  parser.add_argument('--network', metavar='NAME')
  parser.add_argument('--service_account', metavar='EMAIL')
  parser.add_argument(
    '--valid_until', metavar='DURATION', help='wait no longer, e.g. 6h'
  )
  parser.add_argument(
    '--poll_seconds', type=positive, default=60, metavar='S', help='default: 60'
  )
  parser.add_argument(
    '--restarts',
    type=int,
    default=50,
    metavar='N',
    help='of the slice, and of the run on one; at most; default: 50',
  )


def plan(args):
  """-> what the hosts run, what watches over them, and its start."""
  startup = render(
    'tpu_vm_host.sh',
    storage=as_shell_word(args.storage.rstrip('/')),
    mount=as_shell_word(mount_point(args)),
    image=as_shell_word(args.image),
    cache=as_shell_word(f'{CACHE}={cache_folder(args, mount_point(args))}'),
    store=as_shell_word(args.image.partition('/')[0]),
    restarts=args.restarts,
    shared_memory=SHARED_MEMORY,
    open_files=OPEN_FILES,
    never_joined=NEVER_JOINED,
    final='|'.join(str(code) for code in (0, *FINAL)),
    command=as_shell_words(in_image(args)),
  )
  host = f'{args.name}-host.sh'
  create = flags(
    node_id=args.name,
    accelerator_type=args.type,
    runtime_version=args.runtime or runtime(args.type),
    spot=args.spot,
    network=args.network,
    service_account=args.service_account,
    scopes='cloud-platform',
    valid_until_duration=args.valid_until,
    metadata_from_file=f'startup-script={host}',
  )
  watch = render(
    'tpu_vm_watch.sh',
    name=args.name,
    where=as_shell_words(flags(zone=args.zone, project=args.project)),
    create=' \\\n    '.join(as_shell_word(word) for word in create),
    restarts=args.restarts,
    poll_seconds=args.poll_seconds,
  )
  script = f'{args.name}-watch.sh'
  return Plan([['bash', script]], {host: startup, script: watch})
