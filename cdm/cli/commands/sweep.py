"""`cdm sweep` judges samples under several settings and names the best."""

import argparse

from cdm.cli import drawing_flags, evaluation_flags
from cdm.distributed import initialize
from cdm.evaluation import metrics_table

DESCRIPTION = """\
Draw and judge the same images once for every combination of settings: for
example the augmentation levels of a cascade, with or without truncated sampling
(CDM's ablation), the steps and betas of an inference schedule (SR3's search),
or guidance. Prints a table and names the best setting by the first metric. If
the command was stopped, the same command continues it.

--try=sampler=KIND,... and --try=steps=N,... are short for any sampler in any
number of steps, as the flags of `cdm sample` are; stages.STAGE.sampler and
stages.STAGE.steps are those of one stage of a cascade.

Writes into OUT: rows.jsonl (one row of `cdm evaluate` per setting), table.md,
and quality.html, a plot of the first metric against what an image costs.
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
  cdm sweep --samples=runs/sr3@eval ... --try=steps=4,8,16 \\
      --try=sampler=ddim,heun,dpm_solver_pp_2m
  cdm sweep --samples=runs/sr3@eval ... --try=start_level=0.2,0.4,0.6

WHAT and --reference_config.KEY=VALUE: see `cdm evaluate --help`. Choose the
best setting on held-out data, and report its score on other data.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments, and the list of metrics to its help."""
  parser.epilog = f'{EPILOG}\n{metrics_table.help_text(pairs=False)}'
  parser.add_argument(
    '--samples', required=True, metavar='WHAT', help='trained model to sample'
  )
  parser.add_argument(
    '--reference',
    required=True,
    metavar='WHAT',
    help='images to compare the samples with',
  )
  parser.add_argument(
    '--try',
    action='append',
    required=True,
    dest='tries',
    metavar='KEY=V,V,...',
    help='values of one config key; may be repeated',
  )
  parser.add_argument(
    '--metrics',
    default='fid',
    metavar='M,M,...',
    help='metrics of sets; the first one decides (default: fid)',
  )
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='folder for the rows'
  )
  evaluation_flags.arguments(parser)
  initialize.arguments(parser)


def run(args: argparse.Namespace) -> None:
  """Evaluates every setting and prints the table."""
  from cdm.distributed import compilation_cache, folder_lock
  from cdm.evaluation import sweep
  from cdm.reporting import output_files

  metrics = args.metrics.split(',')
  for metric in metrics:
    if metric not in metrics_table.SETS:
      raise ValueError(
        f'--metrics names {metric!r}; known are '
        f'{", ".join(metrics_table.SETS)}.'
      )
  evaluation_flags.check(args, metrics)
  drawing_flags.check(args)
  output_files.check_folder_name(args.out)
  sweep.settings(args.tries)  # Errors appear before a stage is restored.
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  compilation_cache.enable_compilation_cache()
  with folder_lock.hold(args.out, 'cdm sweep', flag='--out'):
    rows, best = sweep.sweep(
      args.samples,
      args.reference,
      args.out,
      tries=args.tries,
      choice=evaluation_flags.metric_choice(args, metrics),
      selection=evaluation_flags.selection(args),
      network=evaluation_flags.network(args),
      reference_overrides=args.reference_overrides,
    )
  print(sweep.table(rows, metrics, best), end='')
