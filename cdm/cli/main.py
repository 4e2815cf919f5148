"""Runs the command line `cdm COMMAND ...` and reports errors.

Neither this module nor a command's `arguments` imports anything heavy (JAX,
NumPy, ...), so that `cdm --help` answers at once.
"""

import argparse
import contextlib
import difflib
import importlib
import io
import os
import select
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from cdm.cli import bucket_arguments, garbage_collection
from cdm.cli.command_list import COMMANDS, EPILOG
from cdm.config import key_hints
from cdm.data.files import storage_retry
from cdm.data.printable_name import printable
from cdm.distributed import (
  bucket_folders,
  exit_codes,
  open_files,
  peer_monitor,
  platforms,
  remote_paths,
  stuck_threads,
  user_cache,
)

CONFIG_PREFIX = '--config.'
# {what an override begins with: the name of the list in the arguments of a
# command that takes such overrides}.
OVERRIDES = {
  CONFIG_PREFIX: 'overrides',
  '--reference_config.': 'reference_overrides',
  '--source.': 'source_keys',
}
# The exit code if nothing reads stdout any more, as in
# `cdm describe ... | head`. A shell reports it for a program that SIGPIPE
# ended.
READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
  """Runs `cdm ARGV`, by default with the arguments of this process.

  Returns:
    The exit code, see `exit_codes`.
  """
  escape_unprintable_names()
  garbage_collection.look_less_often()
  if argv is not None:
    return run(argv)
  code = exit_codes.FAULT.code
  try:
    code = run(sys.argv[1:])
  finally:
    stuck_threads.end_without_them(code)
  if code:
    end_stderr()
  return code


def run(argv: Sequence[str]) -> int:
  """Runs one command and reports its error. Returns the exit code."""
  try:
    overrides = {}
    for prefix in OVERRIDES:
      argv, overrides[prefix] = split_overrides(argv, prefix)
    args = parse(argv)
  except ValueError as error:
    return report_error(error)
  except SystemExit:  # --help and --version
    try:
      flush_stdout()
    except BrokenPipeError:
      discard_stdout()
      return READER_GONE
    raise
  for prefix, name in OVERRIDES.items():
    given = overrides[prefix]
    if given and not hasattr(args, name):
      of = {
        '--reference_config.': ' of a reference',
        '--source.': ' of a source',
      }.get(prefix, '')
      return report_error(
        f'{prefix}{given[0][0]} was given, but `cdm {args.command}` takes no '
        f'config overrides{of}.'
      )
    if given:
      setattr(args, name, given)
  module = importlib.import_module(f'cdm.cli.commands.{args.command}')
  try:
    open_files.raise_limit()
    storage_retry.patience()  # A variable that is no number is refused now.
    user_cache.ensure_home()
    expand_home(args)
    bucket_arguments.replace_urls(args)
    refuse_urls(args)
    code = module.run(args) or 0
    flush_stdout()
    return code
  except KeyboardInterrupt:
    print('\ncdm: stopped by Ctrl-C.', file=sys.stderr)
    peer_monitor.leave(exit_codes.INTERRUPTED, 'stopped by Ctrl-C')
    return exit_codes.INTERRUPTED.code
  except Exception as error:
    if isinstance(error, BrokenPipeError) and not stdout_has_reader():
      return READER_GONE
    error = open_files.explain(platforms.explain(error))
    peer_monitor.explain(error)
    ending = exit_codes.classify(error)
    # Messages of this package and the operating system's messages about files
    # explain themselves, so they are printed without a traceback. Any other
    # error is a fault of the program, and its traceback must be kept.
    if ending is exit_codes.FAULT:
      if peer_monitor.must_leave():
        traceback.print_exception(error)
        peer_monitor.leave(ending, f'{type(error).__name__}: {error}')
      raise
    note = getattr(error, 'annotation', None)
    if args.debug or (ending is exit_codes.OUT_OF_MEMORY and note is None):
      traceback.print_exception(error)
    code = report_error(exit_codes.sentence(error), ending, note)
    peer_monitor.leave(ending, exit_codes.sentence(error))
    return code


