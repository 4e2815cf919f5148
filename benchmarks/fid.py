"""FID of two folders by cdm, torch-fidelity and pytorch-fid, side by side.

  pip install torch-fidelity pytorch-fid
  python benchmarks/fid.py A B --weights=FILE.pth

The same images and the same weights (the PyTorch port). Prints what each says
and how many images per second it took, decoding included and compiling not,
and the seconds that FID itself takes once the features are there. pytorch-fid
resizes as PyTorch does and so has another number by design. The Inception
Score is set beside torch-fidelity's with the bias of the logits left out, as it
has it.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH = 50  # theirs; ours is what it takes by itself


def ours(a, b, weights):
  import numpy as np

  from cdm.evaluation import compare_sets, feature_statistics
  from cdm.evaluation.metrics.inception_score import inception_score

  metrics = ('fid', 'is', 'kid', 'pr')
  with tempfile.TemporaryDirectory() as folder:
    judge = compare_sets.Gatherer(weights, keep=folder)
    sources = [
      compare_sets.resolve(path, num=None, seed=None, overrides=())
      for path in (a, b)
    ]
    # Compiles.
    size = judge._extractor.batch_size
    judge._extractor(next(iter(sources[0].batches(0, size)))[1])
    start = time.perf_counter()
    found = [judge(source, metrics, 'cdm') for source in sources]
    took = time.perf_counter() - start
    start = time.perf_counter()
    size = min(1000, *(source.count for source in sources))
    row = compare_sets.set_metrics.compare(
      *found, metrics=metrics, kid_size=size
    )
    last = time.perf_counter() - start
    batch = features_of(found[0], np)
    start = time.perf_counter()
    feature_statistics.summarize(
      batch, np.arange(BATCH), metrics=metrics, count=BATCH
    )
    sums = time.perf_counter() - start
  # torch-fidelity leaves the bias of the logits out and shuffles.
  unbiased = np.concatenate(
    [
      judge._extractor(images).logits_unbiased
      for _, images in sources[0].batches(0, BATCH)
    ]
  )
  row['is_torch_fidelity'], _ = inception_score(unbiased, shuffle_seed=2020)
  row['sums_ms_per_image'] = 1e3 * sums / BATCH
  return row, sum(source.count for source in sources) / took, last


def features_of(found, np):
  """-> Features of one batch, of the pooled ones that were gathered."""
  from cdm.models.inception import Features

  pool = np.concatenate(found.features)[:BATCH]
  return Features(pool, pool[:, :2023], pool[:, :1008], pool[:, :1008])


def torch_fidelity(a, b, weights):
  import torch_fidelity as peer

  count = sum(len(list(pathlib.Path(p).iterdir())) for p in (a, b))
  size = min(1000, *(len(list(pathlib.Path(p).iterdir())) for p in (a, b)))
  start = time.perf_counter()
  row = peer.calculate_metrics(
    input1=str(a),
    input2=str(b),
    batch_size=BATCH,
    cuda=False,
    isc=True,
    fid=True,
    kid=True,
    prc=True,
    kid_subset_size=size,
    feature_extractor_weights_path=str(weights),
    feature_extractor='inception-v3-compat',
    samples_find_deep=False,
    cache=False,
    verbose=False,
  )
  return row, count / (time.perf_counter() - start)


def pytorch_fid(a, b, weights):
  with tempfile.TemporaryDirectory() as home:
    os.environ['TORCH_HOME'] = home
    hub = pathlib.Path(home) / 'hub' / 'checkpoints'
    hub.mkdir(parents=True)
    shutil.copy(weights, hub / 'pt_inception-2015-12-05-6726825d.pth')
    from pytorch_fid import fid_score

    count = sum(len(list(pathlib.Path(p).iterdir())) for p in (a, b))
    start = time.perf_counter()
    value = fid_score.calculate_fid_given_paths(
      [str(a), str(b)], BATCH, 'cpu', 2048, num_workers=0
    )
    return value, count / (time.perf_counter() - start)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('a', type=pathlib.Path)
  parser.add_argument('b', type=pathlib.Path)
  parser.add_argument('--weights', required=True, type=pathlib.Path)
  args = parser.parse_args()
  row, speed, last = ours(args.a, args.b, args.weights)
  theirs, their_speed = torch_fidelity(args.a, args.b, args.weights)
  other, other_speed = pytorch_fid(args.a, args.b, args.weights)
  print(f'{"":24}{"cdm":>14}{"torch-fidelity":>16}{"pytorch-fid":>14}')
  for title, mine, name in (
    ('FID', row['fid'], 'frechet_inception_distance'),
    ('KID', row['kid'], 'kernel_inception_distance_mean'),
    ('IS, unbiased', row['is_torch_fidelity'], 'inception_score_mean'),
    ('precision', row['precision'], 'precision'),
    ('recall', row['recall'], 'recall'),
  ):
    third = f'{other:14.6f}' if title == 'FID' else ''
    print(f'{title:24}{mine:14.6f}{theirs[name]:16.6f}{third}')
  speeds = f'{speed:14.2f}{their_speed:16.2f}{other_speed:14.2f}'
  print(f'{"images per second":24}{speeds}')
  print(f'{"cdm is faster by":24}{"":14}', end='')
  print(f'{speed / their_speed:16.2f}{speed / other_speed:14.2f}')
  each = row['sums_ms_per_image']
  print(f'cdm: sums {each:.2f} ms per image; {last:.1f} s at the end')


if __name__ == '__main__':
  main()
