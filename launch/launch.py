#!/usr/bin/env python3
"""Starts a run of cdm somewhere, and starts it again when it was preempted.

  python launch/launch.py TARGET --config=FILE --workdir=DIR
      [options of the target] [--config.a.b=VALUE ...] [--env=NAME=VALUE ...]
      [--env_file=FILE] [--dry-run] [-- other arguments of cdm]

With --dry-run prints, as shell, what would run. Needs Python alone.
"""

import argparse
import difflib
import importlib.util
import itertools
import os
import pathlib
import re
import shutil
import sys
import tempfile

from targets import (
  batch,
  commit,
  docker,
  environment,
  gke,
  local,
  skypilot,
  slurm,
  tpu_vm,
  vertex,
  xpk,
)
from targets.plan import CannotStart, as_shell_word, as_shell_words, start

TARGETS = {
  'local': local,
  'docker': docker,
  'slurm': slurm,
  'tpu-vm': tpu_vm,
  'gke': gke,
  'xpk': xpk,
  'skypilot': skypilot,
  'vertex': vertex,
  'batch': batch,
}
COMMANDS = ('train', 'sample', 'upscale', 'evaluate')
# How to install a program; a list is what pip installs.
INSTALL = {
  'bash': 'bash, from your system',
  'docker': 'Docker: https://docs.docker.com/engine/install',
  'gcloud': 'the Google Cloud CLI: https://cloud.google.com/sdk/docs/install',
  'kubectl': 'kubectl: gcloud components install kubectl',
  'sbatch': "SLURM's commands, or log in to a node of the cluster",
  'sky': ['skypilot[gcp]'],
  'xpk': ['xpk'],
}


def main(argv=None):
  """Launches. Returns the exit code: that of what ran, or 2 for bad input."""
  argv = list(sys.argv[1:] if argv is None else argv)
  try:
    args = parse(argv)
    plan = TARGETS[args.target].plan(args)
    shown = TARGETS[args.target].plan(without_secrets(args))
  except ValueError as error:
    return complain(error)
  if args.dry_run:
    # A terminal of another encoding must not change what is pasted.
    sys.stdout.reconfigure(encoding='utf-8', errors='surrogateescape')
    print(as_shell(shown))
    return 0
  missing = next((c[0] for c in plan.commands if not shutil.which(c[0])), None)
  if missing:
    hint = INSTALL.get(missing, 'it, or name another with --python')
    if isinstance(hint, list):
      hint = f'it: {install(hint)}'
    return complain(
      f'{args.target} needs {missing}, which is not installed here. '
      f'Install {hint}. --dry-run shows what would run.'
    )
  try:
    return local.run(args) if args.target == 'local' else carry_out(plan, shown)
  except CannotStart as error:
    return complain(error)


def parse(argv):
  """-> arguments with `cdm` added: what to say to cdm, as a list of words.

  Raises:
    ValueError: an argument is unknown, missing, or of the wrong form.
  """
  own, rest = split(argv, '--')
  if '--dry-run' in rest:
    raise ValueError('--dry-run stands behind --, so cdm would get it.')
  overrides = [word for word in own if word.startswith('--config.')]
  bare = next((word for word in overrides if '=' not in word), None)
  if bare:
    raise ValueError(f'{bare} needs its value: {bare}=VALUE.')
  options = [word for word in own if word not in overrides]
  for before, word in itertools.pairwise(['', *options]):
    # Values for cdm may hold anything; these stand in names and directives.
    # A variable's value is never printed.
    free = word.startswith(('--config=', '--workdir=', '--env='))
    free = free or before == '--env'
    if not free and not all(32 <= ord(char) != 127 for char in word):
      raise ValueError(f'{word!r} holds a line break or control character.')
  args = parser().parse_args(options)
  args.cdm = words_for_cdm(args, overrides, rest)
  args.environment = environment.read(args, os.environ)
  # What a plan needs to know of this machine, so that a plan is a function of
  # its arguments alone.
  args.commit = commit.of_checkout()
  args.here = os.getcwd()
  args.user = f'{os.getuid()}:{os.getgid()}'
  args.port = local.free_port()
  args.name = args.name or name_of(args)
  if not re.fullmatch(r'[a-z]([a-z0-9-]{0,38}[a-z0-9])?', args.name):
    raise ValueError(
      f'--name={args.name}: lowercase letters, digits and dashes, at most 40, '
      'a letter first.'
    )
  if getattr(args, 'restarts', 0) < 0:
    raise ValueError(f'--restarts={args.restarts}: 0 or more.')
  return args


