"""Summarises training runs for `cdm report`: a dict, an HTML page, a table."""

import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from cdm.checkpointing import reader
from cdm.config import loader
from cdm.data.files import atomic_files, json_file
from cdm.reporting import html_page, metric_writer, session_log, text_table
from cdm.reporting.shown_number import ShownNumber
from cdm.training import (
  collapse,
  comparison,
  loss_curves,
  overfitting,
  overview_caption,
  score_table,
)
from cdm.training.quality_row import read_row
from cdm.training.score_table import Quality


class RunFacts(TypedDict):
  """Sizes, progress, loss and costs of one training run.

  Attributes:
    name: name of the config.
    workdir: path of the work directory.
    image_size: H = W, pixels.
    lowres_size: h = w of the low-res input; None if the stage has none.
    batch_size: images per step, of all processes.
    step: the last step with a logged loss; 0 if there is none.
    num_steps: steps of the whole run.
    loss: the last loss in the log, or None.
    images_per_second: the rate logged with it, or None.
    best: its best checkpoint, see `reader.Best`; absent if it compares none.
    overfitting: a sentence about a held-out loss that rises; absent if it does
      not.
    collapse: a sentence about a GAN that has collapsed; absent if it has not.
    seconds: duration of all sessions; absent if none is recorded.
    peak_host_bytes: peak memory of all sessions; absent if none is recorded.
  """

  name: str
  workdir: str
  image_size: int
  lowres_size: int | None
  batch_size: int
  step: int
  num_steps: int
  loss: float | None
  images_per_second: float | None
  best: NotRequired[reader.Best]
  overfitting: NotRequired[str]
  collapse: NotRequired[str]
  seconds: NotRequired[float]
  peak_host_bytes: NotRequired[int]


class FolderFacts(TypedDict):
  """A folder of images, and what it cost to draw them.

  Attributes:
    folder: path of the folder.
    picture: path of the image of the folder that is shown on the page.
    caption: what the image shows.
    seconds: duration of all sessions; absent if none is recorded.
    peak_host_bytes: peak memory of all sessions; absent if none is recorded.
  """

  folder: str
  picture: str
  caption: str
  seconds: NotRequired[float]
  peak_host_bytes: NotRequired[int]


class _Size(TypedDict):
  size: int


class _Pipeline(TypedDict):
  image_size: int


class _Train(TypedDict):
  batch_size: int
  num_steps: int


class _Saved(TypedDict):
  """The values of a saved config that a report shows."""

  name: str
  pipeline: _Pipeline
  train: _Train
  lowres: NotRequired[_Size | None]


class Summary(TypedDict):
  """The facts and numbers of an experiment, the content of report.json.

  Attributes:
    runs: the training runs.
    samples: the folder of `cdm sample`, or None.
    upscaled: the folder of `cdm upscale --held_out`, or None.
    quality: the row of `cdm evaluate --out`, or None.
    enlarged: path of what `cdm upscale --compare` wrote; absent if it is not
      shown.
  """

  runs: list[RunFacts]
  samples: FolderFacts | None
  upscaled: FolderFacts | None
  quality: Quality | None
  enlarged: NotRequired[str]


def summarise(
  runs: Sequence[str | os.PathLike],
  *,
  samples: str | os.PathLike | None = None,
  upscaled: str | os.PathLike | None = None,
  row: str | os.PathLike | None = None,
  enlarged: str | os.PathLike | None = None,
) -> Summary:
  """Collects the facts and numbers of an experiment.

  Args:
    runs: work directories of training runs.
    samples: folder that `cdm sample` wrote, or None.
    upscaled: folder that `cdm upscale --held_out` wrote, or None.
    row: file that `cdm evaluate --out` wrote, or None.
    enlarged: PNG file that `cdm upscale --compare` wrote, or None.

  Returns:
    The summary, a dict of JSON values.

  Raises:
    ValueError: if a folder or file was not written by the command it should be
      from.
  """
  return {
    'runs': [run_facts(pathlib.Path(run)) for run in runs],
    'samples': folder_facts(samples, 'samples.png', 'cdm sample'),
    'upscaled': folder_facts(upscaled, 'upscaled.png', 'cdm upscale'),
    'quality': read_row(row) if row else None,
    **({} if enlarged is None else {'enlarged': comparison.checked(enlarged)}),
  }


