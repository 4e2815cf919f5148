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
import jax.numpy as jnp
import numpy as np

from cdm.config import evaluated_images
from cdm.evaluation.metrics import consistency, distortion, fid
from cdm.ops import keys as ops_keys
from cdm.reporting import contact_sheet, image_files
from cdm.sampling import restore
from cdm.sampling import upscaler as upscalers

CROP = 32
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
  """Returns a function of uint8 [N, H, W, 3] -> [N * crops, 64].

  The network is [He et al. 2016] for CIFAR-10 with option A: a shortcut takes
  every second pixel and adds channels of zeros on both sides.
  """
  weights = {k: jnp.asarray(v) for k, v in np.load(path).items()}

  def conv(x, name, stride=1):
    kernel = weights[name].transpose(2, 3, 1, 0)
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      ((1, 1), (1, 1)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  def norm(x, name):
    part = {
      k: weights[f'{name}.{k}']
      for k in ('weight', 'bias', 'running_mean', 'running_var')
    }
    scale = part['weight'] / jnp.sqrt(part['running_var'] + 1e-5)
    return (x - part['running_mean']) * scale + part['bias']

  def block(x, name, stride):
    h = jax.nn.relu(
      norm(conv(x, f'{name}.conv1.weight', stride), f'{name}.bn1')
    )
    h = norm(conv(h, f'{name}.conv2.weight'), f'{name}.bn2')
    short = x[:, ::stride, ::stride]
    more = (h.shape[-1] - short.shape[-1]) // 2
    return jax.nn.relu(h + jnp.pad(short, ((0, 0),) * 3 + ((more, more),)))

  count = sum(f'layer1.{i}.conv1.weight' in weights for i in range(99))

  @jax.jit
  def network(crops):
    mean = jnp.array([0.485, 0.456, 0.406])
    x = (crops / 255.0 - mean) / jnp.array([0.229, 0.224, 0.225])
    x = jax.nn.relu(norm(conv(x, 'conv1.weight'), 'bn1'))
    for layer in (1, 2, 3):
      for i in range(count):
        x = block(x, f'layer{layer}.{i}', 2 if layer > 1 and i == 0 else 1)
    return x.mean((1, 2))

  def features(images):
    n, h, w, _ = images.shape
    crops = images.reshape(n, h // CROP, CROP, w // CROP, CROP, 3)
    crops = crops.swapaxes(2, 3).reshape(-1, CROP, CROP, 3)
    parts = np.array_split(crops, -(-len(crops) // 512))
    return np.concatenate([np.asarray(network(part)) for part in parts])

  features.network = network
  return features


if __name__ == '__main__':
  main()
