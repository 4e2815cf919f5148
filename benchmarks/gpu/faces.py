"""Trains the faces from 16 to 128 pixels for some minutes, and scores them.

  python benchmarks/gpu/run.py 4 OUT --prepared=FOLDER [-- --minutes=7
      --config=FILE --config.KEY=VALUE]

The run begins from the weights in FOLDER/weights, if an earlier job left some,
so that several jobs make one long training. OUT gets weights.json and its parts
first, then rows.jsonl, scores.md and images.png: the held-out faces enlarged by
bicubic interpolation, by the network's mean and by sampling, see
`benchmarks/super_resolution.py`. OUT must not be committed: its images are of
real people, and its weights were trained on them.
"""

import json
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import claim_data  # noqa: E402
from benchmarks.gpu import (  # noqa: E402
  picture_archives,
  result_rows,
  timed_training,
  training_arguments,
  weight_parts,
)

CONFIG = 'configs/faces_small_16to128.py'
ARCHIVE = 'faces128.zip'
SIZE = 128
COLUMNS = (
  'method', 'psnr', 'ssim', 'consistency', 'crop_frechet', 'seconds_per_image'
)  # fmt: skip
SMOKE = (
  *training_arguments.SMOKE,
  '--config.model.patch_size=8',
  '--config.sampler.grid.spacing=2',
)
SMOKE_IMAGES = 8


def main(argv=None):
  """Unpacks, trains, writes the weights, then scores."""
  args, words = parse(argv)
  rows = result_rows.Rows(args.out, 'faces', smoke=args.smoke, device=args.card)
  data = face_data(args)
  workdir = args.work / 'run'
  begun = start(args.prepared / 'weights', args.work / 'source')
  with timed_training.Stopped() as stopped:
    figures = timed_training.train(
      [
        f'--config={args.config}',
        *data,
        *quiet(),
        *begun.words,
        *(SMOKE if args.smoke else ()),
        *words,
      ],
      workdir,
      minutes=args.minutes,
      stopped=stopped,
    )
    keep(workdir, args.out, begun.steps)
    rows.add(
      config=args.config,
      overrides=words,
      earlier_steps=begun.steps,
      minutes=args.minutes,
      **figures,
    )
    if stopped.asked:
      raise SystemExit('Stopped before the scores; the weights are written.')
  score(workdir, args, rows)


class Begun:
  """What a run begins from.

  Attributes:
    words: of `cdm train`.
    steps: steps of the runs before.
  """

  def __init__(self, words=(), steps=0):
    self.words, self.steps = words, steps


def parse(argv):
  """Returns (arguments, words for `cdm train`).

  Seven minutes of training leave three of ten for the start and the scores.
  """
  parser = training_arguments.parser(
    __doc__, minutes=7.0, num=410, of='scored images'
  )
  parser.add_argument('--config', default=CONFIG)
  return training_arguments.parse(parser, argv)


def face_data(args):
  """Unpacks the faces; -> words of `cdm train`."""
  most = SMOKE_IMAGES if args.smoke else 0
  words = []
  for section, half in (('train', 'train'), ('eval', 'val')):
    path = picture_archives.unpack(
      args.prepared / 'data' / ARCHIVE,
      args.work / 'faces' / half,
      half=half,
      size=SIZE,
      most=most,
    )
    words += [
      f'--config.{section}_data.kind=archive',
      f'--config.{section}_data.path={path}',
    ]
  return words


def quiet():
  """Returns the words of a run that the clock ends, without work beside it."""
  return (
    f'--config.train.num_steps={timed_training.ENDLESS}',
    # Often enough for a crash, seldom enough to cost nothing.
    '--config.train.save_every_steps=5000',
    '--config.train.sample_every_steps=0',
    '--config.eval.every_steps=0',
    '--config.eval.num_pairs=0',
    '--config.eval.best=',
  )


def start(parts, workdir):
  """Makes a run of an earlier job's weights; -> Begun."""
  if not (parts / weight_parts.INDEX).exists():
    return Begun()
  command('weight_parts.py', f'--restore={workdir}', f'--parts={parts}')
  index = json.loads((parts / weight_parts.INDEX).read_text(encoding='utf-8'))
  return Begun((f'--config.train.init_from={workdir}',), index['total_steps'])


def keep(workdir, out, earlier_steps):
  """Writes the weights of a run as parts."""
  command(
    'weight_parts.py',
    f'--write={workdir}',
    f'--parts={out}',
    f'--earlier_steps={earlier_steps}',
  )


def command(script, *words):
  """Runs a script of this folder; ends the job if it fails.

  It has a process of its own, because a process that uses JAX keeps the GPU.
  """
  path = ROOT / 'benchmarks' / 'gpu' / script
  code = subprocess.run([sys.executable, path, *words], cwd=ROOT).returncode
  if code:
    raise SystemExit(f'{script} ended with {code}; see above.')


def score(workdir, args, rows):
  """Scores the held-out faces, and adds a row for every way of enlarging."""
  network = claim_data.unpack_network(
    args.prepared / 'data', args.work / 'network'
  )
  folder = args.work / 'scores'
  num = SMOKE_IMAGES if args.smoke else args.num
  words = [sys.executable, ROOT / 'benchmarks' / 'super_resolution.py']
  words += [f'--workdir={workdir}', f'--out={folder}', f'--num={num}']
  words += [f'--classifier={network}']
  words += ['--batch_size=8'] if args.smoke else ['--batch_size=205']
  code = subprocess.run(words, cwd=ROOT).returncode
  if code:
    raise SystemExit(f'super_resolution.py ended with {code}; see above.')
  scores = json.loads((folder / 'scores.json').read_text(encoding='utf-8'))
  for method, figures in scores['rows'].items():
    rows.add(method=method, images=num, **figures)
  result_rows.write_table(args.out, 'scores.md', rows.rows[1:], COLUMNS)
  shutil.copy2(folder / 'images.png', args.out / 'images.png')


if __name__ == '__main__':
  main()
