"""Draws and scores: a row per image and degraded input, a row per k draws.

rows.jsonl holds the scores, draws.jsonl the sums of calibration; both have a
line as soon as it is there, and what is there is not drawn again. Sample j of
record n has its noise from (seed, n, j) only, so sample 0 of all strengths is
one and the same but for its input.
"""

import pathlib
from concurrent import futures
from typing import NamedTuple

import numpy as np

from cdm.distributed import collectives
from cdm.evaluation import paired_metrics
from cdm.evaluation.metrics import calibration, consistency, distortion
from cdm.ops import degradations, resize
from cdm.ops.keys import image_pairs
from cdm.reporting import (
  atomic_files,
  image_files,
  jsonl,
  progress,
  session_log,
)
from cdm.sampling import output_folder

RECIPE, ROWS, DRAWS = 'robustness.json', 'rows.jsonl', 'draws.jsonl'
PICTURES = 'pictures'
VERSIONS = ('given', 'bicubic', 'ours', 'original')
METHODS = ('ours', 'bicubic')
CLEAN = 'clean'
SCORERS = 8  # threads; most of a metric is outside the interpreter's lock
# Records of a data set are fewer; sample j of record n has the number j * that
# + n.
PER_DRAW = 1 << 24


class Cell(NamedTuple):
  """A degradation at a strength; `CLEAN` is none."""

  name: str
  value: object = None

  @property
  def key(self):
    """-> 'clean', 'noise-10', 'kernel-nearest': names rows and folders."""
    if self.name == CLEAN:
      return CLEAN
    return f'{self.name}-{degradations.told(self.value)}'


def cells(chosen):
  """{name: values} of `degradations.parse` -> [Cell, ...], clean first."""
  every = [Cell(n, v) for n, values in chosen.items() for v in values]
  return [Cell(CLEAN), *every]


