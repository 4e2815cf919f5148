"""A TPU slice from Google Cloud, asked for as a queued resource.

Every host of the slice runs the image at each boot and starts again what was
preempted. The launcher stays: it reports, asks for a new slice when this one
was taken away, and deletes it when the run is complete. It can be ended and
started again at any time; the slice goes on, and host 0 deletes it a while
after the end of the run. The Cloud TPU API, which this target uses, receives
fixes only; tpu7x and what follows is for the target gke.
"""

from targets import environment
from targets.plan import (
  CACHE,
  FINAL,
  JOIN_SECONDS,
  NEVER_JOINED,
  OPEN_FILES,
  PLATFORMS,
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
  platforms,
  positive,
  render,
)
from targets.secret_versions import references
from targets.tpu_runtimes import runtime

# A host without its storage, its secrets or its image; EX_UNAVAILABLE of
# sysexits.h. It is also how a wait for a slice ends in vain.
UNAVAILABLE = 69
# Mounting and pulling: repeated every 20 seconds, since the network and apt
# may not be ready after a boot, for no longer than hosts may boot apart.
PREPARE_TRIES = 30
PREPARE_SECONDS = JOIN_SECONDS
# Failed requests in a row, where nobody said how long one may wait.
FAILURES = 3
# Of a slice that is there and whose host 0 cannot be reached, in all.
SILENT_SECONDS = 3600
# After the end of a run the launcher has that long to delete the slice, and at
# least three looks; then host 0 does it.
GRACE_SECONDS = 900


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
    help='of a slice that was taken away, and of the run on one; default: 50',
  )
  parser.add_argument(
    '--requests',
    type=positive,
    default=100,
    metavar='N',
    help='for a slice, in all, whether granted or not; default: 100',
  )


def plan(args):
  """-> what the hosts run, what watches over them, and its start."""
  point = mount_point(args)
  where = as_shell_words(flags(zone=args.zone, project=args.project))
  plain, _ = environment.variables(
    args, {CACHE: cache_folder(args, point), PLATFORMS: platforms('tpu')}
  )
  secrets = [f'{name}={value}' for name, value in references(args).items()]
  startup = render(
    'tpu_vm_host.sh',
    name=args.name,
    where=where,
    storage=as_shell_word(args.storage.rstrip('/')),
    mount=as_shell_word(point),
    image=as_shell_word(args.image),
    environment=as_shell_words(
      f'--env={name}={value}' for name, value in plain.items()
    ),
    secrets=as_shell_words(secrets),
    store=as_shell_word(args.image.partition('/')[0]),
    prepare_tries=PREPARE_TRIES,
    prepare_seconds=PREPARE_SECONDS,
    unavailable=UNAVAILABLE,
    grace_seconds=max(GRACE_SECONDS, 3 * args.poll_seconds),
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
    where=where,
    create=' \\\n    '.join(as_shell_word(word) for word in create),
    valid_until=as_shell_word(args.valid_until or ''),
    restarts=args.restarts,
    requests=args.requests,
    failures=FAILURES,
    unavailable=UNAVAILABLE,
    silent_seconds=SILENT_SECONDS,
    poll_seconds=args.poll_seconds,
  )
  script = f'{args.name}-watch.sh'
  return Plan([['bash', script]], {host: startup, script: watch})
