"""`cdm report`: one page about runs, their pictures and their numbers."""

DESCRIPTION = """\
Put training runs, samples and super-resolved images on one self-contained
HTML page with the pictures, the loss curves and a table. Prints the table.

Writes into OUT: report.html, report.json and copies of the pictures.
"""
EPILOG = """\
example:
  cdm report --run=runs/photos/base --run=runs/photos/sr \\
      --samples=runs/photos/samples --upscaled=runs/photos/held_out \\
      --row=runs/photos/held_out/row.json --out=runs/photos
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--run',
    action='append',
    required=True,
    metavar='DIR',
    help='work directory of a training run; may be given again',
  )
  parser.add_argument(
    '--samples', metavar='DIR', help='what `cdm sample` wrote'
  )
  parser.add_argument(
    '--upscaled', metavar='DIR', help='what `cdm upscale` wrote'
  )
  parser.add_argument(
    '--row', metavar='FILE', help='what `cdm evaluate --out` wrote'
  )
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='where the page goes'
  )
  parser.add_argument(
    '--title', default='Cascaded diffusion', help='of the page'
  )


def run(args):
  """Writes the page and prints the table and the paths."""
  from cdm.training import run_report

  facts = run_report.summarise(
    args.run, samples=args.samples, upscaled=args.upscaled, row=args.row
  )
  paths = run_report.write(facts, args.out, title=args.title)
  print(run_report.text(facts))
  print()
  for path in paths:
    print(path)
