"""Scores two programs' enlarged faces with one program, in one table.

  peer_scores.py --workdir=RUN --num=N --inputs=LOWRES.npz
  peer_scores.py --workdir=RUN --num=N --inputs=LOWRES.npz --drawn=THEIRS.npz
      --classifier=RESNET.npz --out=DIR

The first form writes the low-res versions of the run's held-out faces, which
both programs are given. The second draws with the run, and scores its images,
those of THEIRS.npz and bicubic interpolation, as
`benchmarks/super_resolution.py` does; DIR gets scores.json and images.png.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import super_resolution  # noqa: E402
from cdm.config import evaluated_images  # noqa: E402
from cdm.ops import keys as ops_keys  # noqa: E402
from cdm.reporting import contact_sheet, image_files  # noqa: E402
from cdm.sampling import restore  # noqa: E402
from cdm.sampling import upscaler as upscalers  # noqa: E402

SHOWN = 6  # rows of images.png


def main(argv=None):
  """Writes the inputs, or draws and scores."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--num', type=int, required=True)
  parser.add_argument('--inputs', type=pathlib.Path, required=True)
  parser.add_argument('--drawn', type=pathlib.Path)
  parser.add_argument('--classifier', type=pathlib.Path)
  parser.add_argument('--out', type=pathlib.Path)
  args = parser.parse_args(argv)
  upscaler, saved = restore.restored_upscaler(
    args.workdir, level=0.0, batch_size=min(args.num, 64)
  )
  read = evaluated_images.read_held_out(saved, args.num)
  originals, label = read(range(args.num))
  lowres = upscaler.shrink(originals)
  if args.drawn is None:
    np.savez(args.inputs, arr_0=lowres)
    return
  pairs = ops_keys.seed_pairs(0, range(args.num))
  began = time.monotonic()
  ours = upscaler(lowres, keys=pairs, label=label)
  seconds = (time.monotonic() - began) / args.num
  drawn = {
    'bicubic': np.stack([upscalers.bicubic(x, upscaler) for x in lowres]),
    'PyTorch SR3': np.load(args.drawn)['arr_0'],
    'cdm': ours,
  }
  features = super_resolution.feature_function(args.classifier)
  scores = {
    name: super_resolution.score(images, originals, lowres, features)
    for name, images in drawn.items()
  }
  scores['cdm']['seconds_per_image'] = seconds  # with compiling
  (args.out / 'scores.json').write_text(json.dumps(scores), encoding='utf-8')
  columns = [lowres, *drawn.values(), originals]
  sheet = contact_sheet.sheet(
    [
      [contact_sheet.magnify(c[n], upscaler.image_size) for c in columns]
      for n in range(min(SHOWN, args.num))
    ],
    heads=['low-res', *drawn, 'original'],
  )
  image_files.write_png(args.out / 'images.png', sheet)


if __name__ == '__main__':
  main()
