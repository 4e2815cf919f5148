"""Large pictures window by window: what it costs, and whether seams show.

  python benchmarks/canvas.py --workdir=RUN picture.png [...] \\
      [--label=N] [--size=64] [--overlaps=0.125,0.25,0.5] [--rounds=5]
  python benchmarks/canvas.py --smoke

Draws the central square of each picture with a trained super-resolution stage,
once as tiles that are drawn to the end and blended, and once for each overlap
as windows that are joined after every evaluation. It prints

  work       pixels that the network evaluates for one pixel of the result
  seam       the mean step between two columns at the borders of windows, over
             that of other columns at the same place in a low-res pixel; rows
             alike. 1 is no seam.
  contrast   standard deviation of the texture (what is left after shrinking and
             enlarging) where windows overlap, over that where they do not
  host       time of one window, step by step on the host, over that of one
             program for all steps: the median of the rounds, and the lowest
             and highest

--smoke takes a stage that knows nothing, and shows that the script runs.
"""

import argparse
import pathlib
import time

import jax
import numpy as np

from cdm.config import loader
from cdm.config import stage as build
from cdm.data import image_decoder
from cdm.ops import resize, tiling
from cdm.ops.keys import seed_pairs
from cdm.sampling import canvas_plan, cascade, restore, upscaler
from cdm.sampling.canvas_upscaler import CanvasUpscaler, Task
from cdm.sampling.picture_rows import WholePictures, levels
from cdm.sampling.restored_parameters import Checkpoint


def made(args):
  """-> `cascade.Stage`."""
  if args.smoke:
    c = loader.load('configs/smoke_sr.py', [('sampler.grid.spacing', '4')])
    built = build.stage(c)
    params = jax.jit(built.method.init)(jax.random.key(0))
    return cascade.Stage.of(built, params, None, name='smoke')
  return restore.restored_stage(Checkpoint(args.workdir), name='photo')[0]


def pictures(args):
  """-> uint8 [N, S, S, 3], the central squares."""
  if args.smoke:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (1, args.size, args.size, 3), np.uint8)
  found = []
  for path in args.pictures:
    image = image_decoder.read_pixels(path)
    top, left = ((n - args.size) // 2 for n in image.shape[:2])
    found.append(image[top : top + args.size, left : left + args.size])
  return np.stack(found)


def borders(intervals, length):
  """-> bool [length - 1] where a window ends, bool [length] where two are."""
  edges, times = np.zeros(length - 1, bool), np.zeros(length, int)
  for first, last in intervals:
    times[first:last] += 1
    for edge in (first, last):
      if 0 < edge < length:
        edges[edge - 1] = True
  return edges, times > 1


def seam(x, edges, factor):
  """-> the step at borders over that elsewhere, rows and columns together."""
  at, elsewhere = [], []
  for axis in (1, 2):
    steps = np.abs(np.diff(x.astype(float), axis=axis))
    steps = steps.mean(axis=tuple({0, 1, 2, 3} - {axis}))
    phase = np.arange(len(steps)) % factor == factor - 1
    at.append(steps[edges].mean())
    elsewhere.append(steps[phase & ~edges].mean())
  return np.mean(at) / np.mean(elsewhere)


def contrast(x, overlaps, factor):
  """-> contrast of the texture in overlaps over that outside."""
  x = x.astype(np.float32)
  size = x.shape[1]
  low = resize.resize(x, size // factor, method='area')
  texture = x - np.asarray(resize.resize(low, size, method='bicubic'))
  both = overlaps[:, None] & overlaps
  none = ~overlaps[:, None] & ~overlaps
  return texture[:, both].std() / texture[:, none].std()


def blended(stage, images, label):
  """-> (pictures of tiles that are blended, the tiles along an axis)."""
  upscale = upscaler.stage_upscaler(stage, None, batch_size=16)
  low = upscale.lowres_size
  results = []
  for n, image in enumerate(images):
    tiles, places = tiling.cut(image, low)
    x = upscale(
      tiles,
      keys=seed_pairs(n, np.arange(len(tiles))),
      label=None if label is None else np.full(len(tiles), label),
    )
    results.append(
      tiling.blend(
        tiles=x, places=places, shape=image.shape[:2], factor=upscale.factor
      )
    )
  starts = tiling.tile_starts(images.shape[1], low, low // 4)
  factor = upscale.factor
  return np.stack(results), [(s * factor, (s + low) * factor) for s in starts]


def joined(stage, images, label, overlap):
  """-> (pictures of windows that are joined, `Plan`)."""
  canvas = CanvasUpscaler.of(stage, batch_size=16, overlap=overlap)
  height, width = (canvas.factor * pixels for pixels in images.shape[1:3])
  plan = canvas.plan((height, width), count=len(images))
  task = Task(WholePictures(images), tuple(range(len(images))), label=label)
  x = np.concatenate(list(canvas.draw(task, plan)), axis=1)
  return levels(x, np.uint8), plan


def host(stage, label, rounds):
  """-> (median, lowest, highest) of the time of one window over a program's."""
  low = stage.lowres.size
  image = np.full((1, low, low, 3), 100, np.uint8)
  upscale = upscaler.stage_upscaler(stage, None, batch_size=1)
  labels = None if label is None else np.full(1, label)
  canvas = CanvasUpscaler.of(stage, batch_size=1)
  plan = canvas.plan((stage.image_size, stage.image_size))
  task = Task(WholePictures(image), label=label)

  def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start

  ratios = []
  for turn in range(rounds + 1):
    one = timed(lambda: upscale(image, keys=seed_pairs(0, [0]), label=labels))
    steps = timed(lambda: list(canvas.draw(task, plan)))
    if turn:  # the first compiles
      ratios.append(steps / one)
  return np.median(ratios), min(ratios), max(ratios)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('pictures', nargs='*')
  parser.add_argument('--workdir', type=pathlib.Path)
  parser.add_argument('--label', type=int)
  parser.add_argument('--size', type=int, default=64, help='low-res pixels')
  parser.add_argument('--overlaps', default='0.125,0.25,0.5')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--smoke', action='store_true')
  args = parser.parse_args()
  if args.smoke:
    args.size, args.rounds, args.label = 20, 2, 0
  stage, images = made(args), pictures(args)
  factor = stage.image_size // stage.lowres.size
  x, intervals = blended(stage, images, args.label)
  edges, overlaps = borders(intervals, x.shape[1])
  area = (len(intervals) * stage.image_size / x.shape[1]) ** 2
  print('drawn as      work     seam  contrast')
  print(
    f'blended   {area:8.2f} {seam(x, edges, factor):8.3f}  '
    f'{contrast(x, overlaps, factor):8.3f}',
    flush=True,
  )
  for overlap in map(float, args.overlaps.split(',')):
    x, plan = joined(stage, images, args.label, overlap)
    edges, overlaps = borders(plan.rows, x.shape[1])
    share = contrast(x, overlaps, factor) if not overlaps.all() else np.nan
    print(
      f'joined {overlap:.2g}'.ljust(14)
      + f'{plan.work:4.2f} {seam(x, edges, factor):8.3f}  {share:8.3f}',
      flush=True,
    )
  middle, low, high = host(stage, args.label, args.rounds)
  print(f'host: {middle:.3f} ({low:.3f} to {high:.3f})')
  print(f'memory of a canvas: {canvas_plan.MEMORY >> 20} MiB at most')


if __name__ == '__main__':
  main()