def parse(argv: Sequence[str]) -> argparse.Namespace:
  """Returns the parsed arguments of one command."""
  parser = Parser(
    prog='cdm',
    description=(
      'Train, sample and judge cascades of diffusion models (CDM, SR3).'
    ),
    epilog=EPILOG,
    formatter_class=Formatter,
  )
  parser.add_argument('--version', action='version', version=f'cdm {version()}')
  commands = parser.add_subparsers(
    dest='command', metavar='COMMAND', title='commands'
  )
  for name, summary in COMMANDS.items():
    module = importlib.import_module(f'cdm.cli.commands.{name}')
    command = commands.add_parser(
      name,
      help=summary,
      description=module.DESCRIPTION,
      epilog=module.EPILOG,
      formatter_class=Formatter,
      allow_abbrev=False,
    )
    module.arguments(command)
    command.add_argument(
      '--debug',
      action='store_true',
      help='show the full traceback of an error',
    )
  args = parser.parse_args(argv)
  if args.command is None:
    parser.print_help()
    raise SystemExit(0)
  return args


def expand_home(args: argparse.Namespace) -> None:
  """Replaces a leading `~` in the values of options by the user's home.

  Shells expand it only at the start of a word, and so not in `--out=~/x`; cdm
  would make a folder of this name.
  """
  for name, value in vars(args).items():
    if isinstance(value, str):
      setattr(args, name, user_cache.expand(value))
    elif isinstance(value, list):
      values = [
        user_cache.expand(v) if isinstance(v, str) else v for v in value
      ]
      setattr(args, name, values)


def refuse_urls(args: argparse.Namespace) -> None:
  """Raises ValueError if a path among the arguments is a URL.

  TensorFlow Datasets reads a `data_dir` in a bucket by itself. The other URLs
  that a command can use were replaced by then, see `bucket_arguments`; those of
  a config are replaced where it is read.
  """
  given = [
    ('' if name == 'images' else f'--{name}', value)
    for name, values in vars(args).items()
    if name not in ('title', *OVERRIDES.values())
    for value in (values if isinstance(values, list) else [values])
  ]
  given += [
    (f'{prefix}{key}', value)
    for prefix, name in OVERRIDES.items()
    for key, value in getattr(args, name, [])
    if not key.endswith('.data_dir')
    and not (key in bucket_arguments.KEYS and bucket_folders.is_url(value))
  ]
  for option, value in given:
    if isinstance(value, str):
      remote_paths.refuse(value, option)


def split_overrides(
  argv: Iterable[str], prefix: str = CONFIG_PREFIX
) -> tuple[list[str], list[tuple[str, str]]]:
  """Separates overrides of a config from the other arguments.

  An override is written `--config.a.b=v` or `--config.a.b v`.

  Args:
    argv: the arguments.
    prefix: what the overrides begin with, a key of `OVERRIDES`.

  Returns:
    (other arguments, [('a.b', 'v'), ...]).

  Raises:
    ValueError: an override has no value.
  """
  rest, overrides = [], []
  words = iter(argv)
  for word in words:
    if not word.startswith(prefix):
      rest.append(word)
      continue
    key, equals, value = word.removeprefix(prefix).partition('=')
    if not equals:
      value = next(words, None)
      if value is None:
        raise ValueError(f'{word} needs a value: {word}=VALUE.')
    overrides.append((key, value))
  return rest, overrides


class Formatter(argparse.RawDescriptionHelpFormatter):
  """Formats help with columns wide enough for an option and its help text."""

  def __init__(self, prog: str):
    super().__init__(prog, max_help_position=26, width=80)
    # argparse does not count that commands are indented once more than options,
    # and would wrap the summary of the longest command.
    self._action_max_length = 4 + max(map(len, COMMANDS))


