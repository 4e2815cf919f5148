"""Widens a trained photo_faithful, so that a larger network starts from it.

  python benchmarks/widen_photo.py --workdir=RUN --features=64 --out=FILE
  cdm train --config=configs/photo_faithful.py --config.model.features=64 \
      --config.train.init_from=FILE ...

RUN is a work directory, or a file that `cdm export` made of it; FILE ends in
.safetensors. The wider network computes what the narrow one does: its new
channels are drawn at random, and nothing old reads them yet (Net2Net, Chen et
al. 2016, with zeros in the place of copies). They learn from the first step on,
because the gradient of a weight that reads them is not zero.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

from cdm.checkpointing import packed_stage
from cdm.sampling import exported_stage


def main() -> int:
  args = _arguments()
  read = exported_stage.read_stage(args.workdir, args.step)
  config = json.loads(read.text)
  old, config['model']['features'] = config['model']['features'], args.features
  if args.features < old:
    raise ValueError(f'--features={args.features}: there are {old} already.')
  packed = packed_stage.write(
    args.out,
    widened(read.params, args.features, np.random.default_rng(args.seed)),
    config=json.dumps(config),
    step=read.step,
  )
  count = sum(array.size for array in packed.arrays.values())
  print(f'{args.out}: {old} -> {args.features} channels, {count:,} parameters')
  return 0


def widened(params: dict, features: int, rng: np.random.Generator) -> dict:
  """Returns parameters of an `UnshuffledResnet` with more channels.

  Args:
    params: those of the narrow network.
    features: channels of the wide one.
    rng: of the new weights.
  """
  params = {name: _plain(layer) for name, layer in params.items()}
  wide = dict(params)
  wide['conv_in'] = _conv(params['conv_in'], None, features, rng)
  wide['film_in'] = _film(params['film_in'], features)
  wide['conv_out'] = _conv(params['conv_out'], features, None, rng)
  for name, block in params.items():
    if name.startswith('block_'):
      wide[name] = {
        'conv1': _conv(block['conv1'], features, features, rng),
        'film': _film(block['film'], features),
        'conv2': _conv(block['conv2'], features, features, rng),
      }
  return wide


def _plain(tree):
  """Returns arrays of NumPy, whatever boxes they are in."""
  if hasattr(tree, 'items'):
    return {name: _plain(value) for name, value in tree.items()}
  return np.asarray(getattr(tree, 'value', tree))


def _conv(layer, inputs, outputs, rng):
  """Widens a convolution [3, 3, I, O]; None leaves a side as it is."""
  kernel, bias = layer['kernel'], layer['bias']
  height, width, old_in, old_out = kernel.shape
  new_in, new_out = inputs or old_in, outputs or old_out
  scale = 1.0 / np.sqrt(height * width * new_in)
  wide = rng.normal(0.0, scale, (height, width, new_in, new_out))
  wide[:, :, old_in:, :old_out] = 0.0
  wide[:, :, :old_in, :old_out] = kernel
  more = np.zeros(new_out - old_out)
  return {
    'kernel': wide.astype(np.float32),
    'bias': np.concatenate([bias, more]).astype(np.float32),
  }


def _film(layer, features):
  """Widens the scales and shifts [E, 2 F] of channels; new ones are zero."""
  return {
    name: np.concatenate(
      [
        np.concatenate([half, np.zeros((*half.shape[:-1], more))], axis=-1)
        for half in np.split(value, 2, axis=-1)
      ],
      axis=-1,
    ).astype(np.float32)
    for name, value in layer.items()
    for more in [features - value.shape[-1] // 2]
  }


def _arguments():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--step', help='a step, or best; the newest if left out')
  parser.add_argument('--features', type=int, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--seed', type=int, default=0)
  return parser.parse_args()


if __name__ == '__main__':
  sys.exit(main())
