"""`cdm sweep`: judges one setting after the other, and names the best."""

from cdm.cli import evaluation_flags
from cdm.distributed import initialize

DESCRIPTION = """\
Draw and judge the same images once for every combination of settings: the
augmentation levels of a cascade, truncated or not (CDM's ablation), the steps
and betas of an inference schedule (SR3's search), guidance. Prints a table and
names the best by the first metric. Stopped, it continues.

Writes into OUT: rows.jsonl (a row of `cdm evaluate` per setting) and table.md.
"""
EPILOG = """\
examples:
  cdm sweep --samples=configs/cdm_cascade64.py@runs/cdm --num=10000 \\
      --reference=imagenet64_val.npz --out=runs/cdm/levels \\
      --try=stages.sr64.level=0,0.05,0.1,0.2,0.3 \\
      --try=stages.sr64.truncated=False,True
  cdm sweep --samples=runs/sr3@eval --reference=runs/sr3_eval.npz \\
      --out=runs/sr3/schedule --num=5000 \\
      --try=sampler.grid.num_steps=50,100 \\
      --try=sampler.grid.beta_max=0.1,0.185,0.3
  cdm sweep --samples=runs/cdm/sr64@eval ... --try=level=0,0.1,0.2

WHAT: see `cdm evaluate --help`. Choose on held-out data, and report on other.
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--samples', required=True, metavar='WHAT', help='what is drawn'
  )
  parser.add_argument(
    '--reference', required=True, metavar='WHAT', help='what it should be like'
  )
  parser.add_argument(
    '--try',
    action='append',
    required=True,
    dest='tries',
    metavar='KEY=V,V,...',
    help='values of a setting; may be given again',
  )
  parser.add_argument(
    '--metrics',
    default='fid',
    metavar='M,M,...',
    help='of sets; the first one decides (default: fid)',
  )
  parser.add_argument('--out', required=True, metavar='DIR', help='of the rows')
  evaluation_flags.arguments(parser)
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args):
  """Prints the table."""
  from cdm.distributed import compilation_cache
  from cdm.evaluation import sweep

  metrics = args.metrics.split(',')
  for metric in metrics:
    if metric not in evaluation_flags.SETS:
      raise ValueError(
        f'--metrics names {metric!r}; known are '
        f'{", ".join(evaluation_flags.SETS)}.'
      )
  evaluation_flags.check(args, metrics)
  sweep.settings(args.tries)  # complain before anything is restored
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  compilation_cache.enable_compilation_cache()
  rows, best = sweep.sweep(
    args.samples,
    args.reference,
    args.out,
    tries=args.tries,
    metrics=metrics,
    overrides=args.overrides,
    network=evaluation_flags.network(args),
    **evaluation_flags.comparison(args),
  )
  print(sweep.table(rows, metrics, best), end='')