class Parser(argparse.ArgumentParser):
  """A parser whose errors name the nearest known option or command."""

  # argparse overloads both methods. Any spares the type checker the overloads.
  def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
    """Parses the arguments; an error names the nearest known option."""
    args, unknown = self.parse_known_args(args, namespace)
    if unknown and args.command is None:
      raise ValueError(
        f'{unknown[0]!r} belongs to a command: write '
        f'{self.prog} COMMAND {unknown[0]}. Commands: {", ".join(COMMANDS)}.'
      )
    if unknown:
      self._command(args.command).refuse(unknown[0])
    return args

  def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
    """Parses the known arguments, and remembers all of them for `error`."""
    self._argv = args or []
    return super().parse_known_args(args, namespace)

  def _command(self, name):
    for action in self._actions:
      if isinstance(action, argparse._SubParsersAction):
        return action.choices[name]

  def refuse(self, word: str) -> NoReturn:
    """Raises ValueError about an argument that this command does not take."""
    flags = {flag.lstrip('-'): flag for flag in self._option_string_actions}
    name = word.partition('=')[0].lstrip('-')
    near = key_hints.nearest(name, list(flags))
    key = key_hints.meaning(name)
    hint = f' Did you mean {flags[near]}?' if near else ''
    if not near and key and (key.lstrip('-') in flags or 'config' in flags):
      option = key if key.startswith('--') else f'--config.{key}'
      hint = f' Did you mean {option}={key_hints.EXAMPLES.get(key, "VALUE")}?'
    raise ValueError(
      f'{self.prog} does not take {word!r}.{hint} See `{self.prog} --help`.'
    )

  def error(self, message: str) -> NoReturn:
    """Raises ValueError instead of exiting as argparse does."""
    if 'required' in message:
      # The missing option may have been given under a misspelt name.
      for word in self._argv:
        known = word.partition('=')[0] in self._option_string_actions
        if word.startswith('--') and not known:
          self.refuse(word)
    words = message.split("'")
    if 'invalid choice' in message and len(words) > 1:
      near = difflib.get_close_matches(words[1], COMMANDS, n=1, cutoff=0.4)
      hint = f' Did you mean {near[0]!r}?' if near else ''
      message = (
        f'there is no command {words[1]!r}.{hint} '
        f'Commands: {", ".join(COMMANDS)}.'
      )
    raise ValueError(f'{message} (See `{self.prog} --help`.)')


def escape_unprintable_names() -> None:
  """Makes stdout and stderr escape what their encoding cannot write.

  A file name may hold any bytes. Without this, printing one ends a command
  whose work is done.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


def stdout_has_reader() -> bool:
  """Returns whether a process still reads stdout.

  If not, stdout is redirected to the null device.
  """
  output = sys.stdout.fileno()
  if hasattr(select, 'poll'):
    poll = select.poll()
    # macOS watches nothing of a pipe for which no event is asked.
    poll.register(output, select.POLLOUT)
    gone = select.POLLERR | select.POLLHUP | select.POLLNVAL
    if not any(events & gone for _, events in poll.poll(0)):
      return True
  else:
    try:  # What could not be written is still to be written.
      sys.stdout.flush()
      return True
    except OSError:
      pass
  discard_stdout()
  return False


def flush_stdout() -> None:
  """Writes what stdout still holds, while its errors can be reported.

  Python writes it too when it exits, but reports an error there in its own
  words and with an exit code of its own.
  """
  if sys.stdout is None:  # It was closed before the start.
    return
  try:
    sys.stdout.flush()
  except BrokenPipeError:
    raise  # No error if nobody reads any more.
  except OSError as error:
    discard_stdout()
    raise OSError(
      f'The output cannot be written: {error.strerror}. Send stdout elsewhere.'
    ) from error


def discard_stdout() -> None:
  """Redirects stdout to the null device, so that it fails no more."""
  with contextlib.suppress(OSError, ValueError):  # A stream without a file.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def end_stderr() -> None:
  """Lets the error that was just reported be the last line of stderr.

  Threads of other libraries outlive an error such as a full disk, and print
  hundreds of tracebacks of their own until the process has ended, some of them
  past Python's reach.
  """
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  with open(os.devnull, 'w', encoding='utf-8') as nothing:
    os.dup2(nothing.fileno(), 2)


def report_error(
  error: object,
  ending: exit_codes.ExitCode = exit_codes.BAD_INPUT,
  note: str | None = None,
) -> int:
  """Prints an error to stderr and returns its exit code.

  Args:
    error: the message, or an exception whose text is the message.
    ending: the kind of the error, with its exit code.
    note: a line before that, or None.
  """
  colour = sys.stderr.isatty() and 'NO_COLOR' not in os.environ
  start, end = ('\033[31m', '\033[0m') if colour else ('', '')
  kind = 'error' if ending is exit_codes.BAD_INPUT else ending.kind
  text = bucket_folders.with_urls(str(error))
  text = '\n'.join(map(printable, text.split('\n')))
  if note is not None:
    print(f'cdm: {note}', file=sys.stderr)
  # Last, where whoever reads only the end of a log finds it.
  print(f'{start}cdm: {kind}:{end} {text}', file=sys.stderr, flush=True)
  return ending.code


def version() -> str:
  """Returns the version of the installed package."""
  from importlib import metadata

  try:
    return metadata.version('cdm')
  except metadata.PackageNotFoundError:
    return '(not installed)'
