"""Prints whether a photo model is good enough to ship: scores beside bicubic.

  python benchmarks/photo_gate.py --workdir=RUN --sets=sr_core.zip \
      --held_out=DIR [--features=metric_nets.zip]

RUN is the work directory of configs/photo_faithful.py or photo_detailed.py, of
a run that may still go on. Pictures of Set5, Set14, BSD100 and held-out
photographs are enlarged 4x as `cdm upscale --detail=0` does, from their low-res
files as they are, and from the same blurred, noised and compressed as in
training, of which the network is told. A line for each set says what was gained
over bicubic of the same input, and whether that is enough; PSNR and SSIM are of
luma, with a border of 4 pixels left out. Then come the weave and the shift of
colour; and for a stage that draws details, with --features, how far they look
like photographs, see `photo_crops`. The exit code is 1 if anything fails. A
JSON row is added to RUN/photo_gate.jsonl.

  python benchmarks/photo_gate.py --workdir=RUN --strange=1000

enlarges strange inputs instead, and looks for values that are not finite.
"""

import argparse
import json
import pathlib
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import photo_crops
import photo_sets
import photo_strange
from photo_enlarger import Enlarger, How
from photo_features import MobileNet
from photo_judged import Judged

from cdm.data import low_res_inputs
from cdm.evaluation.metrics import weave
from cdm.ops import pair_scores, pixels

BORDER = 4  # pixels
# Gains over bicubic that a faithful model must have on clean input, dB.
LEAST_GAIN = {'Set5': 2.6, 'Set14': 1.7, 'BSD100': 1.1}
LEAST_DEGRADED_GAIN = 1.0  # on degraded input, dB
MOST_LOSS = 0.05  # of any picture, dB
MOST_SHIFT = 0.5  # of the mean of a channel, grey levels
MOST_WEAVE = 1.05
# Of a set's mean: the published score of one picture of Set14 is 0.04 dB off
# whatever the rounding, those of nearly all others are within 0.005 dB.
MOST_BICUBIC_ERROR = 0.01  # dB
PATCH = 4  # pixels of the sides of squares that both networks work on


class Scores(NamedTuple):
  """The scores of the pictures of a set, in dB and SSIM; each [N]."""

  bicubic: np.ndarray
  ours: np.ndarray
  bicubic_ssim: np.ndarray
  ours_ssim: np.ndarray


def main() -> int:
  args = _arguments()
  enlarger = Enlarger(args.workdir, args.step)
  began, judged = time.monotonic(), Judged()
  if args.strange:
    photo_strange.judge(enlarger, args.strange, judged)
  else:
    judge(enlarger, args, judged)
  row = {
    'checkpoint': enlarger.step,
    'passed': judged.passed,
    'seconds': round(time.monotonic() - began, 1),
    'jax': jax.__version__,
    'rows': judged.rows,
  }
  home = args.workdir if args.workdir.is_dir() else args.workdir.parent
  with open(home / 'photo_gate.jsonl', 'a', encoding='utf-8') as file:
    file.write(json.dumps(row) + '\n')
  print(f'checkpoint {enlarger.step}: {"pass" if judged.passed else "FAIL"}')
  return 0 if judged.passed else 1


def _arguments():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--sets', type=pathlib.Path, help='zip or folder')
  parser.add_argument('--held_out', type=pathlib.Path, help='folder')
  parser.add_argument('--only', default='', help='sets, such as Set5,Set14')
  parser.add_argument('--step', help='a step, or best; the newest if left out')
  parser.add_argument(
    '--features',
    type=pathlib.Path,
    help='weights of MobileNetV2, see photo_features; for details',
  )
  parser.add_argument('--strange', type=int, default=0, metavar='N')
  args = parser.parse_args()
  if not (args.strange or args.sets or args.held_out):
    parser.error('give --sets, --held_out or --strange')
  return args


def judge(enlarger, args, judged):
  """Prints the table of all sets, and what is measured over all of them."""
  print(
    '| set | input | pictures | bicubic, published | bicubic | ours | gain | '
    'SSIM bicubic | ours | worst picture | |\n' + '|---' * 11 + '|'
  )
  shift, smooth = 0.0, []
  for name, pairs in _sets(args):
    for kind in ('clean', 'degraded'):
      results = []
      for i, pair in enumerate(pairs):
        low, damage = _input(pair, kind, i)
        results.append((pair, photo_sets.bicubic(low), enlarger(low, damage)))
      _add_set(judged, name, kind, results)
      if kind == 'clean':
        shift = max([shift, *(_shift(up, y) for _, up, y in results)])
        if name == photo_sets.HELD_OUT:
          smooth = results
  judged.add(
    f'shift of a channel: at most {shift:.3f} grey levels',
    shift <= MOST_SHIFT,
    measure='shift',
    value=shift,
  )
  if smooth:
    _add_weave(judged, 'the mean', smooth)
  if smooth and enlarger.draws_details:
    clean, how = low_res_inputs.CLEAN, How(detail=1.0)
    drawn = [(p, up, enlarger(p.low, clean, how)) for p, up, _ in smooth]
    _add_weave(judged, 'detail 1', drawn)
    if args.features is not None:
      pairs = [pair for pair, *_ in smooth]
      photo_crops.judge(enlarger, pairs, MobileNet(args.features), judged)


