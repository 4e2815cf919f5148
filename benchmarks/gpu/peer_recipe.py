"""Sets our faces beside the public PyTorch SR3's network and recipe.

  python benchmarks/gpu/run.py 8 OUT --prepared=FOLDER [-- --minutes=3
      --peer_batch_size=4 --peer_bfloat16 --config.KEY=VALUE]

Both train on the same faces for the same minutes on the same GPU, one after the
other, and enlarge the same held-out low-res faces; one program scores both.
Theirs is `peer_training`, ours `cdm train` of configs/faces_small_16to128.py.
OUT gets rows.jsonl, scores.md and images.png. OUT must not be committed: its
images are of real people.
"""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import claim_data  # noqa: E402
from benchmarks.gpu import (  # noqa: E402
  faces,
  result_rows,
  timed_training,
  training_arguments,
)

COLUMNS = (
  'method', 'psnr', 'ssim', 'consistency', 'crop_frechet', 'seconds_per_image'
)  # fmt: skip


def main(argv=None):
  """Trains ours, trains theirs, then scores both."""
  args, words = parse(argv)
  rows = result_rows.Rows(
    args.out, 'peer_recipe', smoke=args.smoke, device=args.card
  )
  data = faces.face_data(args)
  workdir = args.work / 'ours'
  given = [f'--config={faces.CONFIG}', *data, *faces.quiet()]
  given += [*(faces.SMOKE if args.smoke else ()), *words]
  with timed_training.Stopped() as stopped:
    figures = timed_training.train(
      given, workdir, minutes=args.minutes, stopped=stopped
    )
    rows.add(side='cdm', minutes=args.minutes, overrides=words, **figures)
    if stopped.asked:
      raise SystemExit('Stopped after our training.')
  inputs = args.work / 'lowres.npz'
  num = faces.SMOKE_IMAGES if args.smoke else args.num
  scoring = [f'--workdir={workdir}', f'--num={num}', f'--inputs={inputs}']
  faces.command('peer_scores.py', *scoring)
  drawn = args.work / 'theirs.npz'
  rows.add(
    side='PyTorch SR3', minutes=args.minutes, **theirs(args, inputs, drawn)
  )
  network = claim_data.unpack_network(
    args.prepared / 'data', args.work / 'network'
  )
  faces.command(
    'peer_scores.py',
    *scoring,
    f'--drawn={drawn}',
    f'--classifier={network}',
    f'--out={args.out}',
  )
  scores = json.loads((args.out / 'scores.json').read_text(encoding='utf-8'))
  for method, found in scores.items():
    rows.add(method=method, images=num, **found)
  result_rows.write_table(args.out, 'scores.md', rows.rows[2:], COLUMNS)


def parse(argv):
  """Returns (arguments, words for `cdm train`)."""
  # 2000 steps an image; 64 images tell two PSNRs apart by about 0.3 dB.
  parser = training_arguments.parser(
    __doc__, minutes=3.0, num=64, of='scored images'
  )
  parser.add_argument('--peer_batch_size', type=int, default=4)
  parser.add_argument('--peer_bfloat16', action='store_true')
  return training_arguments.parse(parser, argv)


def theirs(args, inputs, drawn):
  """Trains and draws with the peer's recipe; -> its figures."""
  words = [sys.executable, ROOT / 'benchmarks' / 'gpu' / 'peer_training.py']
  words += [f'--train={args.work / "faces" / "train" / "images.npz"}']
  words += [f'--held_out={inputs}', f'--out={drawn}']
  words += [f'--minutes={args.minutes}', f'--batch_size={args.peer_batch_size}']
  words += ['--bfloat16'] if args.peer_bfloat16 else []
  words += ['--smoke'] if args.smoke else []
  done = subprocess.run(
    words, cwd=ROOT, stdout=subprocess.PIPE, encoding='utf-8'
  )
  print(done.stdout, end='', flush=True)
  if done.returncode:
    raise SystemExit(f'peer_training.py ended with {done.returncode}.')
  return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == '__main__':
  main()
