"""A JobSet on Google Kubernetes Engine, queued by Kueue: TPU slices or GPUs.

TPU: --tpu and --topology, as the labels of the node pool say. GPU: --gpu and
--nodes. The whole set starts again when a pod was preempted or its node lost,
and ends at bad input, NaN, data errors and lack of memory.
"""

import math
import re

from targets import environment
from targets.plan import (
  CACHE,
  FINAL,
  JOIN_SECONDS,
  NEVER_JOINED,
  PLATFORMS,
  Plan,
  add_image,
  add_storage,
  as_yaml,
  bucket_of,
  cache_folder,
  flags,
  in_image,
  mount_point,
  platforms,
  positive,
  render,
)

PORT = 8476


def arguments(parser):
  """Adds this target's options."""
  add_image(parser)
  add_storage(parser)
  kind = parser.add_mutually_exclusive_group(required=True)
  kind.add_argument('--tpu', metavar='TYPE', help='e.g. tpu-v5-lite-podslice')
  kind.add_argument('--gpu', metavar='TYPE', help='e.g. nvidia-h100-80gb')
  parser.add_argument('--topology', metavar='AxB', help='of one TPU slice')
  parser.add_argument(
    '--chips_per_host', type=positive, default=4, metavar='N', help='default: 4'
  )
  parser.add_argument(
    '--slices', type=positive, default=1, metavar='N', help='TPU; default: 1'
  )
  parser.add_argument(
    '--nodes', type=positive, default=1, metavar='N', help='GPU; default: 1'
  )
  parser.add_argument(
    '--gpus_per_node', type=positive, default=8, metavar='N', help='default: 8'
  )
  parser.add_argument('--queue', metavar='NAME', help="Kueue's LocalQueue")
  parser.add_argument('--namespace', default='default', help='default: default')
  parser.add_argument(
    '--service_account', default='default', help='may use the bucket'
  )
  parser.add_argument('--spot', action='store_true', help='on spot nodes')
  parser.add_argument(
    '--restarts', type=int, default=50, metavar='N', help='at most; default: 50'
  )


def plan(args):
  """-> a manifest and its kubectl apply."""
  # Kubernetes replaces $(NAME) in a command; $$ stands for $.
  words = [word.replace('$', '$$') for word in in_image(args)]
  volume, annotations = storage(args)
  lines, secret = container_variables(args)
  shared = {
    'name': args.name,
    'namespace': as_yaml(args.namespace),
    'labels': as_yaml(
      {'kueue.x-k8s.io/queue-name': args.queue} if args.queue else {}
    ),
    'annotations': as_yaml(annotations),
    'restarts': args.restarts,
    'variables': lines,
    'secrets': as_yaml([{'secretRef': {'name': secret}}] if secret else []),
    'final': as_yaml([*FINAL, NEVER_JOINED]),
    'image': as_yaml(args.image),
    'command': as_yaml(words),
    'service_account': as_yaml(args.service_account),
    'volume': as_yaml(volume),
    'mount': as_yaml(mount_point(args)),
  }
  text = tpu(args, shared) if args.tpu else gpu(args, shared)
  manifest = f'{args.name}.yaml'
  note = (
    f'watch: kubectl logs --follow -n {args.namespace} '
    f'-l jobset.sigs.k8s.io/jobset-name={args.name}'
  )
  files = {manifest: text}
  if secret:
    files = {f'{secret}.yaml': secret_object(args, secret), **files}
    note += (
      f'\nafter the run: kubectl delete secret -n {args.namespace} {secret}'
    )
  if args.gpu and args.nodes > 1:
    note += (
      '\nBetween H100s and newer GPUs use the target xpk: this manifest sets '
      'up no GPUDirect,\nwithout which the nodes talk over TCP.'
    )
  apply = [['kubectl', 'apply', *flags(filename=name)] for name in files]
  return Plan(apply, files, note)