def run_facts(workdir: pathlib.Path) -> RunFacts:
  """Returns name, sizes, progress, loss and costs of one training run.

  Raises:
    ValueError: if workdir is not the work directory of a training run.
  """
  path = workdir / reader.CONFIG
  if not path.exists():
    raise ValueError(
      f'{workdir} is not the work directory of a training run: it has no '
      f'{reader.CONFIG}.'
    )
  c = loader.read_json(path)
  remedy = f'Restore it; every checkpoint in {reader.CHECKPOINTS} has a copy.'
  json_file.check(loader.plain(c), _Saved, name=str(path), remedy=remedy)
  rows = metric_writer.read_scalars(workdir / metric_writer.SCALARS)
  logged = [r for r in rows if r.get('loss') is not None]
  last = logged[-1] if logged else {}
  best = reader.read_best(workdir)
  overfits = overfitting.warning(c.name, rows)
  collapsed = collapse.warning(c.name, rows)
  low = c.get('lowres')  # the config of a classifier has no such section
  return {
    'name': c.name,
    'workdir': str(workdir),
    'image_size': c.pipeline.image_size,
    'lowres_size': low.size if low is not None else None,
    'batch_size': c.train.batch_size,
    'step': last.get('step', 0),
    'num_steps': c.train.num_steps,
    'loss': last.get('loss'),
    'images_per_second': last.get('images_per_second'),
    **({'best': best} if best is not None else {}),
    **({'overfitting': overfits} if overfits is not None else {}),
    **({'collapse': collapsed} if collapsed is not None else {}),
    **(session_log.total(workdir) or {}),
  }


def folder_facts(
  folder: str | os.PathLike | None, file_name: str, command: str
) -> FolderFacts | None:
  """Returns the facts about a folder of images.

  Args:
    folder: the folder, or None.
    file_name: name of the image in the folder that is shown on the page.
    command: the command that writes such folders, e.g. 'cdm sample'.

  Returns:
    The facts; None if folder is None.

  Raises:
    ValueError: if the folder has no such image.
  """
  if folder is None:
    return None
  folder = pathlib.Path(folder)
  if not (folder / file_name).exists():
    raise ValueError(
      f'{folder} holds no {file_name}; give a folder that `{command}` wrote.'
    )
  return {
    'folder': str(folder),
    'picture': str(folder / file_name),
    'caption': overview_caption.describe(folder),
    **(session_log.total(folder) or {}),
  }


def write(
  summary: Summary,
  out: str | os.PathLike,
  *,
  title: str,
  numbers: Mapping[str, ShownNumber],
  overwrite: bool = False,
) -> list[pathlib.Path]:
  """Writes report.json, report.html and copies of the images into a folder.

  An earlier report in the folder is renewed.

  Args:
    summary: what `summarise` returned.
    out: the folder; it is made if it is missing.
    title: title of the page.
    numbers: {metric: how it is shown}.
    overwrite: whether other files of these names are replaced.

  Returns:
    The paths that were written.

  Raises:
    ValueError: other files have these names, and `overwrite` is False.
  """
  out = pathlib.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  files = {}
  for key in ('samples', 'upscaled'):
    if folder := summary[key]:
      image = pathlib.Path(folder['picture'])
      files[image.name] = image.read_bytes()
  if 'enlarged' in summary:
    files[comparison.NAME] = pathlib.Path(summary['enlarged']).read_bytes()
  files['report.json'] = (json.dumps(summary, indent=2) + '\n').encode()
  page = html(summary, title=title, numbers=numbers)
  files['report.html'] = page.encode(errors='backslashreplace')
  if not overwrite and not _is_report(out / 'report.json'):
    for name, content in files.items():
      _refuse_another(out / name, content)
  paths = []
  for name, content in files.items():
    with atomic_files.write_atomically(out / name) as partial:
      partial.write_bytes(content)
    paths.append(out / name)
  return paths


def _is_report(path: pathlib.Path) -> bool:
  """Returns whether a file is a report.json that this module wrote."""
  try:
    saved = json.loads(path.read_bytes())
  except (OSError, ValueError):
    return False
  return isinstance(saved, dict) and Summary.__required_keys__ <= set(saved)


def _refuse_another(path: pathlib.Path, content: bytes) -> None:
  """Raises ValueError if the path has other content than this."""
  if path.is_file() and path.read_bytes() == content:
    return
  if os.path.lexists(path):
    raise ValueError(
      f'{path} is not from an earlier `cdm report` and would be overwritten; '
      'give another --out, or --overwrite to replace it.'
    )


