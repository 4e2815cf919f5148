"""The environment variables of a run: --env, --env_file, and which are secret.

A target calls `variables` and renders what it returns in its platform's way.
Secret values must stand neither in a command, which `ps` shows to every user
of a machine, nor in a file or an object that other people read.
"""

import dataclasses
import pathlib
import re

HIDDEN = '***'
NAME = '[A-Za-z_][A-Za-z0-9_]*'
# A word between two underscores of a name: APIKEY and KEYS count, MONKEYS too.
# It is better to hide one variable too many than one too few.
SECRET_NAME = re.compile(
  r'TOKEN(?!IZER)|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|COOKIE'
  r'|KEY(S?\d*|FILE|ID)(_|$)|AUTH(ORIZATION)?(_|$)|(^|_)(PAT|PWD|DSN)(_|$)',
  re.IGNORECASE,
)
# The P_Key of InfiniBand, in NCCL_IB_PKEY, is an index.
PUBLIC_NAME = re.compile('NCCL_|XLA_|(OLD)?PWD$')
# As proxies have it, and databases: http://NAME:PASSWORD@HOST.
SECRET_VALUE = re.compile(r'\w://[^/\s@]+@')
# Each process has a value of its own, which a launcher or a cluster gives.
OF_A_PROCESS = ('CDM_NUM_PROCESSES', 'CDM_PROCESS_ID')


@dataclasses.dataclass(frozen=True)
class Environment:
  """plain, secret: {name: value}; no name is in both."""

  plain: dict = dataclasses.field(default_factory=dict)
  secret: dict = dataclasses.field(default_factory=dict)

  def hidden(self):
    """-> the same with *** for each secret value."""
    return Environment(self.plain, dict.fromkeys(self.secret, HIDDEN))


def arguments(parser):
  """Adds --env and --env_file, which all targets have."""
  parser.add_argument(
    '--env',
    action='append',
    default=[],
    metavar='NAME[=VALUE]',
    help='variable of the run; without =VALUE, its value here; repeatable',
  )
  parser.add_argument(
    '--env_file',
    '--env-file',
    action='append',
    default=[],
    metavar='FILE',
    help='lines NAME[=VALUE], # comments; --env wins over it; repeatable',
  )


def read(args, here):
  """-> Environment of what --env_file and --env say; the last one wins.

  The grammar of a file is that of `docker run --env-file`: UTF-8, one
  NAME=VALUE a line, blanks before it ignored, empty lines and lines that
  begin with # ignored. The value is all that follows the first =, to the end
  of the line, and nothing in it is replaced. NAME alone takes the value that
  the launcher itself has.

  Args:
    args: has `env`, a list of 'NAME=VALUE' or 'NAME', and `env_file`, a list
      of paths.
    here: {name: value}, the launcher's own environment.

  Raises:
    ValueError: a file cannot be read, or a variable is not well formed. The
      message never has the value.
  """
  found = {}
  for path in args.env_file:
    for number, line in lines_of(path):
      name, value = variable(line, here, f'--env_file={path}, line {number}')
      if re.fullmatch(r'(["\']).*\1', value, re.DOTALL) and '=' in line:
        raise ValueError(
          f'--env_file={path}, line {number}: the value of {name} stands in '
          'quotes, which some versions of Docker remove and others keep. '
          'Remove them, or give it by --env if they belong to it.'
        )
      found[name] = value
  for word in args.env:
    name, value = variable(word, here, '--env')
    found[name] = value
  secret = {n: v for n, v in found.items() if is_secret(n, v)}
  plain = {n: v for n, v in found.items() if n not in secret}
  return Environment(plain, secret)


def lines_of(path):
  """-> [(number, line)] of an --env_file, without comments and empty lines."""
  try:
    text = pathlib.Path(path).read_bytes().decode('utf-8-sig')
  except OSError as error:
    raise ValueError(f'--env_file={path}: {error.strerror}.') from None
  except UnicodeDecodeError:
    raise ValueError(f'--env_file={path} is not UTF-8.') from None
  lines = [line.removesuffix('\r').lstrip() for line in text.split('\n')]
  return [
    (number, line)
    for number, line in enumerate(lines, start=1)
    if line and not line.startswith('#')
  ]


def variable(text, here, where):
  """'NAME=VALUE' or 'NAME' -> (name, value). Raises ValueError."""
  name, equals, value = text.partition('=')
  if not re.fullmatch(NAME, name):
    raise ValueError(
      f'{where}: expected NAME=VALUE, the name of letters, digits and '
      'underscores, a digit not first.'
    )
  if name in OF_A_PROCESS:
    raise ValueError(
      f'{where}: {name} is another one for each process; the launcher or the '
      'cluster sets it.'
    )
  if not equals:
    if name not in here:
      raise ValueError(
        f'{where}: {name} has no value here. Say {name}=VALUE, or export it.'
      )
    value = here[name]
  try:
    value.encode()
  except UnicodeEncodeError:
    raise ValueError(f'{where}: the value of {name} is not UTF-8.') from None
  if re.search(r'[\x00-\x08\x0a-\x1f\x7f]', value):
    raise ValueError(
      f'{where}: the value of {name} holds a line break or control character, '
      'which not every target can pass on.'
    )
  return name, value


def is_secret(name, value):
  """-> whether the value must not be shown, by the name or by its form."""
  by_name = SECRET_NAME.search(name) and not PUBLIC_NAME.match(name)
  return bool(by_name or SECRET_VALUE.search(value))


def variables(args, own):
  """-> (plain, secret), two dicts {name: value} for the command of a target.

  Args:
    args: the options, with `environment`, the user's own variables.
    own: {name: value} that the target sets; the user's values win. None
      leaves a variable out.
  """
  given = args.environment
  own = {n: v for n, v in own.items() if v is not None}
  own = {n: str(v) for n, v in own.items() if n not in given.secret}
  return {**own, **given.plain}, dict(given.secret)


def refuse_secrets(args, why):
  """Raises ValueError if a secret is given to a target that cannot keep it.

  Args:
    args: the options.
    why: sentence that says who would read it, and what to do instead.
  """
  if args.environment.secret:
    names = ', '.join(args.environment.secret)
    raise ValueError(f'--env: {names} would not stay secret. {why}')
