"""`cdm evaluate` of two folders, beside torch-fidelity and pytorch-fid.

  python benchmarks/fid.py A B --weights=FILE.pth --torch_python=PYTHON \
      [--rounds=2] [--out=ROWS.jsonl]

PYTHON has PyTorch, torch-fidelity and pytorch-fid. Each program is a process of
its own that scores folder A against folder B from beginning to end, with the
same images and the same weights (the PyTorch port); the programs take turns.
cdm and torch-fidelity compute FID, KID, the Inception Score, precision and
recall, pytorch-fid only FID, and it resizes as PyTorch does, so that its FID is
another by design. Printed are the scores and the images per second of whole
processes, so starting, compiling and the last step are included.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH = 50  # of the peers, their default; cdm takes what it takes by itself
KID_SUBSET = 1000
# Of cdm and torch-fidelity.
NAMES = {
  'fid': 'frechet_inception_distance',
  'kid': 'kernel_inception_distance_mean',
  'precision': 'precision',
  'recall': 'recall',
}


def main(argv=None):
  args = parse(argv)
  if args.peer:
    print(json.dumps(PEERS[args.peer](args.a, args.b, args.weights)))
    return
  counts = [sum(1 for _ in folder.iterdir()) for folder in (args.a, args.b)]
  scores, seconds = {}, {name: [] for name in ('cdm', *PEERS)}
  for _ in range(args.rounds):
    for name, took in seconds.items():
      begin = time.perf_counter()
      scores[name] = measured(name, args)
      took.append(time.perf_counter() - begin)
      print(f'{name}: {took[-1]:.1f} s', file=sys.stderr, flush=True)
  row = {'images': counts, 'scores': scores, 'seconds': seconds}
  print(table(row))
  if args.out:
    from cdm.reporting import jsonl

    jsonl.append(args.out, [row])


def parse(argv):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('a', type=pathlib.Path)
  add('b', type=pathlib.Path)
  add('--weights', required=True, type=pathlib.Path)
  add('--torch_python', default=sys.executable)
  add('--rounds', type=int, default=2)
  add('--out', type=pathlib.Path, help='file of rows, JSON lines')
  add('--peer', choices=tuple(PEERS), help=argparse.SUPPRESS)
  return parser.parse_args(argv)


def measured(name, args):
  """Runs one program from beginning to end; returns its scores."""
  folders = [str(folder.resolve()) for folder in (args.a, args.b)]
  weights = f'--weights={args.weights.resolve()}'
  if name != 'cdm':
    command = [args.torch_python, __file__, *folders, weights, f'--peer={name}']
    return json.loads(output(command).splitlines()[-1])
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / 'row.json'
    output(
      [
        *(sys.executable, '-m', 'cdm', 'evaluate', weights),
        f'--samples={folders[0]}',
        f'--reference={folders[1]}',
        '--metrics=fid,kid,is,pr',
        f'--kid_size={kid_size(args.a, args.b)}',
        '--few',  # Fewer images than features are scored with a warning.
        f'--out={out}',
      ]
    )
    return json.loads(out.read_text(encoding='utf-8'))


def output(command):
  """Returns what a command prints; a failing one ends this program."""
  ran = subprocess.run(
    command,
    stdout=subprocess.PIPE,
    text=True,
    check=False,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )
  if ran.returncode:
    raise SystemExit(f'{" ".join(command)} ended with {ran.returncode}.')
  return ran.stdout


def kid_size(*folders):
  return min(KID_SUBSET, *(len(list(folder.iterdir())) for folder in folders))


def torch_fidelity(a, b, weights):
  import torch_fidelity as peer

  row = peer.calculate_metrics(
    input1=str(a),
    input2=str(b),
    batch_size=BATCH,
    cuda=False,
    isc=True,
    fid=True,
    kid=True,
    prc=True,
    kid_subset_size=kid_size(a, b),
    feature_extractor_weights_path=str(weights),
    feature_extractor='inception-v3-compat',
    samples_find_deep=False,
    cache=False,
    verbose=False,
  )
  return {name: float(row[theirs]) for name, theirs in NAMES.items()}


def pytorch_fid(a, b, weights):
  with tempfile.TemporaryDirectory() as home:
    os.environ['TORCH_HOME'] = home
    hub = pathlib.Path(home) / 'hub' / 'checkpoints'
    hub.mkdir(parents=True)
    shutil.copy(weights, hub / 'pt_inception-2015-12-05-6726825d.pth')
    from pytorch_fid import fid_score

    value = fid_score.calculate_fid_given_paths(
      [str(a), str(b)], BATCH, 'cpu', 2048, num_workers=0
    )
    return {'fid': float(value)}


PEERS = {'torch-fidelity': torch_fidelity, 'pytorch-fid': pytorch_fid}


def table(row):
  """Returns a row as a table in Markdown."""
  names = list(row['seconds'])
  lines = [f'| | {" | ".join(names)} |', '|---' * (len(names) + 1) + '|']
  for metric in NAMES:
    values = [row['scores'][name].get(metric) for name in names]
    cells = ['' if value is None else f'{value:.6f}' for value in values]
    lines.append(f'| {metric} | {" | ".join(cells)} |')
  count = sum(row['images'])
  speeds = [count / statistics.median(row['seconds'][name]) for name in names]
  cells = [f'{speed:.2f}' for speed in speeds]
  lines.append(f'| images per second | {" | ".join(cells)} |')
  ratios = [
    statistics.median(
      theirs / ours
      for ours, theirs in zip(
        row['seconds']['cdm'], row['seconds'][name], strict=True
      )
    )
    for name in names
  ]
  cells = [f'{ratio:.2f}' for ratio in ratios]
  lines.append(f'| cdm is faster by | {" | ".join(cells)} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