class Examination:
  """Work of one folder: what is there, what is missing, and how it is made."""

  def __init__(
    self,
    out,
    opened,
    *,
    chosen,
    metrics,
    seed,
    perceptual=None,
    shown=2,
    keep=False,
  ):
    """Claims the folder.

    Args:
      out: folder; made if it is missing, continued if it is of this recipe.
      opened: `stage_images.StageImages`.
      chosen: {degradation: values}.
      metrics: names of `paired_metrics.score`.
      seed: of samples and degradations.
      perceptual: `lpips_scorer.LpipsScorer`, adds lpips; or None.
      shown: how many images are kept for the page.
      keep: keep the pictures of all images, which metrics of sets need.

    Raises:
      ValueError: the folder belongs to something else.
    """
    self.out = pathlib.Path(out)
    self.opened, self.chosen, self.seed = opened, chosen, seed
    self.records = opened.held_out.records
    self.shown = spread_out(self.records, shown)
    self._kept = set(self.records if keep else self.shown)
    self._metrics, self._perceptual = metrics, perceptual
    convention = perceptual.convention if perceptual else None
    claim(self.out, opened.recipe | {'lpips': convention})

  def run(self, every, draws):
    """Does what is missing of all cells and of the draws.

    Args:
      every: list of `Cell`.
      draws: k samples of each clean input, 0 for none.

    Returns:
      ({(record, cell key): row}, {record: row of its k draws}).
    """
    rows = jsonl.ResumableRows(
      self.out / ROWS, lambda row: (row['record'], row['cell']), merge=merged
    )
    spreads = jsonl.ResumableRows(
      self.out / DRAWS,
      lambda row: row['record'] if row['k'] == draws else None,
    )
    items = {(n, cell.key): (n, cell) for n in self.records for cell in every}
    todo = [items[key] for key in rows.missing(items, self._has_pictures)]
    spread = spreads.missing(self.records if draws else [], self._has_maps)
    total = len(self.records) * (len(every) + draws)
    done = total - len(todo) - len(spread) * draws
    if done and collectives.is_first():
      print(f'{self.out}: {done:,} of {total:,} samples are there already.')
    if todo or spread:
      bar = progress.Progress('robustness', total=total, initial=done)
      with session_log.Session(self.out, 'robustness'), bar:
        bar.say('robustness: compiling ...')
        self._score(todo, rows, bar)
        self._draw(spread, draws, spreads, bar)
    return rows.rows, spreads.rows

  def folder(self, cell, version):
    """-> where a version of a cell's pictures lies."""
    return self.out / PICTURES / cell.key / version

  def picture(self, record, cell, version):
    """-> uint8 [H, W, 3] that was kept."""
    return image_files.read_png(
      self.folder(cell, version) / output_folder.file_name(record)
    )

  def maps(self, record, k):
    """-> {'mean', 'std', 'error'}: float32 [H, W, 3] of a shown image."""
    with np.load(self._maps(record, k)) as archive:
      return dict(archive)

  def _maps(self, record, k):
    return self.out / PICTURES / f'draws-{k}' / f'{record:06d}.npz'

  def _has_pictures(self, row):
    """Whether a row has all metrics, and its pictures are there if kept."""
    if not row['ours'].keys() >= set(self._metrics):
      return False
    record, cell = row['record'], Cell(row['degradation'], row['value'])
    return record not in self._kept or all(
      (self.folder(cell, v) / output_folder.file_name(record)).exists()
      for v in self._versions(cell)
    )

  def _versions(self, cell):
    """The original is the same for all cells, and kept once."""
    return VERSIONS if cell.name == CLEAN else VERSIONS[:-1]

  def _has_maps(self, row):
    record = row['record']
    return record not in self.shown or self._maps(record, row['k']).exists()

  def _score(self, todo, rows, bar):
    size = self.opened.upscale.batch_size
    with futures.ThreadPoolExecutor(SCORERS) as pool:
      for start in range(0, len(todo), size):
        part = todo[start : start + size]
        numbers = [n for n, _ in part]
        low, originals, labels = self._read(numbers)
        given = np.stack(
          [self._given(n, cell, low[n], originals[n]) for n, cell in part]
        )
        made = self._upscale(given, numbers, [labels[n] for n in numbers])

        def row(i, part=part, given=given, made=made, x_0=originals, of=labels):
          n, cell = part[i]
          return self._row(n, cell, given[i], made[i], x_0[n], of[n])

        rows.append(list(pool.map(row, collectives.local_indices(len(part)))))
        bar.advance(len(part))

  def _given(self, record, cell, low, original):
    if cell.name == CLEAN:
      return low
    return degradations.degrade(
      *cell, low=low, original=original, seed=self.seed, number=record
    )

  def _row(self, record, cell, given, made, original, label):
    smooth = np.asarray(resize.resize_uint8(given, original.shape[:2]))
    scores = {
      'ours': self._scores(cell, made, original, given),
      'bicubic': self._scores(cell, smooth, original, given),
    }
    if record in self._kept:
      versions = (given, compared(cell, smooth), compared(cell, made), original)
      for version, image in zip(self._versions(cell), versions, strict=False):
        folder = self.folder(cell, version)
        folder.mkdir(parents=True, exist_ok=True)
        image_files.write_png(folder / output_folder.file_name(record), image)
    return {
      'record': int(record),
      'cell': cell.key,
      'degradation': cell.name,
      'value': cell.value,
      'label': int(label),
      **scores,
    }

  def _scores(self, cell, made, original, given):
    method = self.opened.upscale.lowres.downsample
    plain = [name for name in self._metrics if name != 'consistency']
    found = paired_metrics.score(
      compared(cell, made), original, None, method, self._perceptual, plain
    )
    if 'consistency' in self._metrics:
      # With the input as it was given, so with the picture as it was made.
      found['consistency'] = float(
        consistency.consistency(made[None], given[None], method=method)[0]
      )
    # The PSNR of an identical pair is infinite, which JSON does not know.
    return {
      k: v if v is None or np.isfinite(v) else None for k, v in found.items()
    }

  def _draw(self, records, k, spreads, bar):
    each = max(1, self.opened.upscale.batch_size // k) if k else 1
    for start in range(0, len(records), each):
      part = records[start : start + each]
      low, originals, labels = self._read(part)
      numbers = [j * PER_DRAW + n for n in part for j in range(k)]
      made = self._upscale(
        np.stack([low[n] for n in part for _ in range(k)]),
        numbers,
        [labels[n] for n in part for _ in range(k)],
      )
      made = made.reshape(len(part), k, *made.shape[1:])
      spreads.append(
        [
          self._sums(part[i], made[i], originals[part[i]])
          for i in collectives.local_indices(len(part))
        ]
      )
      bar.advance(len(part) * k)

  def _sums(self, record, made, original):
    found = calibration.tally(made, original)
    mean = made.mean(axis=0)
    if record in self.shown:
      path = self._maps(record, len(made))
      path.parent.mkdir(parents=True, exist_ok=True)
      with (
        atomic_files.write_atomically(path) as partial,
        open(partial, 'wb') as file,
      ):
        np.savez(
          file,
          mean=mean.astype(np.float32),
          std=made.std(axis=0, ddof=1).astype(np.float32),
          error=np.abs(mean - original).astype(np.float32),
        )
    # Several draws may be the original exactly; JSON knows no infinity.
    rounded = np.floor(mean + 0.5).astype(np.uint8)
    psnr = [distortion.psnr(x, original) for x in (made[0], rounded)]
    psnr = [float(x) if np.isfinite(x) else None for x in psnr]
    return {
      'record': int(record),
      'k': len(made),
      'psnr_of_one': psnr[0],
      'psnr_of_mean': psnr[1],
      'tally': [np.asarray(part).tolist() for part in found],
    }

  def _read(self, records):
    """-> {record: clean low-res}, {record: original}, {record: label}."""
    wanted = sorted(set(records))
    originals, labels = self.opened.held_out.read(wanted)
    low = self.opened.upscale.shrink(originals)
    return (
      dict(zip(wanted, low, strict=True)),
      dict(zip(wanted, originals, strict=True)),
      dict(zip(wanted, labels, strict=True)),
    )

  def _upscale(self, given, numbers, labels):
    """Fills batches up: another shape is another program, that may round
    otherwise, and a run that continues must give the same bytes."""
    upscale = self.opened.upscale
    size = upscale.batch_size
    order = np.resize(np.arange(len(given)), -(-len(given) // size) * size)
    keys = image_pairs(self.seed, numbers)[order]
    label = np.asarray(labels, np.int32)[order]
    return upscale(given[order], keys=keys, label=label)[: len(given)]


def compared(cell, made):
  """-> a picture as it is compared with the original."""
  return made if cell.name == CLEAN else degradations.undo(*cell, made)


def claim(out, recipe):
  """Makes the folder and writes the recipe of its rows.

  Raises:
    ValueError: the folder belongs to something else, or another recipe.
  """
  if (out / ROWS).exists() and not (out / RECIPE).exists():
    raise ValueError(
      f'{out} holds the {ROWS} of another command; give another --out.'
    )
  output_folder.claim(out, recipe, name=RECIPE)


def merged(earlier, later):
  """-> one row of two that hold different metrics of the same image."""
  return later | {method: earlier[method] | later[method] for method in METHODS}


def tally_of(row):
  """-> calibration.Tally of a row of draws.jsonl."""
  parts = [np.asarray(part) for part in row['tally']]
  return calibration.Tally(*map(float, parts[:3]), *parts[3:])


def spread_out(records, count):
  """-> `count` of the records, spread over them."""
  count = min(count, len(records))
  return [
    records[(2 * i + 1) * len(records) // (2 * count)] for i in range(count)
  ]