def parser():
  """-> the parser of all targets."""
  top = Parser(
    prog='launch.py',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  targets = top.add_subparsers(dest='target', metavar='TARGET', required=True)
  for name, module in TARGETS.items():
    target = targets.add_parser(
      name,
      help=module.__doc__.splitlines()[0],
      description=module.__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    target.add_argument('--config', metavar='FILE', help='configs/NAME.py')
    target.add_argument('--workdir', metavar='DIR', help='of the run')
    target.add_argument(
      '--command', choices=COMMANDS, default='train', help='of cdm'
    )
    target.add_argument('--name', help='of the job; default: from the config')
    target.add_argument(
      '--dry-run', '--dry_run', action='store_true', help='print, do not run'
    )
    environment.arguments(target)
    module.arguments(target)
  return top


def without_secrets(args):
  """-> the options with *** for each secret, to be planned and shown."""
  shown = argparse.Namespace(**vars(args))
  shown.environment = args.environment.hidden()
  return shown


class Parser(argparse.ArgumentParser):
  """Raises ValueError, with the nearest known word."""

  def parse_args(self, args=None, namespace=None):
    args, unknown = self.parse_known_args(args, namespace)
    if unknown:
      action = next(a for a in self._actions if a.dest == 'target')
      flags = list(action.choices[args.target]._option_string_actions)
      near = nearest(unknown[0].partition('=')[0], flags)
      raise ValueError(
        f'{args.target} does not take {unknown[0]!r}.{near} What is meant for '
        f'cdm goes behind --. See launch.py {args.target} --help.'
      )
    return args

  def error(self, message):
    words = message.split("'")
    if 'argument TARGET: invalid choice' in message:
      message = (
        f'there is no target {words[1]!r}.{nearest(words[1], TARGETS)} '
        f'Targets: {", ".join(TARGETS)}.'
      )
    raise ValueError(f'{message} ({self.prog} --help explains.)')


def install(packages):
  """-> a command that installs them beside this Python; uv's without pip."""
  words = [sys.executable, '-m', 'pip', 'install', *packages]
  if importlib.util.find_spec('pip') is None:
    words = ['uv', 'pip', 'install', '--python', sys.executable, *packages]
  folder = os.path.dirname(sys.executable)
  known = os.environ.get('PATH', '').split(os.pathsep)
  also = '' if folder in known else f', and put {folder} on PATH'
  return as_shell_words(words) + also


def nearest(word, known):
  """-> ' Did you mean X?', or nothing."""
  near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
  return f' Did you mean {near[0]}?' if near else ''


def split(words, mark):
  """-> (words before the mark, words behind it)."""
  at = words.index(mark) if mark in words else len(words)
  return words[:at], words[at + 1 :]


def words_for_cdm(args, overrides, rest):
  """-> ['train', '--config=...', ...]; raises ValueError if one is missing."""
  if args.command == 'train' and not getattr(args, 'push', False):
    for flag in ('config', 'workdir'):
      if getattr(args, flag) is None:
        raise ValueError(f'--{flag} is missing: cdm train needs it.')
  if args.config is not None and not pathlib.Path(args.config).is_file():
    raise ValueError(f'--config={args.config}: there is no such file.')
  words = [args.command]
  words += [f'--config={args.config}'] if args.config else []
  words += [f'--workdir={args.workdir}'] if args.workdir else []
  return [*words, *overrides, *rest]


def name_of(args):
  """Names a job after its config: configs/smoke_sr.py gives cdm-smoke-sr."""
  stem = pathlib.Path(args.config or args.command).stem.lower()
  stem = re.sub('[^a-z0-9]+', '-', stem).removeprefix('cdm-')
  return f'cdm-{stem}'[:40].strip('-')


def as_shell(plan):
  """-> text that does, pasted into a shell, what the launcher does."""
  lines = []
  for name, text in plan.files.items():
    lines += [f"cat > {name} <<'END_OF_FILE'", text.rstrip('\n')]
    lines += ['END_OF_FILE', '']
  if plan.note:
    lines += [f'# {line}' for line in plan.note.splitlines()]
  for name, value in plan.environment.items():
    lines.append(f'export {name}={as_shell_word(value)}')
  return '\n'.join(
    lines + [as_shell_words(command) for command in plan.commands]
  )


def carry_out(plan, shown):
  """Writes the files, runs the commands. Returns the first code that is not 0.

  Ctrl-C is left to the command that runs: it gets it from the terminal too.

  Args:
    plan: what to do.
    shown: the same without secrets; its commands are printed.
  """
  if plan.note:
    print(plan.note, file=sys.stderr, flush=True)
  with tempfile.TemporaryDirectory(prefix='cdm-launch-') as folder:
    for name, text in plan.files.items():
      path = pathlib.Path(folder, name)
      path.touch(mode=0o600)  # A file may hold a secret.
      path.write_text(text, encoding='utf-8')
    for command, words in zip(plan.commands, shown.commands, strict=True):
      print('$', as_shell_words(words), file=sys.stderr, flush=True)
      here = {**os.environ, **plan.environment}
      process = start(command, cwd=folder, env=here)
      while True:
        try:
          code = process.wait()
          break
        except KeyboardInterrupt:
          continue
      if code:
        return code if code > 0 else 128 - code
  return 0


def complain(error):
  """Prints one error; returns the exit code of bad input."""
  colour = sys.stderr.isatty() and 'NO_COLOR' not in os.environ
  start, end = ('\033[31m', '\033[0m') if colour else ('', '')
  print(f'{start}launch.py: error:{end} {error}', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main())