def html(
  summary: Summary, *, title: str, numbers: Mapping[str, ShownNumber]
) -> str:
  """Returns the page as one self-contained HTML document.

  Args:
    summary: what `summarise` returned.
    title: of the page.
    numbers: {metric: how it is shown}.
  """
  sections = []
  if 'enlarged' in summary:
    sections.append(comparison.section(summary['enlarged']))
  if summary['quality']:
    sections.append(
      html_page.Section(
        'Images against their originals',
        score_table.section(summary['quality'], numbers),
      )
    )
  for key, heading in (
    ('samples', 'Samples'),
    ('upscaled', 'Held-out images, super-resolved'),
  ):
    if folder := summary[key]:
      png = pathlib.Path(folder['picture']).read_bytes()
      sections.append(
        html_page.Section(
          heading, (html_page.image(png, folder['caption'], alt=heading),)
        )
      )
  curves = []
  for run in summary['runs']:
    rows = metric_writer.read_scalars(
      pathlib.Path(run['workdir']) / metric_writer.SCALARS
    )
    for sentence in _sentences(run):
      curves.append(html_page.notice(sentence))
    curves += loss_curves.figures(run['name'], rows, run.get('best'))
  if curves:
    sections.append(
      html_page.Section('Training', (run_table(summary), *curves))
    )
  if summary['quality']:
    quality = summary['quality']
    conventions = {
      name: text
      for name, text in quality['conventions'].items()
      if name not in numbers or score_table.value(quality, name) is not None
    }
    sections.append(
      html_page.Section(
        'How the numbers are defined',
        (html_page.table(list(conventions.items()), header=('number', 'is')),),
      )
    )
  return html_page.build_page(
    title, sections, footer=f'Written {time.strftime("%Y-%m-%d %H:%M")}.'
  )


def run_table(summary: Summary) -> html_page.Html:
  """Returns the table of the training runs as HTML."""
  return html_page.table(
    [
      {
        'stage': run['name'],
        'size': size(run),
        'steps': f'{run["step"]} of {run["num_steps"]}',
        'batch': run['batch_size'],
        'loss': run['loss'],
        'images/s': run['images_per_second'],
        'seconds': run.get('seconds'),
        'peak memory, MB': megabytes(run),
      }
      for run in summary['runs']
    ]
  )


def text(summary: Summary, *, numbers: Mapping[str, ShownNumber]) -> str:
  """Returns the short table that is printed to a terminal.

  Args:
    summary: what `summarise` returned.
    numbers: {metric: how it is shown}.
  """
  rows = [('stage', 'size', 'steps', 'loss', 'seconds', 'peak memory')]
  for run in summary['runs']:
    rows.append(
      (
        run['name'],
        size(run),
        f'{run["step"]}/{run["num_steps"]}',
        '-' if run['loss'] is None else f'{run["loss"]:.4f}',
        f'{run["seconds"]:.0f}' if 'seconds' in run else '-',
        f'{megabytes(run)} MB' if 'seconds' in run else '-',
      )
    )
  lines = text_table.columns(rows)
  for run in summary['runs']:
    if 'best' in run:
      best = run['best']
      lines.append(
        f'{run["name"]}: the best checkpoint is that of step {best["step"]}, '
        f'{best["metric"]} {best["value"]:.4g}'
      )
    lines += _sentences(run)
  if quality := summary['quality']:
    names = score_table.columns(quality, numbers)
    rows = [('images', *(numbers[name].heading for name in names))]
    for who, scores in score_table.rows(quality).items():
      cells = (
        numbers[name].text(score_table.value(scores, name)) for name in names
      )
      rows.append((who, *cells))
    lines += ['', *text_table.columns(rows)]
  return '\n'.join(lines)


def _sentences(run):
  """Returns what is said of a run that went wrong."""
  return [run[key] for key in ('overfitting', 'collapse') if key in run]


def size(run: RunFacts) -> str:
  """Returns the image sizes of a run: '8 -> 32', or '8' without low-res."""
  low, high = run['lowres_size'], run['image_size']
  return f'{high}' if low is None else f'{low} -> {high}'


def megabytes(run: RunFacts) -> int | None:
  """Returns the peak host memory of a run in MB, or None if not recorded."""
  peak = run.get('peak_host_bytes')
  return None if peak is None else round(peak / 1e6)
