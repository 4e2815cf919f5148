"""Trains a class-conditional base model for some minutes; sweeps guidance.

  python benchmarks/gpu/run.py 7 OUT --prepared=FOLDER [-- --images=cifar10
      --minutes=6 --config.KEY=VALUE]

The network is that of configs/images_small_64.py: CIFAR-10 at 32 pixels, where
it works on single pixels, or Imagenette at 64. OUT gets the weights in parts
first, then a row for every weight of guidance and, at the best weight, for
every number of sampling steps: the Fréchet distance to the held-out images in
the features of a CIFAR-10 ResNet. It compares with no published FID. OUT must
not be committed: its weights were trained on the images of others.
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
  faces,
  picture_archives,
  result_rows,
  timed_training,
  training_arguments,
)

CONFIG = 'configs/images_small_64.py'
SIZES = {'cifar10': 32, 'imagenette': 64}
# With 64 features the network has 20M parameters, which go home in three parts.
WORDS = {
  'cifar10': (
    '--config.pipeline.image_size=32',
    '--config.model.patch_size=1',
    '--config.model.features=64',
  ),
  'imagenette': ('--config.model.features=64',),
}
STEPS = 32  # at which guidance is swept
GUIDANCE = (0.0, 0.25, 0.5, 1.0, 2.0)
OTHER_STEPS = (4, 8, 16, 64)
COLUMNS = ('guidance_weight', 'sampling_steps', 'fd', 'images')
SMOKE = (*training_arguments.SMOKE, '--config.model.patch_size=4')
SMOKE_IMAGES = 16


def main(argv=None):
  """Unpacks, trains, writes the weights, then sweeps."""
  args, words = parse(argv)
  rows = result_rows.Rows(
    args.out, 'classes', smoke=args.smoke, device=args.card
  )
  data = class_data(args)
  workdir = args.work / 'run'
  begun = faces.start(args.prepared / 'weights', args.work / 'source')
  with timed_training.Stopped() as stopped:
    figures = timed_training.train(
      [
        f'--config={CONFIG}',
        # The kind first: a section of another kind has other keys.
        *(f'--config.{k}_data.kind=archive' for k in data),
        *(f'--config.{k}_data.path={v}' for k, v in data.items()),
        *faces.quiet(),
        *WORDS[args.images],
        *begun.words,
        *(SMOKE if args.smoke else ()),
        *words,
      ],
      workdir,
      minutes=args.minutes,
      stopped=stopped,
    )
    faces.keep(workdir, args.out, begun.steps)
    rows.add(
      images=args.images,
      overrides=words,
      earlier_steps=begun.steps,
      minutes=args.minutes,
      **figures,
    )
    if stopped.asked:
      raise SystemExit('Stopped before the sweep; the weights are written.')
  judge(workdir, data['eval'], args, rows)


def parse(argv):
  """Returns (arguments, words for `cdm train`)."""
  parser = training_arguments.parser(
    __doc__, minutes=6.0, num=2000, of='drawn per row'
  )
  parser.add_argument('--images', choices=SIZES, default='cifar10')
  return training_arguments.parse(parser, argv)


def class_data(args):
  """Unpacks both halves; -> {'train': images.npz, 'eval': images.npz}."""
  archives, folder = args.prepared / 'data', args.work / args.images
  if args.images == 'cifar10':
    claim_data.unpack('cifar10', archives, folder)
    return {
      'train': folder / 'train' / 'images.npz',
      'eval': folder / 'test' / 'images.npz',
    }
  packs = claim_data.SETS['imagenette']
  return {
    section: picture_archives.unpack(
      archives / packs[name],
      folder / half,
      half=half,
      size=SIZES[args.images],
      most=SMOKE_IMAGES if args.smoke else 0,
    )
    for section, half, name in (
      ('train', 'train', 'train'),
      ('eval', 'val', 'test'),
    )
  }


def judge(workdir, held_out, args, rows):
  """Adds a row for every weight of guidance and every number of steps."""
  network = claim_data.unpack_network(
    args.prepared / 'data', args.work / 'network'
  )
  guidance, others = GUIDANCE, OTHER_STEPS
  at, num = STEPS, args.num
  if args.smoke:
    guidance, others, at, num = GUIDANCE[:3:2], (2,), 3, SMOKE_IMAGES
  given = (workdir, held_out, network, num, args)
  found = sweep(
    'guidance', 'sampler.guidance_weight', guidance, {'grid.spacing': at}, given
  )
  for row in found:
    rows.add(
      guidance_weight=float(row['setting'][0][1]),
      sampling_steps=at,
      fd=row['fd'],
      images=num,
    )
  best = min(found, key=lambda row: row['fd'])['setting'][0][1]
  fixed = {'guidance_weight': best}
  for row in sweep('steps', 'sampler.grid.spacing', others, fixed, given):
    rows.add(
      guidance_weight=float(best),
      sampling_steps=int(row['setting'][0][1]),
      fd=row['fd'],
      images=num,
    )
  result_rows.write_table(args.out, 'sweep.md', rows.rows[1:], COLUMNS)


def sweep(name, key, values, fixed, given):
  """Runs `cdm sweep` over the values of one key; -> its rows.

  Args:
    name: name of the sweep.
    key: dotted key of the config.
    values: its values.
    fixed: {key of the section `sampler`: value} of the other keys.
    given: (work directory, held-out images, network, images, arguments).
  """
  workdir, held_out, network, num, args = given
  out = args.work / name
  words = [sys.executable, '-m', 'cdm', 'sweep']
  words += [f'--samples={CONFIG}@{workdir}', f'--reference={held_out}']
  words += [f'--try={key}={",".join(map(str, values))}']
  words += [f'--config.sampler.{k}={v}' for k, v in fixed.items()]
  words += ['--metrics=fd', f'--weights={network}', f'--num={num}', '--few']
  words += [f'--out={out}']
  print('$', *words[2:], flush=True)
  code = subprocess.run(words, cwd=ROOT).returncode
  if code:
    raise SystemExit(f'cdm sweep ended with {code}; see above.')
  lines = (out / 'rows.jsonl').read_text(encoding='utf-8').splitlines()
  shutil.copy2(out / 'rows.jsonl', args.out / f'sweep_{name}.jsonl')
  return [json.loads(line) for line in lines]


if __name__ == '__main__':
  main()
