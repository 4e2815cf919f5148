"""A SLURM job on one or several nodes.

The script trains until the time limit, saves, and queues itself again until
the run is complete. On GPUs give --gpus_per_node: there is one task per GPU,
and JAX takes the GPU of the task's number. On CPUs, --tasks_per_node.

The checkout, its Python and the work directory must be seen by all nodes.
"""

import re

from targets import environment
from targets.local import default_python
from targets.plan import (
  CACHE,
  FAULT,
  LOST,
  NEVER_JOINED,
  PLATFORMS,
  PREEMPTED,
  Plan,
  as_shell_word,
  as_shell_words,
  cache_folder,
  flags,
  platforms,
  positive,
  render,
)


def arguments(parser):
  """Adds this target's options."""
  parser.add_argument('--nodes', type=positive, default=1, metavar='N')
  parser.add_argument('--gpus_per_node', type=positive, metavar='G')
  parser.add_argument(
    '--tasks_per_node', type=positive, metavar='T', help='default: one per GPU'
  )
  parser.add_argument(
    '--cpus_per_task',
    type=positive,
    metavar='C',
    help="SLURM's default, 1, starves a GPU",
  )
  parser.add_argument('--partition', metavar='NAME')
  parser.add_argument('--account', metavar='NAME')
  parser.add_argument('--qos', metavar='NAME')
  parser.add_argument('--time', metavar='LIMIT', help='e.g. 1-00:00:00')
  parser.add_argument('--memory', metavar='SIZE', help='per node, e.g. 200G')
  parser.add_argument(
    '--save_seconds',
    type=positive,
    default=180,
    metavar='S',
    help='how long before the time limit the run is told to save; default: 180',
  )
  parser.add_argument(
    '--restarts', type=int, default=50, metavar='N', help='at most; default: 50'
  )
  parser.add_argument(
    '--python', default=default_python(), metavar='PATH', help='that has cdm'
  )


def plan(args):
  """-> a script and its sbatch."""
  options = flags(
    job_name=args.name,
    chdir=args.here,
    output=f'{args.name}-%j.log',
    nodes=args.nodes,
    ntasks_per_node=args.tasks_per_node or args.gpus_per_node or 1,
    gpus_per_node=args.gpus_per_node,
    cpus_per_task=args.cpus_per_task,
    mem=args.memory,
    partition=args.partition,
    account=args.account,
    qos=args.qos,
    time=args.time,
    signal=f'TERM@{args.save_seconds}',
  )
  own = {PLATFORMS: platforms('cuda') if args.gpus_per_node else None}
  plain, secret = environment.variables(args, own)
  script = render(
    'slurm.sh',
    directives='\n'.join(f'#SBATCH {quoted(option)}' for option in options),
    restarts=args.restarts,
    preempted=PREEMPTED,
    lost=LOST,
    fault=FAULT,
    never_joined=NEVER_JOINED,
    cache_name=CACHE,
    cache=as_shell_word(cache_folder(args) or ''),
    variables='\n'.join(
      f'export {name}={as_shell_word(value)}' for name, value in plain.items()
    ),
    command=as_shell_words([args.python, '-m', 'cdm', *args.cdm]),
  )
  name = f'{args.name}.sbatch'
  # SLURM keeps the environment of sbatch, and gives it to each start. A cluster
  # may have another default.
  export = ['--export=ALL'] if secret else []
  note = ''
  if args.gpus_per_node and not args.cpus_per_task:
    note = (
      'Without --cpus_per_task each task gets one core, which reads images for '
      'no GPU fast enough.'
    )
  return Plan([['sbatch', *export, name]], {name: script}, note, secret)


def quoted(option):
  """-> a word of an #SBATCH line, where quotes group and \\ escapes.

  Raises:
    ValueError: the option cannot stand on one line.
  """
  if re.fullmatch(r'[\w./=:@,+%-]*', option):
    return option
  if not all(32 <= ord(char) != 127 for char in option):
    raise ValueError(
      f'{option!r} holds a line break or control character, which no line of a '
      'SLURM script can.'
    )
  return '"' + re.sub(r'(["\\])', r'\\\1', option) + '"'
