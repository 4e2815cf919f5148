"""A container on this machine, or the image for the other targets.

With --push it builds and pushes the image and runs nothing.
"""

import os
import pathlib

from targets.plan import (
  CACHE,
  OPEN_FILES,
  ROOT,
  SHARED_MEMORY,
  Plan,
  in_image,
)

# What a container needs to see its accelerators.
DEVICES = {
  'cpu': [],
  'cuda': ['--gpus=all'],
  # A TPU's devices belong to root.
  'tpu': ['--privileged', '--network=host', '--user=0:0'],
}


def arguments(parser):
  """Adds this target's options."""
  parser.add_argument(
    '--extra', choices=DEVICES, default='cpu', help='accelerator; default: cpu'
  )
  parser.add_argument(
    '--tag', metavar='IMAGE', help='default: cdm:EXTRA; REGISTRY/... to push'
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
  tag = args.tag or f'cdm:{args.extra}'
  build = ['docker', 'build', f'--file={ROOT / "launch" / "Dockerfile"}']
  build += [f'--build-arg=EXTRA={args.extra}', f'--tag={tag}', str(ROOT)]
  if args.push:
    return Plan([build, ['docker', 'push', tag]])
  # The daemon would make a missing folder as root, and the run, which is not
  # root, could not write into it.
  make = [['mkdir', '-p', workdir_of(args)]] if args.workdir else []
  return Plan([*make, build, run_line(args, tag)])


def workdir_of(args):
  """-> absolute path of the work directory, inside as outside."""
  return str(pathlib.Path(args.workdir).resolve())


def run_line(args, tag):
  """-> docker run; the launcher inside starts again what was preempted."""
  words = in_image(args)
  volumes, cache = list(args.volume), None
  if args.workdir:
    workdir = workdir_of(args)
    words[words.index(f'--workdir={args.workdir}')] = f'--workdir={workdir}'
    volumes.insert(0, f'{workdir}:{workdir}')
    cache = f'{workdir}/compilation_cache'
  run = ['docker', 'run', '--rm', '--init', f'--name={args.name}']
  # Time to save.
  run += ['--stop-timeout=300', f'--shm-size={SHARED_MEMORY}']
  run.append(f'--ulimit=nofile={OPEN_FILES}:{OPEN_FILES}')
  run += DEVICES[args.extra]
  if args.extra != 'tpu':
    run.append(f'--user={os.getuid()}:{os.getgid()}')
  run += [f'--volume={volume}' for volume in volumes]
  run += [f'--env={CACHE}={cache}'] if cache else []
  inside = ['python', 'launch/launch.py', 'local', '--python=python']
  inside += [f'--restarts={args.restarts}', *launcher_words(words[1:])]
  return [*run, tag, *inside]


def launcher_words(words):
  """cdm's words -> the launcher's: its own options first, the rest behind --"""
  own = [w for w in words[1:] if w.startswith(('--config', '--workdir='))]
  rest = [w for w in words[1:] if w not in own]
  return [f'--command={words[0]}', *own, *(['--', *rest] if rest else [])]
