"""Flags of the commands that judge sets of images by a network."""

# Option -> the metrics that it is for.
FOR = {'kid_size': ('kid',), 'few': ('fid', 'sfid')}
SETS = ('fid', 'sfid', 'is', 'kid', 'pr')


def arguments(parser):
  """Adds the flags of a command that judges sets."""
  parser.add_argument(
    '--num',
    type=int,
    metavar='N',
    help='images to draw, or to take of a set, spread over it',
  )
  parser.add_argument(
    '--seed', type=int, metavar='S', help="of drawn images; the config's"
  )
  parser.add_argument(
    '--few',
    action='store_true',
    help='FID of fewer than 2048 images all the same',
  )
  parser.add_argument(
    '--kid_size', type=int, metavar='N', help='of a subset (default: 1000)'
  )
  parser.add_argument(
    '--weights', metavar='FILE', help='of Inception-v3 (default: fetched)'
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images at once (default: 64, on CPUs 8)',
  )


def check(args, metrics):
  """Refuses flags that no metric listens to, and impossible values.

  Args:
    args: parsed.
    metrics: names, those of sets among them.

  Raises:
    ValueError: naming the flag.
  """
  for option, names in FOR.items():
    if getattr(args, option) and not set(names) & set(metrics):
      raise ValueError(
        f'--{option} is for {" and ".join(names)}, which '
        f'{"is" if len(names) == 1 else "are"} not among the metrics.'
      )
  for option in ('num', 'batch_size', 'kid_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it is at least 1.')
  if args.seed is not None and not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')


def network(args):
  """-> keyword arguments of `extract_features.Gatherer`."""
  return {'weights': args.weights} | _given(args, 'batch_size')


def comparison(args):
  """-> keyword arguments of `compare_sets.compare`."""
  found = {'num': args.num, 'seed': args.seed, 'allow_few_images': args.few}
  return found | _given(args, 'kid_size')


def _given(args, *names):
  """-> the flags that were given, by name."""
  values = {name: getattr(args, name) for name in names}
  return {name: value for name, value in values.items() if value is not None}
