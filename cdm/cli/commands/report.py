"""`cdm report` writes an HTML page about runs, their images and results."""

import argparse

DESCRIPTION = """\
Put training runs, samples and super-resolved images on one self-contained
HTML page with the images, the loss curves and a table, and print the table.

Writes into OUT: report.html, report.json and copies of the images.
"""
EPILOG = """\
example:
  cdm report --run=runs/photos/base --run=runs/photos/sr \\
      --samples=runs/photos/samples --upscaled=runs/photos/held_out \\
      --row=runs/photos/held_out/row.json --out=runs/photos
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--run',
    action='append',
    required=True,
    metavar='DIR',
    help='work directory of a training run; may be repeated',
  )
  parser.add_argument(
    '--samples', metavar='DIR', help='output folder of `cdm sample`'
  )
  parser.add_argument(
    '--upscaled', metavar='DIR', help='output folder of `cdm upscale`'
  )
  parser.add_argument(
    '--enlarged',
    metavar='FILE',
    help='NAME_compare.png that `cdm upscale --compare` wrote',
  )
  parser.add_argument(
    '--row', metavar='FILE', help='output file of `cdm evaluate --out`'
  )
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='folder for the page'
  )
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='replace files of these names that no earlier report wrote',
  )
  parser.add_argument(
    '--title', default='Cascaded diffusion', help='title of the page'
  )


def run(args: argparse.Namespace) -> None:
  """Writes the page and prints the table and the paths of the files."""
  from cdm.evaluation import metrics_table
  from cdm.reporting import output_files
  from cdm.training import run_report

  output_files.check_folder_name(args.out)
  facts = run_report.summarise(
    args.run,
    samples=args.samples,
    upscaled=args.upscaled,
    row=args.row,
    enlarged=args.enlarged,
  )
  numbers = metrics_table.numbers()
  paths = run_report.write(
    facts,
    args.out,
    title=args.title,
    numbers=numbers,
    overwrite=args.overwrite,
  )
  print(run_report.text(facts, numbers=numbers))
  print()
  for path in paths:
    print(path)
