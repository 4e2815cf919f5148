"""`cdm serve` opens a page that enlarges pictures, or draws from a cascade."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from cdm.cli import drawing_flags, serving_flags

if TYPE_CHECKING:
  from cdm.cli.web.enlarging.serving_limits import ServingLimits

DESCRIPTION = """\
Open a page in the browser of this machine. Drop a picture on it: a part is
enlarged at once, by interpolation, as the model's mean and as several of its
draws, which can be compared at full size; then the whole picture, into the file
that `cdm upscale` would write. With --samples the page draws images from a
cascade, by class, seed and guidance, stage beside stage.

Pictures stay on this machine, in a folder that only you can read. They are
erased an hour after their last use, and when the command ends.
docs/serve.md says what is stored, what the limits are, and how the page is
protected. It needs the extra `web`.
"""
EPILOG = """\
examples:
  cdm serve --workdir=runs/photos/sr
  cdm serve --workdir=photo.safetensors --port=8000 --no_browser
  cdm serve --workdir=runs/photos/sr --host=0.0.0.0 --token
  cdm serve --samples=configs/photos_cascade32.py@runs/photos
"""
WORKER = 'cdm.cli.enlarging_worker.worker_program'


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--workdir',
    metavar='DIR',
    help='work directory of a trained super-resolution stage, or the file that '
    '`cdm export` made of it (default: the model for photographs that lies in '
    'the package, if there is one)',
  )
  parser.add_argument(
    '--samples',
    metavar='CONFIG@DIR',
    help='draw from the cascade of a config, whose trained stages lie in '
    'DIR/STAGE; or from a base model, whose work directory is given alone',
  )
  parser.add_argument(
    '--memory',
    type=float,
    metavar='GIB',
    help='memory that a picture may take beside the model (default: 8)',
  )
  parser.add_argument(
    '--minutes',
    type=float,
    metavar='M',
    help='time that a picture may take (default: 30)',
  )
  drawing_flags.arguments(parser)
  serving_flags.arguments(parser)


def run(args: argparse.Namespace) -> None:
  """Serves until Ctrl-C."""
  from cdm.cli import private_folder
  from cdm.cli.web import local_server

  place = serving_flags.place(args)
  limits, command = _limits(args), _command(args)
  with _needing_packages():
    from cdm.cli.web.enlarging import enlarging_app
  from cdm.cli.web.enlarging.task_queue import TaskQueue
  from cdm.cli.web.request_guard import Limits

  # A system that goes down asks so; pictures are erased then too.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  with private_folder.made() as folder, contextlib.ExitStack() as held:
    # The port is taken before the model is loaded, which may take minutes.
    opened = held.enter_context(local_server.listen(place))
    print('Loading the model ...', flush=True)
    queue = TaskQueue(command(limits), limits)
    held.callback(queue.close)
    door = local_server.door(place)
    app = enlarging_app.EnlargingApp(queue, folder, door.csrf, limits)
    held.callback(app.close)
    link = local_server.address(place, opened)
    # Ctrl-C is the way to end this, and no failure.
    with contextlib.suppress(KeyboardInterrupt):
      print(
        f'Open {link}\nCtrl-C ends this, and erases all pictures.', flush=True
      )
      if not args.no_browser:
        local_server.open_browser(link)
      guard = Limits(limits.upload_bytes, limits.upload_seconds)
      local_server.serve(app.app, door, opened, guard)


def _limits(args) -> ServingLimits:
  """Returns what users of the page may ask for."""
  from cdm.cli.web.enlarging.serving_limits import ServingLimits

  limits = ServingLimits()
  for flag in ('memory', 'minutes'):
    value = getattr(args, flag)
    if value is not None and not 0 < value < 1e5:
      raise ValueError(f'--{flag}={value:g}: give a number above 0.')
  if args.memory is not None:
    limits = limits._replace(memory_bytes=int(args.memory * 2**30))
  if args.minutes is not None:
    limits = limits._replace(task_seconds=60 * args.minutes)
  return limits


def _command(args):
  """Returns a function from limits to the worker's command."""
  drawing_flags.check(args)
  if args.samples is not None and args.workdir is not None:
    raise ValueError(
      '--workdir is for pictures that are given, --samples for images that are '
      'drawn from nothing; give one of the two.'
    )
  given: dict[str, Any] = {
    'samples': args.samples,
    'at': drawing_flags.checkpoint(args.at, args.ema),
    'batch_per_device': args.batch_per_device,
    'part': None,
  }
  if args.samples is None:
    given['workdir'] = args.workdir or _shipped()
    given['redraws'] = list(drawing_flags.redraws(args))
  else:
    if args.batch_per_device is not None:
      raise ValueError(
        f'--batch_per_device={args.batch_per_device}: --samples draws few '
        'images at once; leave it out.'
      )
    given |= {'sampler': args.sampler, 'steps': args.steps}

  def command(limits):
    told = json.dumps({**given, 'limits': limits._asdict()})
    return [sys.executable, '-m', WORKER, told]

  return command


def _shipped() -> str:
  from cdm.sampling import shipped_model

  return str(shipped_model.photo())


@contextlib.contextmanager
def _needing_packages() -> Generator[None]:
  """Names the extra where a package of it is missing."""
  from cdm.data import shell_commands

  try:
    import uvicorn  # noqa: F401

    yield
  except ModuleNotFoundError as error:
    raise ValueError(
      f'cdm serve needs the package {error.name}, which is not installed. Run: '
      f'{shell_commands.install("cdm[web]")}'
    ) from error
