"""What a target answers: files to write, commands to run; and templates."""

import dataclasses
import json
import pathlib
import re
import shlex
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / 'launch' / 'templates'
# What `cdm train` can end with and end with again: bad input, not finite,
# data, memory. Everything else may come of losing a machine: who outlives a
# lost process ends with 1.
FINAL = (2, 3, 4, 5)
# A bug of the program, or a GPU or a runtime that failed: only another start
# tells. cdm itself counts the starts that come to nothing, and ends with 2.
FAULT = 1
# What a shell says of a process that a signal ended, where nothing else was
# at fault: SIGABRT (JAX without process 0), SIGBUS, SIGKILL, SIGSEGV, SIGTERM.
KILLED = (134, 135, 137, 139, 143)
# The processes never found each other, as where an address is wrong.
NEVER_JOINED = 76
# After these exit codes of cdm the same command continues the run.
PREEMPTED, LOST = 75, 77
# The machines of a cloud come up minutes apart; cdm waits that long for the
# other processes, instead of the five minutes of its own.
JOIN_SECONDS = 1800
# JAX keeps compiled programs there, for all processes and later starts.
CACHE = 'JAX_COMPILATION_CACHE_DIR'
# What kinds of devices JAX may use, the one that cdm computes on first: cdm
# ends where that one cannot be used.
PLATFORMS = 'JAX_PLATFORMS'
# Of a container, where Docker gives 64 MB. The processes that read images hand
# them over there, and take at most 32 MB each: 8 GB are enough for 256.
SHARED_MEMORY = '8g'
# Of a container, where the daemon may give 1,024: data sets have thousands of
# shards. Pods of Kubernetes cannot ask for it; their runtimes give 2^20.
OPEN_FILES = 65536


def platforms(kind):
  """-> value of `PLATFORMS` for 'cuda', 'tpu' or 'cpu'.

  The CPU stays beside an accelerator, as in JAX's own choice: JAX runs
  callbacks on it.
  """
  return kind if kind == 'cpu' else f'{kind},cpu'


def comes_with_gpus(machine_type):
  """-> whether such machines of Google Cloud have GPUs that nobody lists.

  They are the series A and G of
  docs.cloud.google.com/compute/docs/accelerator-optimized-machines.
  """
  return re.fullmatch(r'[ag][2-9]\w*-.+', machine_type) is not None


@dataclasses.dataclass
class Plan:
  """What to write, to set and to run.

  Attributes:
    commands: [[word, ...], ...], without secrets: `ps` shows them to everybody.
    files: {name: text}; only the user can read them.
    note: text for the reader.
    environment: {name: value}, what the commands get beside the launcher's own
      environment.
  """

  commands: list
  files: dict = dataclasses.field(default_factory=dict)
  note: str = ''
  environment: dict = dataclasses.field(default_factory=dict)


class CannotStart(Exception):
  """A program is there, and the system does not start it."""


def start(command, **options):
  """-> the started process. Raises CannotStart."""
  try:
    return subprocess.Popen(command, **options)
  except OSError as error:
    raise CannotStart(
      f'{command[0]} cannot be started ({error.strerror}): it, or the '
      'interpreter that its first line names, is missing or not for this '
      'machine. Install it anew, or name another with --python.'
    ) from None


def render(template, **values):
  """-> the template's text with each @name@ replaced by its value."""
  text = (TEMPLATES / template).read_text(encoding='utf-8')
  return re.sub(r'@(\w+)@', lambda match: str(values[match[1]]), text)


def as_json(value):
  """-> JSON, in ASCII. Raises ValueError for what no JSON can hold."""
  require_text(value)
  return json.dumps(value)


def as_yaml(value):
  """-> YAML on one line, in ASCII. Raises ValueError for what it cannot hold.

  That is JSON, except for characters above U+FFFF: JSON escapes them as two
  surrogates, which YAML takes for two characters.
  """
  require_text(value)

  def escaped(match):
    number = ord(match[0])
    return f'\\u{number:04x}' if number < 0x10000 else f'\\U{number:08x}'

  text = json.dumps(value, ensure_ascii=False)
  return re.sub(r'[^ -~]', escaped, text)


