"""Reads and enlarges photographs: what the worker does with a stage."""

import hashlib
import math
import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from cdm.cli.enlarging_worker import shown_pictures
from cdm.cli.enlarging_worker.task_report import Report
from cdm.cli.web.enlarging.serving_limits import ServingLimits
from cdm.data.photographs import (
  header,
  output_kinds,
  output_limits,
  photograph,
  picture_writer,
)
from cdm.data.photographs.output_kinds import Layout
from cdm.data.photographs.photograph import Photograph
from cdm.sampling import (
  disagreement,
  drawing_batch,
  enlarged_files,
  enlarged_inputs,
  enlarged_jobs,
  enlarged_size,
  exported_stage,
  named_upscaler,
)
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlarged_part import Part, PartDrawing
from cdm.sampling.enlarged_size import Asked
from cdm.sampling.upscaler import Upscaler

ORIGINAL = 'original'
PART = 256  # side of the part that is shown first, in pixels of the picture


def opened(given: dict[str, Any], limits: ServingLimits) -> 'PhotographTasks':
  """Opens a stage, and compiles what enlarges a part.

  Args:
    given: what `cdm serve` was given: workdir, at, redraws, batch_per_device
      and part.
    limits: what users may ask for.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it cannot be used.
  """
  workdir = pathlib.Path(given['workdir'])
  upscaler, saved = named_upscaler.opened(
    workdir,
    level=0.0,
    limits=drawing_batch.TILES._replace(per_device=given['batch_per_device']),
    at=given['at'],
    redraws=[tuple(pair) for pair in given['redraws']],
  )
  if upscaler.canvas is None:
    raise ValueError(
      f'The method of {saved.name!r} super-resolves tiles of one size; `cdm '
      'serve` takes a diffusion model or a regression.'
    )
  names = exported_stage.classes(workdir) or ()
  tasks = PhotographTasks(upscaler, saved.name, list(names), limits)
  tasks.warm_up(given['part'] or PART)
  return tasks