def container_variables(args):
  """-> (lines of YAML for `env`, name of the Secret with the others or None).

  Kubernetes replaces $(NAME) in a value too.
  """
  own = {
    'CDM_JOIN_SECONDS': JOIN_SECONDS,
    CACHE: cache_folder(args, mount_point(args)),
    PLATFORMS: platforms('tpu' if args.tpu else 'cuda'),
  }
  if args.gpu:
    # Pods of a JobSet find each other by such names.
    own['CDM_COORDINATOR_ADDRESS'] = f'{args.name}-node-0-0.{args.name}:{PORT}'
  plain, secret = environment.variables(args, own)
  lines = [
    f'- {as_yaml({"name": name, "value": value.replace("$", "$$")})}'
    for name, value in plain.items()
  ]
  indent = '\n' + ' ' * 14
  return indent.join(lines), f'{args.name}-env' if secret else None


def secret_object(args, name):
  """-> manifest of a Secret: whoever may list JobSets need not read it."""
  _, secret = environment.variables(args, {})
  return render(
    'gke_secret.yaml',
    name=name,
    namespace=as_yaml(args.namespace),
    values=as_yaml(secret),
  )


def tpu(args, shared):
  """-> manifest for TPU slices."""
  if not re.fullmatch(r'\d+x\d+(x\d+)?', args.topology or ''):
    raise ValueError(
      f'--topology={args.topology}: --tpu needs the shape of one slice, e.g. '
      '4x4 or 2x2x4.'
    )
  chips = math.prod(int(side) for side in args.topology.split('x'))
  if chips % args.chips_per_host:
    raise ValueError(
      f'--topology={args.topology} has {chips} chips, which hosts of '
      f'--chips_per_host={args.chips_per_host} do not divide.'
    )
  selector = {
    'cloud.google.com/gke-tpu-accelerator': args.tpu,
    'cloud.google.com/gke-tpu-topology': args.topology,
  }
  return render(
    'gke_tpu.yaml',
    **shared,
    slices=args.slices,
    hosts=chips // args.chips_per_host,
    chips=args.chips_per_host,
    node_selector=as_yaml(with_spot(args, selector)),
    tolerations=as_yaml(tolerations(args, 'google.com/tpu')),
  )


def gpu(args, shared):
  """-> manifest for GPU nodes."""
  selector = {'cloud.google.com/gke-accelerator': args.gpu}
  return render(
    'gke_gpu.yaml',
    **shared,
    nodes=args.nodes,
    gpus=args.gpus_per_node,
    node_selector=as_yaml(with_spot(args, selector)),
    tolerations=as_yaml(tolerations(args, 'nvidia.com/gpu')),
  )


def storage(args):
  """-> (volume, annotations of the pod)."""
  mount_point(args)
  bucket = bucket_of(args)
  if bucket is None:
    server, _, path = args.storage.partition(':')
    return {'name': 'storage', 'nfs': {'server': server, 'path': path}}, {}
  attributes = {
    'bucketName': bucket,
    'mountOptions': 'implicit-dirs,uid=1000,gid=1000',
  }
  if args.tpu:
    # On the host's network the mount has the identity of the node, unless it
    # asks for that of the pod.
    attributes['hostNetworkPodKSA'] = 'true'
  driver = {'driver': 'gcsfuse.csi.storage.gke.io'}
  driver['volumeAttributes'] = attributes
  annotations = {'gke-gcsfuse/volumes': 'true'}
  # Zero lifts the limits of the container that serves the mount: 0.25 of a
  # core and 256 MiB, for all that eight GPUs read.
  for what in ('cpu', 'memory', 'ephemeral-storage'):
    annotations[f'gke-gcsfuse/{what}-limit'] = '0'
  return {'name': 'storage', 'csi': driver}, annotations


def with_spot(args, selector):
  if not args.spot:
    return selector
  return {**selector, 'cloud.google.com/gke-spot': 'true'}


def tolerations(args, resource):
  taints = [{'key': resource, 'operator': 'Exists'}]
  if args.spot:
    taints += [{'key': 'cloud.google.com/gke-spot', 'operator': 'Exists'}]
  return taints
