"""Fits RAISR to photographs and scores it on Set5, Set14 and BSD100.

  python benchmarks/raisr.py --data=DIR

DIR has photos_free.zip, photographs whose names begin with train/, and
sr_core.zip, the published sets, as SelfExSR's repository names their files
(Set5/x2/img_001_SRF_2_HR, ..._LR, BSD100/HR_full_jpg/...), and its table
selfexsr_tables.json of published scores. Low-res files of the sets are taken as
they are; where there are none, the originals are shrunk by bicubic.

The score is the PSNR of MATLAB's luma, of grey files that of their pixels,
with a border of `factor` pixels left out, as in the papers of these sets.
Prints a table in Markdown.
"""

import argparse
import dataclasses
import io
import json
import pathlib
import time
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cdm.config import loader, stage
from cdm.methods import raisr
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import pixels, resize

CROP = 240  # pixels; a multiple of 2, 3 and 4
BATCH = 8  # crops
SETS = ('Set5', 'Set14', 'BSD100')


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--data', required=True, type=pathlib.Path)
  parser.add_argument('--factors', default='2,3,4')
  parser.add_argument('--crops', type=int, default=32, help='per photograph')
  parser.add_argument('--blending', default='none', choices=raisr.BLENDINGS)
  args = parser.parse_args()
  with zipfile.ZipFile(args.data / 'photos_free.zip') as photos:
    crops = read_crops(photos, args.crops)
  print(
    '| set | factor | bicubic, published | bicubic | RAISR | gain |\n'
    '|---|---|---|---|---|---|'
  )
  for factor in map(int, args.factors.split(',')):
    made, params, note = fitted(crops, factor, args.blending)
    with zipfile.ZipFile(args.data / 'sr_core.zip') as sets:
      published = json.loads(read_bytes(sets, 'selfexsr_tables.json'))
      for name in SETS:
        row(made, params, name, pairs(sets, name, factor), published)
    print(f'<!-- {factor}x: {note} -->', flush=True)


def read_crops(photos, each):
  """Returns uint8 [N, CROP, CROP, 3], `each` of every photograph, shuffled."""
  rng = np.random.default_rng(0)
  crops = []
  for name in sorted(photos.namelist()):
    if not name.startswith('train/') or name.endswith('/'):
      continue
    image, _ = read_image(photos, name)
    for _ in range(each):
      top, left = (
        int(rng.integers(side - CROP + 1)) for side in image.shape[:2]
      )
      crops.append(image[top : top + CROP, left : left + CROP])
  crops = np.stack(crops)
  return rng.permutation(crops)[: len(crops) // BATCH * BATCH]


def fitted(crops, factor, blending):
  """Returns (Raisr, its filters, a sentence about the fit)."""
  options = stage.stage(loader.load('configs/raisr_x2.py')).objective
  options = dataclasses.replace(options, blending=blending)
  lowres = Lowres(size=CROP // factor, upsample='bilinear')
  made = raisr.Raisr(options, CROP, lowres)
  accumulate = jax.jit(made.accumulate, donate_argnums=0)
  params, start = made.init(jax.random.key(0)), time.perf_counter()
  for image in crops.reshape(-1, BATCH, CROP, CROP, 3):
    params, scalars = accumulate(params, {'image': image})
  filters = jax.jit(made.prepare)(params)
  seconds = time.perf_counter() - start
  patches = float(params['sums'][:, -1, -1].sum())
  note = (
    f'{patches / 1e6:.1f} million patches in {seconds:.0f} s, RMS error '
    f'{255 * float(scalars["loss"]) ** 0.5:.2f} of 255 (enlarged only: '
    f'{255 * float(scalars["loss_unfiltered"]) ** 0.5:.2f})'
  )
  return made, filters, note


def pairs(sets, name, factor):
  """Yields (original, low-res, is_grey) of a set; the images are uint8."""
  names = [n for n in sets.namelist() if f'/{name}/' in n]
  if name == 'BSD100':
    originals = sorted(n for n in names if 'HR_full' in n)
  else:
    originals = sorted(n for n in names if '_SRF_4_HR' in n)
  for path in originals:
    number = path.rsplit('/', 1)[1][:7]  # 'img_001'
    image, is_grey = read_image(sets, path)
    mark = f'{number}_SRF_{factor}_LR'
    given = [n for n in names if mark in n]
    if given:
      yield image, read_image(sets, given[0])[0], is_grey
      continue
    height, width = (n // factor * factor for n in image.shape[:2])
    image = image[:height, :width]
    size = (height // factor, width // factor)
    low = resize.resize_uint8(image, size, method='bicubic')
    yield image, np.asarray(low), is_grey


def row(made, params, name, images, published):
  """Prints the row of a set."""
  factor, sample = made.factor, jax.jit(made.sample)
  scores = []
  for original, low, is_grey in images:
    low = pixels.to_float(jnp.asarray(low)[None])
    size = tuple(factor * n for n in low.shape[1:3])
    bicubic = resize.resize(low, size, method='bicubic')
    ours = sample(params, lowres=low)
    scores.append([psnr(x, original, is_grey, factor) for x in (bicubic, ours)])
  bicubic, ours = np.mean(scores, axis=0)
  table = published['tables'].get(f'{name}_SRF_{factor}')
  known = '' if table is None else f'{np.mean(table["PSNR"], axis=0)[0]:.2f}'
  print(
    f'| {name} | {factor} | {known} | {bicubic:.2f} | {ours:.2f} | '
    f'{ours - bicubic:+.2f} |',
    flush=True,
  )


def psnr(x, original, is_grey, border):
  """Returns the PSNR of MATLAB's luma without the border, in dB.

  The originals of some sets are cropped to a multiple of 4, and some low-res
  images are larger than a quarter of that; the common part counts.
  """
  x = np.asarray(pixels.to_uint8(x))[0]
  height, width = np.minimum(x.shape[:2], original.shape[:2])
  inner = np.s_[border : height - border, border : width - border]
  a, b = (
    image[..., 0].astype(float) if is_grey else luma(image)
    for image in (x, original)
  )
  a, b = a[inner], b[inner]
  return 10 * np.log10(255**2 / np.mean((a - b) ** 2))


def luma(image):
  """Returns the Y of MATLAB's rgb2ycbcr, rounded, as the papers have it."""
  y = image @ np.array([65.481, 128.553, 24.966]) / 255 + 16
  return np.round(y)


def read_image(archive, name):
  """Returns (uint8 [H, W, 3], whether its file is grey)."""
  with Image.open(io.BytesIO(archive.read(name))) as image:
    return np.asarray(image.convert('RGB')), image.mode == 'L'


def read_bytes(archive, name):
  (path,) = (n for n in archive.namelist() if n.endswith(name))
  return archive.read(path)


if __name__ == '__main__':
  main()
