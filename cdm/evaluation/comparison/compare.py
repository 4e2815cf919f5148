"""Compares methods of super-resolution on the same held-out images.

Each method super-resolves the images into a folder of its own, which a second
start continues. Then all are scored, and a table and a page are written.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.config import evaluated_images, redrawn_sampler
from cdm.data import image_set
from cdm.distributed import bucket_folders, collectives
from cdm.evaluation import compare_sets
from cdm.evaluation.comparison import (
  named_methods,
  opened_methods,
  page,
  paper_numbers,
  result_images,
  rows,
  shown_images,
  table,
)
from cdm.evaluation.comparison.named_methods import FILES, NamedMethod
from cdm.evaluation.comparison.opened_methods import Task
from cdm.evaluation.lpips_scorer import LpipsScorer
from cdm.ops.keys import seed_pairs
from cdm.reporting import output_files
from cdm.sampling import output_folder, upscale_files
from cdm.sampling.upscaler import Upscaler

JSON, MARKDOWN, PAGE = 'comparison.json', 'comparison.md', 'comparison.html'
IMAGES = 'images'  # folder of the results, a folder for each method


class Options(NamedTuple):
  """What a comparison does.

  Attributes:
    count: held-out images; None takes all.
    seed: seed of the samples.
    at: which checkpoint of each stage, see `opened_methods.checkpoint_of`.
    batch_size: images at once over all devices; None chooses.
    first: images of the page that are the first ones.
    extreme: images of the page that are the best, and the worst.
    draws: samples of a shown image of a method that draws.
    features: in whose features sets are compared.
    perceptual: computes LPIPS; None leaves it out.
    published: numbers of a paper beside ours, or None.
    overwrite: whether results of other settings are replaced.
    redraws: what methods draw with, see `opened_methods.redraws_of`.
  """

  count: int | None = None
  seed: int = 0
  at: int | str | None = None
  batch_size: int | None = None
  first: int = 6
  extreme: int = 2
  draws: int = 4
  features: rows.Features = rows.Features()
  perceptual: LpipsScorer | None = None
  published: paper_numbers.Published | None = None
  overwrite: bool = False
  redraws: Sequence[tuple[str, str]] = ()


@output_folder.held_by('cdm compare')
def compare(
  out: str | os.PathLike,
  methods: Sequence[NamedMethod],
  task: Task,
  options: Options,
) -> None:
  """Runs a comparison, and writes its table and its page.

  Args:
    out: output folder; made if it is missing.
    methods: the methods, in the order of the table.
    task: see `opened_methods.task_of`.
    options: what is done.

  Raises:
    ValueError: a method cannot be opened, or its images cannot be scored.
  """
  out = pathlib.Path(out)
  own = [m for m in methods if m.kind != FILES]
  if not own:
    raise ValueError(
      'All methods are folders of images, so that the held-out images are '
      'not read; add bicubic to --methods.'
    )
  count = options.count or opened_methods.available(task)
  folders = out / IMAGES
  redraws = opened_methods.redraws_of(own, options.redraws, options.at)
  found = {}
  for method in own:
    redraw = redraws.get(method.name, redrawn_sampler.AS_TRAINED)
    found[method.name] = _draw(
      method, task, folders / method.name, count, options, redraw
    )
  compared = folders / own[0].name
  for method in methods:
    place = _images_of(method, folders)
    scores, intervals, conventions = rows.scores_of(
      rows.Folders(place, compared / 'original', compared / 'lowres'),
      task,
      perceptual=options.perceptual,
      features=options.features,
    )
    row: rows.Row = {
      'method': method.name,
      'kind': method.kind,
      'scores': scores,
      'intervals': intervals,
      'conventions': conventions,
    }
    if method.path is not None:
      row['path'] = str(method.path)
    found[method.name] = {**row, **found.get(method.name, {})}
  ordered = [found[method.name] for method in methods]
  _write(out, methods, ordered, task, compared, options, count)


def _draw(method, task, out, count, options, redraw) -> rows.Row:
  """Super-resolves all images with one method; returns its costs."""
  if collectives.is_first():
    print(f'{method.name}:', flush=True)
  upscale, cost = opened_methods.open_upscaler(
    method,
    task,
    at=options.at,
    batch_size=options.batch_size,
    redraw=redraw,
  )
  c = opened_methods.data_config(method, task, upscale)
  read_images = evaluated_images.read_held_out(c, count)
  upscale_files.write_upscaled_held_out(
    out,
    upscale,
    read_images,
    count=count,
    seed=options.seed,
    manifest=opened_methods.manifest(
      task, upscale, count=count, seed=options.seed
    ),
    overwrite=options.overwrite,
  )
  size = min(upscale.batch_size, count)
  originals, label = read_images(range(size))
  seconds, is_drawn = rows.seconds_per_image(
    upscale, upscale.shrink(originals), label
  )
  row: rows.Row = {
    'is_drawn': is_drawn,
    'seconds_per_image': seconds,
    'cost': cost._asdict(),
  }
  if method.kind == named_methods.STAGE:
    row['checkpoint'] = upscale.record.checkpoint
  return row


def _images_of(method: NamedMethod, folders: pathlib.Path) -> pathlib.Path:
  if method.kind == FILES:
    assert method.path is not None
    return method.path
  return folders / method.name / 'upscaled'


def _write(out, methods, ordered, task, compared, options, count) -> None:
  """Writes the table as JSON and Markdown, and the page."""
  decides = methods[-1]
  consistency = rows.consistency_of(
    rows.Folders(
      _images_of(decides, out / IMAGES),
      compared / 'original',
      compared / 'lowres',
    ),
    task,
  )
  shown = shown_images.choose(
    consistency,
    first=options.first,
    extreme=options.extreme,
    of=decides.name,
  )
  draws = _draws(methods, ordered, task, compared, shown, options)
  if not collectives.is_first():
    return
  settings: dict[str, Any] = {
    'task': task.text,
    'images': count,
    'low-res images': f'{task.downsample}, {task.lowres_size} pixels',
    'data': json.dumps(
      task.config.eval_data.to_dict(), default=str, sort_keys=True
    ),
    'seed': options.seed,
    'device': rows.device_text(),
    'versions': json.dumps(compare_sets.versions()),
  }
  result = {
    'settings': settings,
    'rows': ordered,
    'published': options.published and options.published._asdict(),
    'shown': [image._asdict() for image in shown],
  }
  text = bucket_folders.with_urls(json.dumps(result, allow_nan=False))
  output_files.write_text(out / JSON, text + '\n')
  lines = table.markdown(ordered, published=options.published)
  output_files.write_text(out / MARKDOWN, lines)
  rule = (
    f'Shown are the first {options.first} images, and the {options.extreme} '
    f'best and {options.extreme} worst by the consistency of {decides.name}.'
  )
  readers = _readers(methods, out / IMAGES, compared)
  output_files.write_text(
    out / PAGE,
    page.build(
      ordered,
      shown,
      lambda name, number: readers[name].read(number),
      draws,
      task=task.text,
      settings=settings,
      rule=rule,
      published=options.published,
    ),
  )
  print(lines + '\n'.join(str(out / name) for name in (PAGE, MARKDOWN, JSON)))


def _readers(
  methods: Sequence[NamedMethod], folders: pathlib.Path, compared: pathlib.Path
) -> dict[str, image_set.Images]:
  """Returns {method, 'lowres' or 'original': its images}."""
  places = {'lowres': compared / 'lowres', 'original': compared / 'original'}
  places |= {method.name: _images_of(method, folders) for method in methods}
  return {name: result_images.load(path) for name, path in places.items()}


def _draws(
  methods, ordered, task, compared, shown, options
) -> Mapping[str, Mapping[int, list[np.ndarray]]]:
  """Draws the shown images again, with further seeds, by methods that draw."""
  lowres = result_images.load(compared / 'lowres')
  numbers = [image.number for image in shown]
  given = np.stack([lowres.read(n) for n in numbers])
  found: dict[str, dict[int, list[np.ndarray]]] = {}
  for method, row in zip(methods, ordered, strict=True):
    if not row.get('is_drawn') or options.draws < 2:
      continue
    upscale, _ = opened_methods.open_upscaler(
      method, task, at=options.at, batch_size=options.batch_size
    )
    label = _labels(method, upscale, task, numbers, options)
    drawn: dict[int, list[np.ndarray]] = {n: [] for n in numbers}
    for k in range(1, options.draws):
      keys = seed_pairs(options.seed + k, numbers)
      x = upscale(given, keys=keys, label=label)
      for n, image in zip(numbers, x, strict=True):
        drawn[n].append(image)
    found[method.name] = drawn
  return found


def _labels(
  method: NamedMethod,
  upscale: Upscaler,
  task: Task,
  numbers: Sequence[int],
  options: Options,
) -> np.ndarray | None:
  if upscale.num_classes is None:
    return None
  count = options.count or opened_methods.available(task)
  c = opened_methods.data_config(method, task, upscale)
  return evaluated_images.read_held_out(c, count)(numbers)[1]
