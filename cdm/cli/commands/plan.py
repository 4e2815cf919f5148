"""`cdm plan`: whether a config fits a slice, and what it will cost."""

DESCRIPTION = """\
Compile the very step that a config will run, for slices of TPUs that need not
be there, and print whether it fits, what it computes and moves, and an
estimate of time and cost. Needs no accelerator; for TPUs, Linux on x86-64 and
`pip install 'cdm[plan]'`. Compiling a large network takes minutes; what was
compiled once is kept.
"""
EPILOG = """\
examples:
  cdm plan --config=configs/cdm_imagenet64.py --topology=v5e:16x16
  cdm plan --config=configs/cdm_imagenet64.py --topology=v5e:16x16 \\
      --config.mesh.fsdp=8 --config.model.remat=convolutions --json
  cdm plan --config=configs/sr3_faces64.py --topology=v5e:4x4 \\
      --topology=v6e:4x4 --search --deadline=7 --price=v6e=2.70
  cdm plan --config=configs/sr3_faces64.py --topology=v6e:2x2 --step=sample

topologies:
  KIND:AxB or KIND:AxBxC, chips along each axis, such as v3:8x16 (256 devices:
  two to a chip), v4:4x4x8, v5e:16x16, v5p:4x4x8, v6e:16x16, tpu7x:4x4x8; or
  cpu:N, simulated devices
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--config', required=True, metavar='FILE', help='of one stage'
  )
  parser.add_argument(
    '--topology',
    action='append',
    required=True,
    metavar='SLICE',
    help='such as v5e:16x16; may be given again',
  )
  parser.add_argument(
    '--step',
    choices=('train', 'sample'),
    default='train',
    help='what is planned (default: train)',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images drawn at once, of --step=sample (default: 64)',
  )
  parser.add_argument(
    '--search',
    action='store_true',
    help='find the largest batch that fits (to an eighth)',
  )
  parser.add_argument(
    '--deadline',
    type=float,
    metavar='DAYS',
    help='name the cheapest slice that is done in time',
  )
  parser.add_argument(
    '--price',
    action='append',
    default=[],
    metavar='X',
    help='dollars per chip-hour, or KIND=X; may be given again',
  )
  parser.add_argument(
    '--quick',
    action='store_true',
    help='compile with least effort: about a third of the time; memory and '
    'bytes moved are near what they will be, no more',
  )
  parser.add_argument(
    '--fresh',
    action='store_true',
    help='compile again what was compiled before',
  )
  parser.add_argument(
    '--json', action='store_true', help='print one JSON object per topology'
  )
  parser.set_defaults(overrides=[])


def run(args):
  """Plans slice after slice, printing each as it is known."""
  import json
  import sys

  from cdm.config import loader
  from cdm.distributed import device_specs
  from cdm.planning import compile_process, plan_text, roofline, search

  check(args)
  prices = device_specs.parse_prices(args.price)
  pieces = compile_process.check(args.topology)
  loader.load(args.config, args.overrides)  # complain before compiling
  rows = []
  for piece in pieces:
    facts = ask(args, piece.topology)
    row = roofline.row(facts, prices)
    if args.search:
      row['search'] = find_largest(args, facts)
    rows.append(row)
    if args.json:
      print(json.dumps(row), flush=True)
      continue
    if len(rows) == 1:
      print(plan_text.head(row))
    print(f'\n{plan_text.plan(row)}')
    if args.search:
      print(f'  {largest_line(row["search"])}', flush=True)
  if not args.json and len(rows) > 1:
    print(f'\n{plan_text.comparison(rows)}')
  if args.deadline is not None:
    best = search.cheapest(rows, deadline_days=args.deadline)
    stream = sys.stderr if args.json else sys.stdout
    print(f'\n{plan_text.choice(best, args.deadline)}', file=stream)


def check(args):
  """Refuses options that mean nothing together."""
  if args.batch_size is not None and args.step != 'sample':
    raise ValueError(
      '--batch_size is of --step=sample; a training step has '
      '--config.train.batch_size.'
    )
  if args.batch_size is not None and args.batch_size < 1:
    raise ValueError(f'--batch_size is {args.batch_size}; it is at least 1.')
  if args.deadline is not None and not args.deadline > 0:
    raise ValueError(f'--deadline is {args.deadline}; it is in days, above 0.')


def ask(args, topology, *, batch_size=None, note=''):
  """-> facts of one slice, with another batch if one is given."""
  from cdm.planning import compile_process

  overrides = [list(pair) for pair in args.overrides]
  if batch_size and args.step == 'train':
    overrides.append(['train.batch_size', str(batch_size)])
  request = {
    'config': args.config,
    'overrides': overrides,
    'topology': topology,
    'step': args.step,
    'batch_size': batch_size or args.batch_size or 64,
    'quick': args.quick,
    'keep': compile_process.keep(),
    'fresh': args.fresh,
  }
  return compile_process.compile_in_process(
    request, label=f'compiling for {topology}{note}'
  )


def find_largest(args, facts):
  """-> {'batch_per_device', 'batch_size', 'tried'} of the largest that fits."""
  import sys

  from cdm.planning import plan_text, search

  parts = facts['mesh']['data'] * facts['mesh']['fsdp'] * facts['accumulation']
  tried = {}

  def fits(n):
    if n * parts not in tried:
      found = facts
      if n * parts != facts['batch_size']:
        each = n * facts['accumulation']
        note = f', {each} images per part of the batch'
        found = ask(args, facts['topology'], batch_size=n * parts, note=note)
        print(f'  {each} images: {plan_text.verdict(found)}', file=sys.stderr)
      tried[n * parts] = found
    return tried[n * parts]['fits']

  n = search.largest(fits, start=facts['batch_size'] // parts)
  return {
    'batch_per_device': n * facts['accumulation'],
    'batch_size': n * parts,
    'tried': [
      {
        'batch_size': size,
        'fits': found['fits'],
        'peak_bytes_per_device': found['peak_bytes_per_device'],
      }
      for size, found in sorted(tried.items())
    ],
  }


def largest_line(found):
  """-> a sentence about the largest batch."""
  if not found['batch_size']:
    return 'largest batch: not even one image per part of the batch fits'
  return (
    f'largest batch that fits, to an eighth: {found["batch_per_device"]:,} '
    f'images per part of the batch, {found["batch_size"]:,} in all'
  )
