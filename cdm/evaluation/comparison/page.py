"""Builds the page of a comparison: the table, and rows of images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cdm.evaluation import metrics_table
from cdm.evaluation.comparison import paper_numbers, table
from cdm.evaluation.comparison.rows import Row
from cdm.evaluation.comparison.shown_images import Shown
from cdm.reporting import html_page, image_files

SIDE = 128  # approximate side of an image in a strip, in screen pixels
ZOOM = 4  # times as large when it is clicked


def build(
  rows: Sequence[Row],
  shown: Sequence[Shown],
  read: Callable[[str, int], np.ndarray],
  draws: Mapping[str, Mapping[int, Sequence[np.ndarray]]],
  *,
  task: str,
  settings: Mapping[str, object],
  rule: str,
  published: paper_numbers.Published | None = None,
) -> str:
  """Builds the page, one self-contained file.

  Args:
    rows: one row for each method.
    shown: the images that are shown.
    read: `(method or 'lowres' or 'original', number) -> uint8 [H, W, 3]`.
    draws: {method: {number: further samples}} of the methods that draw.
    task: the task in words.
    settings: all that the numbers depend on, for the end of the page.
    rule: by which the images are chosen, as a sentence.
    published: numbers of a paper, or None.

  Returns:
    an HTML document.
  """
  sections = [
    html_page.Section('Scores', scores(rows, published)),
    html_page.Section(
      'Images',
      [rule, 'Click an image to enlarge it.', *strips(rows, shown, read)],
    ),
  ]
  if draws:
    sections.append(
      html_page.Section('Several samples', samples(rows, shown, read, draws))
    )
  sections.append(html_page.Section('What was run', run(rows, settings)))
  return html_page.build_page(
    f'Super-resolution {task}, {len(rows)} methods',
    sections,
    subtitle=f'{settings["images"]} held-out images',
  )


def scores(
  rows: Sequence[Row], published: paper_numbers.Published | None
) -> list[str]:
  """Returns the table of scores; the best of each column is marked."""
  metrics, numbers = table.shown_metrics(rows), metrics_table.numbers()
  best = {metric: table.best_of(rows, metric) for metric in metrics}
  lines, marks = [], []
  for i, row in enumerate(rows):
    cells: list[Any] = [table.title(row)]
    for j, metric in enumerate(metrics, 1):
      value = row['scores'].get(metric)
      if value is None:
        cells.append(None)
        continue
      below = ''
      if metric in row.get('intervals', {}):
        low, high = map(numbers[metric].text, row['intervals'][metric])
        below = f'{low} to {high}'
      cells.append(html_page.stacked(numbers[metric].text(value), below))
      if row['method'] in best[metric]:
        marks.append((i, j))
    lines.append([*cells, *table.costs(row)])
  heads = [
    f'{numbers[m].heading} {"↑" if numbers[m].higher_is_better else "↓"}'
    for m in metrics
  ]
  parts: list[str] = [
    html_page.table(
      lines,
      header=[
        'method', *heads, 'time per image', 'parameters', 'training', 'hours'
      ],
      caption='Small print: 95% intervals of the means, by bootstrap.',
      best=marks,
    )
  ]  # fmt: skip
  if published is not None:
    parts.append(_published(published, numbers))
  return parts


def _published(published, numbers) -> html_page.Html:
  lines = [
    [name, *(values.get(metric) for metric in published.metrics)]
    for name, values in published.rows.items()
  ]
  return html_page.table(
    lines,
    header=['published', *(numbers[m].heading for m in published.metrics)],
    caption=f'{published.task}. Other images and other networks than above.',
  )


def strips(
  rows: Sequence[Row],
  shown: Sequence[Shown],
  read: Callable[[str, int], np.ndarray],
) -> list[html_page.Html]:
  """Returns a strip of every shown image: low-res, each method, original."""
  names = [row['method'] for row in rows]
  heads = ['low-res', *(table.title(row) for row in rows), 'original']
  found = []
  for image in shown:
    versions = [read(name, image.number) for name in ('lowres', *names)]
    versions.append(read('original', image.number))
    found.append(_strip([versions], heads, [''], image.why))
  return found


def samples(
  rows: Sequence[Row],
  shown: Sequence[Shown],
  read: Callable[[str, int], np.ndarray],
  draws: Mapping[str, Mapping[int, Sequence[np.ndarray]]],
) -> list[str]:
  """Returns the strips of samples that were drawn with several seeds."""
  parts: list[str] = [
    'The same low-res image with several seeds. Where the samples differ, the '
    'low-res image does not decide.'
  ]
  titles = {row['method']: table.title(row) for row in rows}
  for image in shown:
    lines, names = [], []
    for name, of_image in draws.items():
      if image.number in of_image:
        lines.append([read(name, image.number), *of_image[image.number]])
        names.append(titles[name])
    if lines:
      heads = [f'seed {k}' for k in range(len(lines[0]))]
      parts.append(_strip(lines, heads, names, image.why))
  return parts


def _strip(lines, heads, names, caption) -> html_page.Html:
  side = max(x.shape[0] for line in lines for x in line)
  width = max(1, round(SIDE / side)) * side
  return html_page.strip(
    [
      [image_files.png_bytes(_as_wide(x, side)) for x in line] for line in lines
    ],
    heads=heads,
    names=names,
    scale=width / side,
    zoom=ZOOM,
    caption=caption,
  )


def _as_wide(image, side):
  """Repeats the pixels of a low-res image, so that all have one size."""
  factor = side // image.shape[0]
  return image.repeat(factor, axis=0).repeat(factor, axis=1)


def run(rows: Sequence[Row], settings: Mapping[str, object]) -> list[str]:
  """Returns the last section: all that the numbers depend on."""
  conventions = rows[0]['conventions']
  lines = [
    [table.title(row), row.get('checkpoint'), row.get('path', '')]
    for row in rows
  ]
  return [
    html_page.table(
      [[key, f'{value}'] for key, value in settings.items()], header=['', '']
    ),
    html_page.table(lines, header=['method', 'checkpoint', 'from']),
    html_page.bullets(
      html_page.joined(
        html_page.strong(f'{metrics_table.numbers()[name].title}: '), text
      )
      for name, text in conventions.items()
    ),
  ]