class PhotographTasks:
  """The tasks: open a picture, draw a part, write the whole into a file.

  Attributes:
    about: what the page is told of the model.
  """

  def __init__(
    self,
    upscaler: Upscaler,
    name: str,
    class_names: list[str],
    limits: ServingLimits,
  ):
    """Takes a stage that draws pictures of any size."""
    assert upscaler.canvas is not None
    self._upscaler, self._canvas = upscaler, upscaler.canvas
    self._limits = limits
    stage = self._canvas.stage
    assert stage.canvas is not None
    self._read: tuple[str, Photograph, int] | None = None
    self.about: dict[str, Any] = {
      'kind': 'photographs',
      'name': name,
      'factor': self._canvas.factor,
      'mean': stage.canvas.draws_mean,
      'draws': stage.stops,  # by a seed, which a regression has no use for
      'num_classes': upscaler.num_classes or 0,
      'class_names': class_names,
      'needs_class': bool(upscaler.num_classes) and not upscaler.null_class,
      'detail': enlarged_jobs.DETAIL,
      'part': PART,
    }

  def warm_up(self, side: int) -> None:
    """Draws a grey part, so that its programs are compiled.

    Args:
      side: of the part, in pixels.
    """
    self.about['part'] = side
    whole = 4 * side
    channels = self._canvas.stage.channels
    grey = np.full((whole, whole, channels), 128, np.uint8)
    label = 0 if self.about['needs_class'] else None
    made = PartDrawing(
      self._canvas,
      Photograph(grey, None, 'PNG'),
      Part(side, side, side, side),
      Settings(label=label),
    )
    made.draw(0, 0, 1.0)

  def run(self, request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Does a task; see `asked_tasks` for the requests."""
    folder = pathlib.Path(request['folder'])
    do = {'open': self._open, 'part': self._part, 'file': self._file}
    try:
      return do[request['task']](folder, request, report)
    except ValueError as error:
      # A user has not chosen where files lie.
      text = re.sub(
        rf'{re.escape(str(folder))}[^\s:]*', 'The picture', str(error)
      )
      raise ValueError(text) from error

  def _open(self, folder, request, report):
    """Looks at a picture, and shows it small."""
    path = folder / ORIGINAL
    seen = self._checked(path)
    one, _ = self._photograph(path)
    small = shown_pictures.fitting(
      seen.height, seen.width, shown_pictures.OVERVIEW_SIDE
    )
    samples = shown_pictures.joined(one)
    report.check()
    if small != samples.shape[:2]:
      samples = shown_pictures.resized(samples, *small, 'area')
    shown_pictures.write(folder / 'overview.png', samples, one)
    side = self.about['part']
    top, left = shown_pictures.most_textured(one.samples, side)
    part = Part(top, left, side, side).within(one.samples.shape[:2])
    return {
      'media': ['overview.png'],
      'picture': {
        'kind': seen.kind,
        'height': seen.height,
        'width': seen.width,
        'bits': one.bits,
        'alpha': one.alpha is not None,
        'metadata': _described(one.carried),
        'notes': [note.text for note in one.notes],
        'overview': 'overview.png',
        'part': part._asdict(),
      },
    }

  def _part(self, folder, request, report):
    """Draws a part by interpolation, as the mean, and by several seeds."""
    one, number = self._photograph(folder / ORIGINAL)
    part = Part(**request['part']).within(one.samples.shape[:2])
    scale = request['scale']
    settings = Settings(asked=Asked(scale=scale), label=request['label'])
    made = PartDrawing(self._canvas, one, part, settings)
    self._check_shown(made.size)
    plan = self._layers(request)
    key = hashlib.sha256(
      repr((part, scale, request['label'])).encode()
    ).hexdigest()[:12]
    names = {name: f'part-{key}-{name}.png' for name, *_ in plan}
    missing = [p for p in plan if not (folder / names[p[0]]).exists()]
    total = sum(made.num_windows(detail) for _, _, detail in missing)
    about = {'at': key, **part._asdict(), 'scale': scale}
    about['shown'] = list(made.size)

    def say(name, kind, seed=None):
      layer = {'name': name, 'kind': kind, 'seed': seed, 'file': names[name]}
      return {'media': [names[name]], 'part': about, 'layers': [layer]}

    names['bicubic'] = f'part-{key}-bicubic.png'
    names['map'] = f'part-{key}-map-{request["seed"]}-{request["seeds"]}.png'
    if not (folder / names['bicubic']).exists():
      shown_pictures.write(folder / names['bicubic'], made.bicubic(), one)
    report.found(say('bicubic', 'bicubic'))
    for name, seed, detail in plan:
      if (name, seed, detail) in missing:
        drawn = made.draw(
          number, seed or 0, detail, lambda count: report.advance(count, total)
        )
        shown_pictures.write(folder / names[name], drawn, one)
      report.found(say(name, 'mean' if seed is None else 'sample', seed))
    if request['map']:
      read = [
        photograph.read(folder / names[name]).samples
        for name, seed, _ in plan
        if seed is not None
      ]
      shown = disagreement.coloured(disagreement.deviation(read))
      shown_pictures.write(folder / names['map'], shown, _UNTAGGED)
      report.found(say('map', 'map'))
    return {}

  def _layers(self, request):
    """Returns [(name, seed or None, detail), ...] of what is drawn."""
    plan: list[tuple[str, int | None, float]] = []
    if self.about['mean'] or not self.about['draws']:
      plan.append(('mean', None, 0.0))
    first = request['seed']
    for seed in range(first, first + request['seeds']):
      plan.append((f'sample-{seed}', seed, 1.0))
    return plan

  def _file(self, folder, request, report):
    """Enlarges the whole picture, as `cdm upscale` does."""
    path = folder / ORIGINAL
    one, _ = self._photograph(path)
    size = self._size(one, request['scale'])
    self._check_result(size)
    inside = folder / f'file-{_count(folder)}'
    inside.mkdir(mode=0o700)
    try:
      target = self._written(path, inside, request, report)
      found = _facts(target, inside, request)
    except BaseException:
      shutil.rmtree(inside, ignore_errors=True)
      raise
    layout = _layout(one, size)
    kind = output_kinds.by_suffix(target)
    found |= {
      'width': size.width,
      'height': size.height,
      'notes': _notes(kind, layout, one, request['strip'], size),
    }
    return {'file': found} | self._whole(folder, target, one, size, inside.name)

  def _written(self, path, inside, request, report):
    """Writes the enlarged picture into a folder; returns its path."""
    one, _ = self._photograph(path)
    linked = inside / ORIGINAL
    os.link(path, linked)
    scale, form = request['scale'], request['format']
    suffix = None if form is None else f'.{form}'
    inputs = enlarged_inputs.check([linked], None, scale=scale, suffix=suffix)
    if not inputs.pictures:
      raise ValueError(
        'This TIFF file holds measured values, not a photograph; use `cdm '
        'upscale`, which keeps their numbers.'
      )
    target = inputs.pictures[0].target
    layout = _layout(one, self._size(one, scale))
    kind = output_kinds.by_suffix(target)
    needed = output_limits.needed_bytes(kind, layout)
    if needed > request['bytes_left']:
      raise ValueError(
        'There is no room for a file of this size; remove some pictures of the '
        'list, or choose a smaller size.'
      )
    detail = request['detail']
    settings = Settings(
      asked=Asked(scale=scale),
      seed=request['seed'],
      label=request['label'],
      detail=enlarged_jobs.DETAIL if detail is None else detail,
      strip=request['strip'],
    )
    enlarged_files.write_enlarged_files(
      self._upscaler, inputs, settings, report.advance
    )
    linked.unlink()
    return target

  def _whole(self, folder, target, one, size, name):
    """Shows a result as a whole beside interpolation, where a browser can."""
    shown = size.height, size.width
    pixels = math.prod(shown)
    if pixels > self._limits.pixels:  # It would have to be decoded.
      return {}
    if pixels > self._limits.shown_pixels:
      share = math.sqrt(self._limits.shown_pixels / pixels)
      shown = tuple(max(1, int(side * share)) for side in shown)
    made = shown_pictures.joined(photograph.read(target))
    if shown != made.shape[:2]:
      made = shown_pictures.resized(made, *shown, 'area')
    bicubic = shown_pictures.resized(
      shown_pictures.joined(one), *shown, 'bicubic'
    )
    files = f'{name}-bicubic.png', f'{name}-result.png'
    shown_pictures.write(folder / files[0], bicubic, one)
    shown_pictures.write(folder / files[1], made, one)
    layers = [
      {'name': kind, 'kind': kind, 'seed': None, 'file': file}
      for kind, file in zip(('bicubic', 'result'), files, strict=True)
    ]
    whole = {'at': name, 'shown': list(shown), 'layers': layers}
    return {'media': list(files), 'whole': whole}

  def _photograph(self, path):
    """Returns (a photograph, its number), of the last one from memory."""
    if self._read is None or self._read[0] != str(path):
      self._read = None
      self._checked(path)
      data = path.read_bytes()
      one = photograph.decode(
        data, name='The picture', max_pixels=self._limits.pixels
      )
      number = enlarged_jobs.number_of(hashlib.sha256(data).hexdigest())
      self._read = (str(path), one, number)
    return self._read[1:]

  def _checked(self, path):
    """Returns the header of a file, of which nothing is decoded yet."""
    seen = header.decode(path.read_bytes(), name='The picture')
    size = seen.height * seen.width
    if size > self._limits.pixels or max(seen[1:3]) > self._limits.side:
      raise ValueError(
        f'The picture has {seen.width:,}x{seen.height:,} pixels; this page '
        f'takes {self._limits.pixels / 1e6:g} megapixels at most, and '
        f'{self._limits.side:,} on a side. Use `cdm upscale`.'
      )
    return seen

  def _size(self, one, scale):
    return enlarged_size.choose(
      one.samples.shape[:2],
      self._canvas.factor,
      Asked(scale=scale),
      any_factor=self._canvas.takes_any_factor,
    )

  def _check_result(self, size):
    pixels = size.height * size.width
    if pixels > self._limits.result_pixels:
      raise ValueError(
        f'The result would have {pixels / 1e6:,.0f} megapixels; this page '
        f'makes {self._limits.result_pixels / 1e6:g} at most. Choose a smaller '
        'size, or use `cdm upscale`.'
      )

  def _check_shown(self, size):
    if math.prod(size) > self._limits.shown_pixels:
      raise ValueError(
        'This part is too large to be shown at this size; choose a smaller one.'
      )


_UNTAGGED = Photograph(np.zeros((1, 1, 3), np.uint8), None, 'PNG')


def _count(folder):
  """Returns a number that no file of a picture has yet."""
  return sum(1 for path in folder.glob('file-*') if path.is_dir())


def _described(carried):
  """Returns which metadata there are, in words."""
  words = {
    'exif': 'EXIF',
    'xmp': 'XMP',
    'iptc': 'IPTC',
    'icc': 'colour profile',
  }
  return [word for key, word in words.items() if getattr(carried, key)]


def _layout(one, size):
  """Returns the layout of a photograph's result."""
  channels = one.samples.shape[-1] + (one.alpha is not None)
  return Layout(size.width, size.height, channels, one.bits)


def _facts(target, inside, request):
  """Returns what the page is told of a file."""
  kept = ('scale', 'seed', 'detail', 'strip')
  return {
    **{name: request[name] for name in kept},
    'path': f'{inside.name}/{target.name}',
    'suffix': target.suffix,
    'kind': output_kinds.by_suffix(target).name,
    'bytes': target.stat().st_size,
  }


def _notes(kind, layout, one, strip, size):
  """Returns what a user should know of a file."""
  said = [size.warning] if size.warning else []
  carried = one.carried
  if strip:
    carried = carried._replace(exif=None, xmp=None, iptc=None)
  said += [f'{text}.' for text in picture_writer.losses(kind, layout, carried)]
  return said
