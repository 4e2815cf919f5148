"""Shows the row of `cdm evaluate --out` as a table, beside bicubic's."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

from cdm.reporting import html_page
from cdm.reporting.shown_number import ShownNumber


class Scores(TypedDict):
  """Means of the paired metrics.

  Attributes:
    psnr: dB; None if it is infinite for every pair.
    ssim: at most 1; None if the images are smaller than its window.
    consistency: how closely the images shrink back to their low-res inputs;
      absent if no low-res images were given.
  """

  psnr: float | None
  ssim: float | None
  consistency: NotRequired[float | None]


class Quality(Scores):
  """The entries of a row of `cdm evaluate --out` that the page shows.

  Attributes:
    n: number of pairs.
    counts: {metric: number of pairs that its means are over}; absent in the
      rows of earlier versions.
    image_size: [H, W].
    conventions: {metric: sentence that defines it}.
    bicubic: the scores of bicubic interpolation; absent if no low-res images
      were given.
  """

  n: int
  counts: NotRequired[dict[str, int]]
  image_size: list[int]
  conventions: dict[str, str]
  bicubic: NotRequired[Scores]


def section(
  quality: Quality, numbers: Mapping[str, ShownNumber]
) -> list[html_page.Html]:
  """Returns the table of the scores and what has to be said about it.

  The better number of each column is marked, whoever's it is.
  """
  names, methods = columns(quality, numbers), rows(quality)
  best = [
    (i, j)
    for j, name in enumerate(names, start=1)
    for i in numbers[name].best(
      {i: value(scores, name) for i, scores in enumerate(methods.values())}
    )
  ]
  height, width = quality['image_size']
  told = [f'Means over {quality["n"]:,} pairs of {width}x{height} pixels.']
  told += [
    f'{numbers[name].title} is over {count:,} of them: the others are '
    'identical, and theirs is infinite.'
    for name, count in quality.get('counts', {}).items()
    if name in names and count != quality['n']
  ]
  if best:
    told.append('The better number of a column is marked.')
  psnr = [value(scores, 'psnr') for scores in methods.values()]
  if psnr[0] is not None and any(p is not None and p > psnr[0] for p in psnr):
    told.append('Bicubic blurs, which PSNR rewards: here its PSNR is higher.')
  if 'consistency' in names:
    told.append(
      'Consistency says how closely an image shrinks back to its low-res '
      'input; lower is better.'
    )
  table = html_page.table(
    [
      [who, *(numbers[name].text(value(scores, name)) for name in names)]
      for who, scores in methods.items()
    ],
    header=['', *(numbers[name].heading for name in names)],
    best=best,
  )
  return [table, html_page.paragraph(' '.join(told))]


def rows(quality: Quality) -> dict[str, Scores]:
  """Returns {'ours': scores, 'bicubic': scores}, as far as there are any."""
  methods: dict[str, Scores] = {'ours': quality}
  if bicubic := quality.get('bicubic'):
    methods['bicubic'] = bicubic
  return methods


def columns(quality: Quality, numbers: Mapping[str, ShownNumber]) -> list[str]:
  """Returns the names of the numbers that the row has a value of."""
  return [
    name
    for name in numbers
    if any(value(scores, name) is not None for scores in rows(quality).values())
  ]


def value(scores: Scores, name: str) -> float | None:
  """Returns a number of the scores; None if there is none."""
  return cast(Mapping[str, Any], scores).get(name)