def _sets(args):
  """Yields (name, pairs) of the sets that are asked for."""
  only = set(args.only.split(',')) if args.only else None
  for name in photo_sets.PUBLISHED:
    if args.sets and (only is None or name in only):
      yield name, photo_sets.read_published(args.sets, name)
  name = photo_sets.HELD_OUT
  if args.held_out and (only is None or name in only):
    yield name, photo_sets.read_held_out(args.held_out)


def _input(pair, kind, number):
  """Returns (low-res image, its damage); it depends on the number alone."""
  degradation, rng = low_res_inputs.CLEAN, np.random.default_rng((0, number))
  if kind == 'degraded':
    while degradation == low_res_inputs.CLEAN:
      degradation = low_res_inputs.draw(rng, 1.0)
      nothing = not degradation.blur and not degradation.noise
      if nothing and degradation.quality is None:
        degradation = low_res_inputs.CLEAN
  low = low_res_inputs.degrade(pair.low, degradation, rng)
  return low, degradation


def _add_set(judged, name, kind, results):
  """Scores a set and adds its lines."""
  scores = _scores(results)
  gains = scores.ours - scores.bicubic
  gain, worst = float(gains.mean()), int(gains.argmin())
  least = LEAST_DEGRADED_GAIN if kind == 'degraded' else LEAST_GAIN.get(name)
  known = [pair.published for pair, _, _ in results]
  published = ''
  if kind == 'clean' and None not in known:
    published = f'{np.mean(known):.2f}'
    errors = np.asarray(scores.bicubic - known)
  means = [float(x.mean()) for x in scores]
  judged.add(
    f'{name} | {kind} | {len(results)} | {published} | {means[0]:.2f} | '
    f'{means[1]:.2f} | {gain:+.2f} | {means[2]:.4f} | {means[3]:.4f} | '
    f'{gains[worst]:+.2f} {results[worst][0].name}',
    (least is None or gain >= least) and gains[worst] >= -MOST_LOSS,
    measure='gain',
    set=name,
    input=kind,
    value=gain,
    least=least,
    worst=float(gains[worst]),
    **dict(zip(Scores._fields, means, strict=True)),
  )
  if published:
    error, most = float(abs(errors.mean())), float(np.abs(errors).max())
    judged.add(
      f'{name}: bicubic is the published one within {error:.4f} dB, of each '
      f'picture within {most:.3f} dB',
      error <= MOST_BICUBIC_ERROR,
      measure='bicubic_error',
      set=name,
      value=error,
      largest=most,
    )


def _scores(results) -> Scores:
  """Scores pictures and their bicubic enlargements."""
  rows = []
  for pair, *images in results:
    height, width = pair.original.shape[:2]
    inner = np.s_[BORDER : height - BORDER, BORDER : width - BORDER]
    truth, *found = (
      photo_sets.grey_levels(x[:height, :width], pair.is_grey)[inner][..., None]
      for x in (
        pair.original,
        *(np.asarray(pixels.to_uint8(i)) for i in images),
      )
    )
    rows.append(
      [pair_scores.psnr(x, truth) for x in found]
      + [pair_scores.ssim(x, truth, window='gaussian11') for x in found]
    )
  return Scores(*np.array(rows, float).T)


def _shift(enlarged, restored):
  """Returns how far the mean of a channel moved, at most, in grey levels."""
  return float(127.5 * np.abs((restored - enlarged).mean(axis=(0, 1))).max())


def _add_weave(judged, what, results):
  """Adds the lines of the weave on flat areas, of three kinds of pictures."""
  originals = [pair.original.mean(axis=-1) for pair, _, _ in results]
  for name, images, most in (
    ('originals', originals, None),
    ('bicubic', [_grey(up) for _, up, _ in results], None),
    (what, [_grey(y) for *_, y in results], MOST_WEAVE),
  ):
    power, count = weave.spectrum(images, originals)
    value = weave.weave(power, PATCH)
    judged.add(
      f'weave of {name} at 1/{PATCH} cycles per pixel: {value:.3f} '
      f'({count:,} flat segments)',
      None if most is None else value <= most,
      measure='weave',
      of=name,
      value=value,
      segments=count,
    )


def _grey(x):
  return 127.5 * (x.mean(axis=-1) + 1.0)


if __name__ == '__main__':
  sys.exit(main())
