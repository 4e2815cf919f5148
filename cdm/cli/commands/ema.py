"""`cdm ema` makes averages of other widths from a run's snapshots."""

import argparse

from cdm.distributed import initialize

DESCRIPTION = """\
List the snapshots of the power-function averages that a run has written
(config.ema.power_stds and config.ema.snapshot_every_steps), and the widths of
averages that they express: how far the response of the reconstruction is from
the wanted one, and how large the rounding of the snapshots becomes in it.

With --std and --out, make averages of those widths (post-hoc EMA, EDM2) and
write each as a work directory, from which every command draws like from any
other. With several widths, that of 0.05 is in OUT/std_0.05, and so on.

To draw once, `cdm sample --ema=std=0.05` makes the average on the way, and
`cdm sweep --try=ema=0.02,0.05,0.1` judges several.
"""
EPILOG = """\
examples:
  cdm ema runs/photos/base
  cdm ema runs/photos/base --std=0.075 --out=runs/photos/base_075
  cdm ema runs/photos/base --std=0.03,0.05,0.1 --at=4000 --out=runs/widths
"""

# Of the table, those between the ends of the range that are expressed.
SHOWN = (0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.125, 0.15)
SHOWN += (0.2, 0.25)


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    'workdir', metavar='WORKDIR', help='work directory of a training run'
  )
  parser.add_argument(
    '--std',
    metavar='W,W,...',
    help='widths: relative standard deviations, such as 0.05',
  )
  parser.add_argument(
    '--at',
    type=int,
    metavar='STEP',
    help='step of the averages, that of a snapshot (default: the last one)',
  )
  parser.add_argument(
    '--out', metavar='DIR', help='a new work directory for each average'
  )
  initialize.arguments(parser)


def run(args: argparse.Namespace) -> None:
  """Lists what is there, or writes the averages."""
  import pathlib

  from cdm.distributed import collectives
  from cdm.reporting import output_files
  from cdm.sampling import average_workdir, posthoc_average

  wanted = widths(args.std)
  if bool(wanted) != bool(args.out):
    raise ValueError(
      'cdm ema takes --std and --out together, to write averages, or neither, '
      'to list what is there.'
    )
  if args.out:
    output_files.check_folder_name(args.out)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  found = posthoc_average.find(pathlib.Path(args.workdir), args.at)
  if not wanted:
    if collectives.is_first():
      print('\n'.join(posthoc_average.listing(found, SHOWN)))
    return
  for std, fit in zip(wanted, found.fits(wanted), strict=True):
    posthoc_average.check(found, std, fit)  # all, before one is written
  for std in wanted:
    out = pathlib.Path(args.out)
    if len(wanted) > 1:
      out = out / f'std_{std:g}'
    origin = average_workdir.write(found, out, std)
    if collectives.is_first():
      print(
        f'{out}: std={std:g} of step {origin["step"]}, from '
        f'{origin["snapshots"]} snapshots; response off by '
        f'{origin["residual"]:.2%}, rounding {origin["noise"]:.3%}'
      )


def widths(text: str | None) -> list[float]:
  """Parses --std.

  Raises:
    ValueError: one is no width.
  """
  if text is None:
    return []
  from cdm.ops import power_function

  found = []
  for word in text.split(','):
    try:
      found.append(float(word))
      power_function.exponent(found[-1])
    except ValueError:
      raise ValueError(
        f'--std={text}: {word!r} is no width; give numbers above 0 and up to '
        f'{power_function.MOST_STD:.4f}, such as 0.05.'
      ) from None
  if len(set(found)) < len(found):
    raise ValueError(f'--std={text} names a width twice.')
  return found
