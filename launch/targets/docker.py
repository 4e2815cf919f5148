"""A container on this machine, or the image for the other targets.

With --push it builds and pushes the image and runs nothing.
"""

import pathlib

from targets import environment
from targets.plan import (
  CACHE,
  OPEN_FILES,
  PLATFORMS,
  ROOT,
  SHARED_MEMORY,
  Plan,
  in_bucket,
  in_image,
  platforms,
)

# What a container needs to see its accelerators.
DEVICES = {
  'cpu': [],
  'cuda': ['--gpus=all'],
  'cuda12': ['--gpus=all'],
  # A TPU's devices belong to root.
  'tpu': ['--privileged', '--network=host', '--user=0:0'],
}


def arguments(parser):
  """Adds this target's options."""
  parser.add_argument(
    '--extra', choices=DEVICES, default='cpu', help='accelerator; default: cpu'
  )
  parser.add_argument(
    '--tag',
    metavar='IMAGE',
    help='default: cdm; REGISTRY/... to push. Without :TAG it gets that of the '
    'accelerator and the commit',
  )
  parser.add_argument(
    '--push', action='store_true', help='build and push, run nothing'
  )
  parser.add_argument(
    '--volume',
    action='append',
    default=[],
    metavar='HOST:CONTAINER[:ro]',
    help='e.g. the data; repeatable. The work directory is always seen',
  )
  parser.add_argument(
    '--restarts', type=int, default=50, metavar='N', help='at most; default: 50'
  )


def plan(args):
  """-> docker build, then push or run."""
  plain, secret = environment.variables(args, {})
  if args.push and (plain or secret):
    raise ValueError('--env: --push builds and pushes, and runs nothing.')
  tag = tag_of(args)
  build = ['docker', 'build', f'--file={ROOT / "launch" / "Dockerfile"}']
  build.append(f'--build-arg=EXTRA={args.extra}')
  build += [f'--build-arg=COMMIT={args.commit}'] if args.commit else []
  build += [f'--tag={tag}', str(ROOT)]
  if args.push:
    note = f'for the other targets: --image={tag}'
    return Plan([build, ['docker', 'push', tag]], note=note)
  # The daemon would make a missing folder as root, and the run, which is not
  # root, could not write into it.
  make = []
  if args.workdir and not in_bucket(args.workdir):
    make = [['mkdir', '-p', workdir_of(args)]]
  return Plan([*make, build, run_line(args, tag)], environment=secret)


def tag_of(args):
  """-> name of the image, with a tag that another commit does not have.

  Machines keep an image that they have seen under its name, so that a fixed tag
  may run old code.
  """
  image = args.tag or 'cdm'
  if any(mark in image.rpartition('/')[2] for mark in ':@'):
    return image
  return f'{image}:{args.extra}' + (f'-{args.commit}' if args.commit else '')


def workdir_of(args):
  """-> absolute path or URL of the work directory, inside as outside."""
  if in_bucket(args.workdir):
    return args.workdir
  return str(pathlib.Path(args.here, args.workdir).resolve())


def run_line(args, tag):
  """-> docker run; the launcher inside starts again what was preempted."""
  words = in_image(args)
  volumes, cache = list(args.volume), None
  if args.workdir:
    workdir = workdir_of(args)
    words[words.index(f'--workdir={args.workdir}')] = f'--workdir={workdir}'
    if not in_bucket(workdir):
      volumes.insert(0, f'{workdir}:{workdir}')
    cache = f'{workdir.rstrip("/")}/compilation_cache'
  run = ['docker', 'run', '--rm', '--init', f'--name={args.name}']
  # Time to save.
  run += ['--stop-timeout=300', f'--shm-size={SHARED_MEMORY}']
  run.append(f'--ulimit=nofile={OPEN_FILES}:{OPEN_FILES}')
  run += DEVICES[args.extra]
  if args.extra != 'tpu':
    run.append(f'--user={args.user}')
  run += [f'--volume={volume}' for volume in volumes]
  kind = 'cuda' if args.extra == 'cuda12' else args.extra
  own = {CACHE: cache, PLATFORMS: platforms(kind)}
  plain, secret = environment.variables(args, own)
  run += [f'--env={name}={value}' for name, value in plain.items()]
  # Docker takes these values from its own environment.
  run += [f'--env={name}' for name in secret]
  inside = ['python', 'launch/launch.py', 'local', '--python=python']
  inside += [f'--restarts={args.restarts}', *launcher_words(words[1:])]
  return [*run, tag, *inside]


def launcher_words(words):
  """cdm's words -> the launcher's: its own options first, the rest behind --"""
  own = [w for w in words[1:] if w.startswith(('--config', '--workdir='))]
  rest = [w for w in words[1:] if w not in own]
  return [f'--command={words[0]}', *own, *(['--', *rest] if rest else [])]
