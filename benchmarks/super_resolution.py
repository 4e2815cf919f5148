"""Scores a trained super-resolution stage beside bicubic interpolation.

  python benchmarks/super_resolution.py --workdir=RUN --out=DIR \
      --classifier=cifar10_resnet56.npz

Held-out images of the run are shrunk and enlarged three ways: by bicubic
interpolation; by the mean, the network's own estimate in one step from pure
noise, which is what a regression would learn; and by sampling as the run's
config says. OUT gets scores.json, scores.md and images.png.

The crop Fréchet distance compares crops of 32 pixels of the results with those
of the originals, in the 64 pooled features of a ResNet of CIFAR-10 whose .npz
file has PyTorch's parameter names. It is a stand-in: its numbers compare with
each other and not with any published FID.
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np

from cdm.config import evaluated_images
from cdm.evaluation import feature_extractor, feature_networks
from cdm.evaluation.metrics import consistency, distortion, fid
from cdm.ops import keys as ops_keys
from cdm.reporting import contact_sheet, image_files
from cdm.sampling import restore
from cdm.sampling import upscaler as upscalers

MEAN = (
  ('sampler.kind', 'ddim'),
  ('sampler.grid.kind', 'uniform_logsnr'),
  ('sampler.grid.num_steps', '1'),
)


def main() -> None:
  """Draws, scores, and writes the table and the images."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--classifier', type=pathlib.Path, help='.npz file')
  parser.add_argument('--num', type=int, default=410, help='images')
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--shown', type=int, default=6, help='rows of images.png')
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)

  upscaler, saved = restored(args, ())
  originals, label = evaluated_images.read_held_out(saved, args.num)(
    range(args.num)
  )
  lowres = upscaler.shrink(originals)
  given = {'keys': ops_keys.seed_pairs(0, range(args.num)), 'label': label}
  drawn, seconds = {}, {}
  for name, run in (
    ('bicubic', None),
    ('mean', restored(args, MEAN)[0]),
    ('sample', upscaler),
  ):
    began = time.monotonic()
    if run is None:
      drawn[name] = np.stack([upscalers.bicubic(x, upscaler) for x in lowres])
    else:
      drawn[name] = run(lowres, **given)
    seconds[name] = time.monotonic() - began
  features = feature_function(args.classifier) if args.classifier else None
  rows = {
    name: score(images, originals, lowres, features)
    | (
      {'seconds_per_image': seconds[name] / args.num} if name in seconds else {}
    )
    for name, images in (drawn | {'original': originals}).items()
    if name in seconds or features
  }
  title = {
    'checkpoint': upscaler.record.checkpoint,
    'experiment': upscaler.record.experiment,
    'images': args.num,
    'device': jax.devices()[0].device_kind,
    'jax': jax.__version__,
  }
  (args.out / 'scores.json').write_text(
    json.dumps(title | {'rows': rows}), encoding='utf-8'
  )
  text = table(rows)
  (args.out / 'scores.md').write_text(text, encoding='utf-8')
  print(json.dumps(title))
  print(text, end='')
  columns = [lowres, *drawn.values(), originals]
  sheet = contact_sheet.sheet(
    [
      [contact_sheet.magnify(c[n], upscaler.image_size) for c in columns]
      for n in range(min(args.shown, args.num))
    ],
    heads=['low-res', *drawn, 'original'],
  )
  image_files.write_png(args.out / 'images.png', sheet)


def restored(args, overrides):
  """Returns (Upscaler, config) of the run."""
  return restore.restored_upscaler(
    args.workdir, level=0.0, batch_size=args.batch_size, overrides=overrides
  )


def score(images, originals, lowres, features) -> dict[str, float]:
  """Returns the means of the paired metrics, and the crop Fréchet distance."""
  found = {}
  if images is not originals:
    found = {
      'psnr': float(np.mean(distortion.psnr(images, originals))),
      'ssim': float(np.mean(distortion.ssim(images, originals))),
      'consistency': float(np.mean(consistency.consistency(images, lowres))),
    }
  if features is not None:
    # The originals' halves give the distance of two sets of the same kind.
    if images is originals:
      images, originals = images[::2], images[1::2]
    a, b = (fid.moments(features(x)) for x in (images, originals))
    distance = fid.fid(a.mean, a.covariance, b.mean, b.covariance)
    found['crop_frechet'] = float(distance)
  return found


def table(rows) -> str:
  """Returns a Markdown table with a line per way of enlarging."""
  names = ['psnr', 'ssim', 'consistency', 'crop_frechet', 'seconds_per_image']
  lines = ['| | ' + ' | '.join(names) + ' |', '|---' * (len(names) + 1) + '|']
  for title, row in rows.items():
    cells = [f'{row[n]:.4g}' if n in row else '' for n in names]
    lines.append(f'| {title} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines) + '\n'


def feature_function(path: pathlib.Path):
  """Returns a function of uint8 [N, H, W, 3] -> [N * squares, 64]."""
  network = feature_networks.read(path)
  extract = feature_extractor.Extractor(network)
  return lambda images: extract(images).pool.reshape(-1, network.sizes['fd'])


if __name__ == '__main__':
  main()