def require_text(value):
  """Raises ValueError if a string holds bytes that are not UTF-8."""
  try:
    json.dumps(value, ensure_ascii=False).encode()
  except UnicodeEncodeError:
    raise ValueError(
      f'{value!r} holds bytes that are not UTF-8, which this target cannot '
      'pass on. Use a name in UTF-8.'
    ) from None


def as_shell_word(word):
  """-> the word as bash reads it back, on one line.

  Words with line breaks or other characters that do not print are written in
  bash's own $'...' form, byte for byte: they may stand in a block of YAML,
  where U+2028 would end the line.
  """
  return shlex.quote(word) if word.isprintable() else escaped_word(word)


def escaped_word(word):
  """-> the word as $'...', with neither a double quote nor a backslash in it.

  But for the backslashes of \\xHH, which a string of YAML in double quotes may
  hold too.
  """
  data = word.encode('utf-8', 'surrogateescape')
  plain = (chr(b) if 32 <= b < 127 and b not in b'\\\'"' else '' for b in data)
  text = ''.join(
    char or f'\\x{byte:02x}' for char, byte in zip(plain, data, strict=True)
  )
  return f"$'{text}'"


def as_shell_words(words):
  """-> the words of a command as bash reads them back, on one line."""
  return ' '.join(as_shell_word(word) for word in words)


def flags(**values):
  """-> ['--a-b=value', ...]; True gives a bare flag; None and False nothing."""
  words = []
  for name, value in values.items():
    flag = f'--{name.replace("_", "-")}'
    if value is True:
      words.append(flag)
    elif value is not None and value is not False:
      words.append(f'{flag}={value}')
  return words


def in_image(args):
  """-> the cdm command inside the image, as a list of words.

  Raises:
    ValueError: the config is not part of the checkout, so not of the image.
  """
  words = list(args.cdm)
  if args.config:
    path = pathlib.Path(args.here, args.config).resolve()
    if not path.is_relative_to(ROOT / 'configs'):
      raise ValueError(
        f'--config={args.config} is not in {ROOT / "configs"}, so the image '
        'does not hold it. Put it there and build the image again.'
      )
    given = words.index(f'--config={args.config}')
    words[given] = f'--config={path.relative_to(ROOT)}'
  return ['cdm', *words]


def add_image(parser):
  """Adds --image, for targets that run one."""
  parser.add_argument(
    '--image', required=True, help='built by the docker target, pushed'
  )


def add_storage(parser):
  """Adds --storage, for targets whose machines share no file system."""
  parser.add_argument(
    '--storage',
    metavar='WHERE',
    required=True,
    help='gs://BUCKET (seen as /gcs/BUCKET) or SERVER:/EXPORT (NFS, as /nfs)',
  )


def mount_point(args):
  """-> where --storage is seen: '/gcs/BUCKET' or '/nfs'.

  Raises:
    ValueError: the storage has another form, or the workdir is not on it.
  """
  bucket = re.fullmatch(r'gs://([\w.-]+)/?', args.storage)
  if not bucket and not re.fullmatch(r'[\w.-]+:/[\w./-]*', args.storage):
    raise ValueError(
      f'--storage={args.storage}: expected gs://BUCKET or SERVER:/EXPORT.'
    )
  point = f'/gcs/{bucket[1]}' if bucket else '/nfs'
  outlives = ('gs://', f'{point}/')
  if args.workdir and not args.workdir.startswith(outlives):
    raise ValueError(
      f'--workdir={args.workdir} would be lost with the machine. '
      f'--storage={args.storage} is seen as {point}: say '
      f'--workdir={point}/... instead, or gs://BUCKET/... without a mount.'
    )
  return point


def cache_folder(args, point=None):
  """-> a folder for compiled programs that outlives the container, or None.

  Args:
    args: the options; the folder lies in the work directory, which a restart
      finds again, and which is sure to be writable.
    point: where --storage is seen, for a command without a work directory.
  """
  folder = args.workdir or point
  return f'{folder.rstrip("/")}/compilation_cache' if folder else None


def in_bucket(path):
  """-> whether cdm reads and writes there without a mount."""
  return path.startswith('gs://')


def bucket_of(args):
  """-> name of the bucket of --storage, or None for NFS."""
  if not args.storage.startswith('gs://'):
    return None
  return args.storage.removeprefix('gs://').rstrip('/')


def positive(text):
  """argparse type: a whole number, 1 or more."""
  value = int(text)
  if value < 1:
    raise ValueError
  return value
