"""Draws samples of clean and degraded inputs and scores them, resumably.

rows.jsonl has a row of scores for each image and input, draws.jsonl the sums of
the calibration of each image's k draws. A row is appended as soon as it is
computed, and a restarted run draws only the missing ones. The noise of sample j
of image n depends on (seed, n, j) only: sample 0 has the same noise at every
strength, so samples of different strengths differ by their inputs alone.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cdm.data import image_decoder, npz_arrays
from cdm.data.files import atomic_files
from cdm.data.files.damaged_file import DamagedFile
from cdm.distributed import collectives
from cdm.evaluation import metrics_table, paired_metrics
from cdm.evaluation.metrics import calibration, distortion
from cdm.evaluation.robustness import row_drawer
from cdm.evaluation.robustness.conditions import (
  CLEAN,
  Condition,
  undo_photometric,
)
from cdm.evaluation.robustness.report_types import (
  DrawsRow,
  Method,
  ScoreRow,
)
from cdm.ops import degradations, resize
from cdm.reporting import jsonl, progress, session_log
from cdm.sampling import numbered_images, output_folder

if TYPE_CHECKING:
  from cdm.evaluation.lpips_scorer import LpipsScorer
  from cdm.evaluation.robustness.report_types import StudyManifest
  from cdm.evaluation.robustness.stage_images import StageImages

RECIPE, ROWS, DRAWS = 'robustness.json', 'rows.jsonl', 'draws.jsonl'
IMAGES = 'pictures'  # folder of the kept images
VERSIONS = ('given', 'bicubic', 'ours', 'original')
METHODS: tuple[Method, ...] = ('ours', 'bicubic')
SCORERS = 8  # threads; the metrics mostly run outside the interpreter's lock
# Sample j of image n is drawn with the index j * PER_DRAW + n, so PER_DRAW must
# exceed the number of images of any data set.
PER_DRAW = 1 << 24
# The type of a row of draws.jsonl on disk: a `DrawsRow` whose tally is checked.
DRAWS_ROW = {
  'record': int,
  'k': int,
  'psnr_of_one': float | None,
  'psnr_of_mean': float | None,
  'tally': tuple[float, float, float, list[float], list[list[float]]],
}


class DrawMaps(NamedTuple):
  """Statistics of the draws of one image, per value, in grey levels.

  Attributes:
    mean: float32 [H, W, 3], mean of the draws.
    std: float32 [H, W, 3], standard deviation of the draws.
    error: float32 [H, W, 3], |mean - original|.
  """

  mean: np.ndarray
  std: np.ndarray
  error: np.ndarray


class Examination:
  """Draws and scores one study, and keeps its rows and images in a folder."""

  def __init__(
    self,
    out: str | os.PathLike,
    opened: StageImages,
    *,
    chosen: Mapping[str, Sequence],
    metrics: Sequence[str],
    seed: int,
    perceptual: LpipsScorer | None = None,
    shown: int = 2,
    keep: bool = False,
  ) -> None:
    """Makes the folder and writes its manifest, or checks the existing one.

    Args:
      out: folder. It is made if it is missing; a folder with the manifest of
        the same settings is continued.
      opened: the stage and its images.
      chosen: {degradation: strengths}.
      metrics: names of `paired_metrics.score`.
      seed: seed of the samples and of the degradations.
      perceptual: `lpips_scorer.LpipsScorer`, needed for lpips; or None.
      shown: number of images that the page shows.
      keep: keep the image files of all images, which FID and KID need;
        otherwise only those of the shown images are kept.

    Raises:
      ValueError: the folder holds the results of other settings.
    """
    self.out = pathlib.Path(out)
    self.opened, self.chosen, self.seed = opened, chosen, seed
    self.records = opened.held_out.records
    self.shown = evenly_spaced(self.records, shown)
    self._kept = set(self.records if keep else self.shown)
    self._metrics, self._perceptual = metrics, perceptual
    convention = perceptual.convention if perceptual else None
    claim(self.out, {**opened.recipe, 'lpips': convention})
    self._files = numbered_images.NumberedImages(
      [self.folder(Condition(CLEAN), 'original')]
    )

  def run(
    self, conditions: Sequence[Condition], draws: int
  ) -> tuple[dict[tuple[int, str], ScoreRow], dict[int, DrawsRow]]:
    """Computes the missing rows of all conditions and of the draws.

    Args:
      conditions: the inputs to score, see `conditions.list_conditions`.
      draws: number k of samples of each clean input, 0 for none.

    Returns:
      ({(index, name of the condition): row}, {index: row of the image's k
      draws}) of all images, those that an earlier run computed included.
    """
    rows = jsonl.ResumableRows(
      self.out / ROWS,
      lambda row: (row['record'], row['cell']),
      declared=ScoreRow,
      merge=merge_rows,
    )
    spreads = jsonl.ResumableRows(
      self.out / DRAWS,
      lambda row: key_of_draws(row, draws),
      declared=DRAWS_ROW,
    )
    items = {
      (n, condition.name): (n, condition)
      for n in self.records
      for condition in conditions
    }
    todo = [items[key] for key in rows.missing(items, self._has_images)]
    spread = spreads.missing(self.records if draws else [], self._has_maps)
    total = len(self.records) * (len(conditions) + draws)
    done = total - len(todo) - len(spread) * draws
    if done and collectives.is_first():
      print(f'{self.out}: {done:,} of {total:,} samples are there already.')
    if todo or spread:
      bar = progress.Progress('robustness', total=total, initial=done)
      with session_log.Session(self.out, 'robustness'), bar:
        bar.compiling()
        self._score(todo, rows, bar)
        self._draw(spread, draws, spreads, bar)
    return rows.rows, spreads.rows

  def folder(self, condition: Condition, version: str) -> pathlib.Path:
    """Returns the folder of the kept images of a condition.

    Args:
      condition: the input.
      version: one of `VERSIONS`; 'original' exists for clean inputs only.
    """
    return self.out / IMAGES / condition.name / version

  def path(
    self, record: int, condition: Condition, version: str
  ) -> pathlib.Path:
    """Returns the path of a kept image.

    Args:
      record: index of the image in the data.
      condition, version: see `folder`.
    """
    return self._files.path(self.folder(condition, version), record)

  def read_image(
    self, record: int, condition: Condition, version: str
  ) -> np.ndarray:
    """Reads a kept image.

    Args:
      record: index of the image in the data.
      condition, version: see `folder`.

    Returns:
      uint8 [H, W, 3]; 'given' is [h, w, 3].
    """
    return image_decoder.read_pixels(self.path(record, condition, version))

  def read_maps(self, record: int, k: int) -> DrawMaps:
    """Reads the statistics of the k draws of a shown image, per value.

    Args:
      record: index of the image in the data.
      k: number of draws.

    """
    arrays = npz_arrays.read(self._maps_path(record, k))
    return DrawMaps(arrays['mean'], arrays['std'], arrays['error'])

  def _maps_path(self, record, k):
    return self.out / IMAGES / f'draws-{k}' / f'{record:06d}.npz'

  def _has_images(self, row):
    """Returns whether a row has all metrics, and a kept image all its files."""
    if not row['ours'].keys() >= set(self._metrics):
      return False
    record, condition = (
      row['record'],
      Condition(row['degradation'], row['value']),
    )
    return record not in self._kept or all(
      numbered_images.is_whole(self.path(record, condition, v))
      for v in self._versions(condition)
    )

  def _versions(self, condition):
    """Returns the versions that are kept; the original is kept only once."""
    return VERSIONS if condition.degradation == CLEAN else VERSIONS[:-1]

  def _has_maps(self, row):
    """Returns whether a shown image has a file of its draws to be read."""
    path = self._maps_path(row['record'], row['k'])
    if row['record'] not in self.shown:
      return True
    try:
      return {'mean', 'std', 'error'} <= npz_arrays.read(path).keys()
    except FileNotFoundError:
      return False
    except DamagedFile as error:
      print(f'{error} It is drawn again.')
      return False

  def _score(self, todo, rows, bar):
    drawer = row_drawer.RowDrawer(self.opened.upscale, self.seed)
    with futures.ThreadPoolExecutor(SCORERS) as pool:
      for part, count in drawer.batches(todo):
        originals, labels = self._read([n for n, _ in part.values()])
        low = drawer.shrink({r: originals[n] for r, (n, _) in part.items()})
        given = {
          r: self._given(n, condition, low[r], originals[n])
          for r, (n, condition) in part.items()
        }
        made = drawer.upscale(
          given,
          {r: n for r, (n, _) in part.items()},
          {r: labels[n] for r, (n, _) in part.items()},
        )

        def row(r, part=part, given=given, made=made, x_0=originals, of=labels):
          n, condition = part[r]
          return self._row(n, condition, given[r], made[r], x_0[n], of[n])

        rows.add(list(pool.map(row, made)))
        bar.advance(count)
    rows.flush()

  def _given(self, record, condition, low, original):
    if condition.degradation == CLEAN:
      return low
    return degradations.degrade(
      *condition, low=low, original=original, seed=self.seed, number=record
    )

  def _row(self, record, condition, given, made, original, label):
    smooth = np.asarray(resize.resize_uint8(given, original.shape[:2]))
    scores = {
      'ours': self._scores(condition, made, original, given),
      'bicubic': self._scores(condition, smooth, original, given),
    }
    if record in self._kept:
      bicubic, ours = (undo_photometric(condition, x) for x in (smooth, made))
      versions = (given, bicubic, ours, original)
      for version, image in zip(
        self._versions(condition), versions, strict=False
      ):
        folder = self.folder(condition, version)
        self._files.write(folder, record, image)
    return {
      'record': int(record),
      'cell': condition.name,
      'degradation': condition.degradation,
      'value': condition.strength,
      'label': int(label),
      **scores,
    }

  def _scores(self, condition, made, original, given):
    method = self.opened.upscale.lowres.downsample
    # Consistency compares with the degraded input, so it takes the image as
    # the stage made it, before a photometric change is undone.
    of_input = [
      name
      for name in self._metrics
      if metrics_table.PAIRS[name].needs == 'lowres'
    ]
    plain = [name for name in self._metrics if name not in of_input]
    undone = undo_photometric(condition, made)
    scores = paired_metrics.score(
      undone, original, None, method, self._perceptual, plain
    ) | paired_metrics.score(made, original, given, method, None, of_input)
    # The PSNR of an identical pair is infinite; JSON has no infinity.
    return {
      k: v if v is None or np.isfinite(v) else None for k, v in scores.items()
    }

  def _draw(self, records, k, spreads, bar):
    drawer = row_drawer.RowDrawer(self.opened.upscale, self.seed)
    drawn: dict[int, list[np.ndarray]] = {}  # of images that lack some draws
    for part, count in drawer.batches(
      [(n, j) for n in records for j in range(k)]
    ):
      originals, labels = self._read([n for n, _ in part.values()])
      made = drawer.upscale(
        drawer.shrink({r: originals[n] for r, (n, _) in part.items()}),
        {r: j * PER_DRAW + n for r, (n, j) in part.items()},
        {r: labels[n] for r, (n, _) in part.items()},
      )
      found = []
      for r, image in made.items():
        n, _ = part[r]
        drawn.setdefault(n, []).append(image)
        if len(drawn[n]) == k:
          found.append(self._sums(n, np.stack(drawn.pop(n)), originals[n]))
      spreads.add(found)
      bar.advance(count)
    spreads.flush()

  def _sums(self, record, made, original):
    tally = calibration.tally(made, original)
    mean = made.mean(axis=0)
    if record in self.shown:
      path = self._maps_path(record, len(made))
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
    # A draw may equal the original exactly: its PSNR is infinite, and JSON has
    # no infinity.
    rounded = np.floor(mean + 0.5).astype(np.uint8)
    psnr = [distortion.psnr(x, original) for x in (made[0], rounded)]
    psnr = [float(x) if np.isfinite(x) else None for x in psnr]
    return {
      'record': int(record),
      'k': len(made),
      'psnr_of_one': psnr[0],
      'psnr_of_mean': psnr[1],
      'tally': [np.asarray(part).tolist() for part in tally],
    }

  def _read(self, records):
    """Returns {index: original}, {index: label}."""
    wanted = sorted(set(records))
    if not wanted:
      return {}, {}
    originals, labels = self.opened.held_out.read(wanted)
    return (
      dict(zip(wanted, originals, strict=True)),
      dict(zip(wanted, labels, strict=True)),
    )


def claim(out: pathlib.Path, recipe: StudyManifest) -> None:
  """Makes the folder and writes its manifest, or checks the existing one.

  Args:
    out: folder.
    recipe: the manifest.

  Raises:
    ValueError: the folder holds rows of another command or another manifest.
  """
  if (out / ROWS).exists() and not (out / RECIPE).exists():
    raise ValueError(
      f'{out} holds the {ROWS} of another command; give another --out.'
    )
  output_folder.make_room(
    out,
    recipe,
    name=RECIPE,
    writes=(ROWS, DRAWS, IMAGES, 'report.html', 'report.json'),
  )
  output_folder.claim(out, recipe, name=RECIPE)
  for folder in (out / IMAGES).glob('**'):
    atomic_files.remove_abandoned(folder)


def merge_rows(earlier: ScoreRow, later: ScoreRow) -> ScoreRow:
  """Merges two rows of one image and input, which may hold other metrics.

  Where both rows hold a value, that of the later row is taken.
  """
  return {
    **later,
    'ours': earlier['ours'] | later['ours'],
    'bicubic': earlier['bicubic'] | later['bicubic'],
  }


def key_of_draws(row: DrawsRow, k: int) -> int | None:
  """Returns the image of a row of draws.jsonl, if it is of k whole draws."""
  *_, ranks, binned = row['tally']
  bins = len(calibration.EDGES) + 1
  whole = len(ranks) == k + 1 and [len(b) for b in binned] == [bins] * 3
  return row['record'] if row['k'] == k and whole else None


def tally_of(row: DrawsRow) -> calibration.Tally:
  """Returns the tally that a row of draws.jsonl holds."""
  count, variance, error, ranks, binned = row['tally']
  return calibration.Tally(
    float(count),
    float(variance),
    float(error),
    np.asarray(ranks),
    np.asarray(binned),
  )


def evenly_spaced(records: Sequence[int], count: int) -> list[int]:
  """Returns `count` of the indices, evenly spread; all if there are fewer."""
  count = min(count, len(records))
  return [
    records[(2 * i + 1) * len(records) // (2 * count)] for i in range(count)
  ]
