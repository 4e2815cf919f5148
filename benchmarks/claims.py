"""Runs the papers' claims on real images, at a size that fits a CPU.

  python benchmarks/claims.py --data=FOLDER --workdirs=RUNS --out=ROWS.jsonl \
      [--seed=K] [--only=CLAIM[/PIECE],...] [--smoke]
  python benchmarks/claims.py --out=ROWS.jsonl --table

A claim has pieces: trainings, sweeps, and settings that are drawn and judged.
Each finished piece appends a row to --out, and a piece whose row is there is
not run again. The command may be stopped (SIGTERM, Ctrl-C) or killed at any
time: started again it goes on, and so do the trainings, bit for bit. --table
prints the tables of the rows.

  cifar10     [CDM]: augmentation of the low-res image, truncated sampling, and
              blur; the cascade against one model of equal training FLOPs
  imagenette  [CDM]: augmentation once more
  faces       [SR3]: regression, PULSE and SR3 side by side; fewer steps
  prsr        [PRSR]: the temperature

FOLDER has the archives that `claim_data.py` lists.
"""

import argparse
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
  claim_data,
  claim_faces,
  claim_pieces,
  claim_runner,
  claim_tables,
)
from cdm.reporting import jsonl  # noqa: E402

# In the order in which they run.
CLAIMS = {
  'cifar10': claim_pieces.of_cascade,
  'faces': claim_faces.of_sr3,
  'prsr': claim_faces.of_prsr,
  'imagenette': claim_pieces.of_augmentation,
}
OF_COMPARISONS = ('faces', 'prsr')
NUM, SMOKE_NUM = 5_000, 32  # images drawn for each figure


def main(argv=None):
  args = parse(argv)
  if args.table:
    print(claim_tables.markdown(jsonl.read(args.out)), end='')
    return
  runner = claim_runner.Runner(args.workdirs, names(args))
  for claim, pieces in CLAIMS.items():
    if claim in OF_COMPARISONS and not (args.comparison or args.only):
      print(f'{claim} is left out: it needs --comparison.')
      continue
    todo = [p for p in pieces() if wanted(args, claim, p)]
    done = {key(row) for row in jsonl.read(args.out)}
    todo = [
      p for p in todo if (claim, p.name, args.seed, args.smoke) not in done
    ]
    if todo:
      place = prepared(args, claim)
    for piece in todo:
      run(piece, place, runner, args.out)


def parse(argv):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--data', type=pathlib.Path, help='folder of the archives')
  add('--out', type=pathlib.Path, required=True, help='the rows, JSON lines')
  add('--workdirs', type=pathlib.Path, help='folder outside the repository')
  add('--seed', type=int, default=0)
  add('--only', default='', help='claims or pieces, with commas between')
  add(
    '--comparison',
    type=pathlib.Path,
    action='append',
    default=[],
    metavar='FILE',
    help='comparison.json of a `cdm compare` of faces; may be repeated, and '
    'the first one that has a method counts',
  )
  add('--table', action='store_true', help='print the tables of --out')
  add('--smoke', action='store_true', help='tiny settings: tests this script')
  args = parser.parse_args(argv)
  if not args.table:
    for name in ('data', 'workdirs'):
      if getattr(args, name) is None:
        parser.error(f'--{name} is missing; only --table goes without it.')
    args.data, args.workdirs = args.data.resolve(), args.workdirs.resolve()
    if args.workdirs.is_relative_to(ROOT):
      parser.error(
        f'--workdirs={args.workdirs} is inside the repository; give a folder '
        'outside it.'
      )
    args.workdirs.mkdir(parents=True, exist_ok=True)
  known = {
    name
    for claim, pieces in CLAIMS.items()
    for name in (claim, *(f'{claim}/{p.name}' for p in pieces()))
  }
  args.only = [name for name in args.only.split(',') if name]
  for name in args.only:
    if name not in known:
      parser.error(f'--only={name}: known are {", ".join(sorted(known))}.')
  return args


def names(args):
  """Returns the words that stand for this machine's folders in a row."""
  found = {args.workdirs: 'RUNS', args.data: 'DATA'}
  for path in args.comparison:
    found[path.resolve().parent] = 'COMPARED'
    for folder in claim_faces.trained_in(path):
      found.setdefault(folder, 'FACES')
  return found


def wanted(args, claim, piece):
  return not args.only or bool({claim, f'{claim}/{piece.name}'} & {*args.only})


def key(row):
  return row['claim'], row['piece'], row['seed'], row['smoke']


def prepared(args, claim):
  """Unpacks the images of a claim, and returns where its files are."""
  data = args.workdirs / 'data'
  network = claim_data.unpack_network(args.data, data)
  if claim in claim_data.SETS:
    claim_data.unpack(claim, args.data, data / claim)
  work = (
    args.workdirs / claim / f'{"smoke" if args.smoke else "seed"}{args.seed}'
  )
  work.mkdir(parents=True, exist_ok=True)
  return claim_pieces.Place(
    claim,
    data / claim,
    work,
    network,
    args.seed,
    SMOKE_NUM if args.smoke else NUM,
    args.smoke,
    tuple(path.resolve() for path in args.comparison),
  )


def run(piece, place, runner, out):
  """Runs what is left of a piece, and appends its row."""
  commands = piece.commands(place)
  owner = f'{place.claim}/{place.work.name}/{piece.name}'
  for words in commands:
    runner.run(words, owner)
  spent = runner.usage(owner)
  row = {
    'claim': place.claim,
    'piece': piece.name,
    'seed': place.seed,
    'smoke': place.smoke,
    'data': claim_data.DESCRIPTIONS[place.claim],
    'figures': piece.figures(place),
    'cpu_core_hours': spent.cpu_core_hours,
    'wall_hours': spent.wall_hours,
    'samples': (
      min(place.num, claim_faces.images(place))
      if place.claim in OF_COMPARISONS
      else place.num
    ),
    'commands': [runner.shown(words) for words in commands],
    'ended': time.strftime('%Y-%m-%d %H:%M', time.gmtime()),
    **claim_runner.circumstances(),
  }
  jsonl.append(out, [row], allow_nan=False)
  print(f'{place.claim}/{piece.name}: {row["figures"]}', flush=True)


if __name__ == '__main__':
  main()
