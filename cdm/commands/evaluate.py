"""`cdm evaluate`: PSNR, SSIM and consistency of pairs, as one JSON row."""

from cdm import processes

DESCRIPTION = """\
Compare images with their references, pair by pair: PSNR, SSIM (scikit-image's
conventions, named in the output) and, with --lowres, SR3's consistency of the
images with the low-res images they were made from. Prints one JSON row.
"""
EPILOG = """\
WHAT is a folder of images (paired by name) or an .npz with arr_0.

example:
  cdm evaluate --samples=OUT/upscaled --reference=OUT/original \\
      --lowres=OUT/lowres --out=OUT/row.json
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--samples', required=True, metavar='WHAT', help='images to judge'
  )
  parser.add_argument(
    '--reference', required=True, metavar='WHAT', help='what they should be'
  )
  parser.add_argument(
    '--lowres',
    metavar='WHAT',
    help='low-res inputs; adds consistency and the scores of bicubic',
  )
  parser.add_argument(
    '--downsample',
    default='bicubic',
    metavar='FILTER',
    help='filter that made the low-res inputs (default: bicubic)',
  )
  parser.add_argument(
    '--out', metavar='FILE', help='also write the row to this file'
  )
  processes.arguments(parser)


def run(args):
  """Prints the row."""
  import json

  from cdm.evaluate import pairs

  processes.join(args.coordinator_address, args.num_processes, args.process_id)
  row = pairs.evaluate_paths(
    args.samples,
    args.reference,
    lowres=args.lowres,
    downsample=args.downsample,
  )
  text = json.dumps(row)
  print(text)
  if args.out and processes.is_first():
    import pathlib

    path = pathlib.Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + '\n')
