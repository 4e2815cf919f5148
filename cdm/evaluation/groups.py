"""Compares scores between groups of images, with confidence intervals.

The group with the worst scores is compared with all other images, to tell
whether the gap is more than chance. A label file assigns every image to a
group, in one column or several:

  CSV    image,gender,age      the first column names the image
         1303,female,under 30
  JSON   {"1303": {"gender": "female", "age": "under 30"}, ...}
         or {"1303": "female", ...}

An image is named by its index in the data or, if it is a file, by its path in
the data's folder, its path without the suffix, or its bare name.
"""

import codecs
import csv
import itertools
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np

from cdm.data.files import damaged_file, json_file
from cdm.evaluation.metrics import bootstrap

FEWEST = 10  # A group of fewer images is shown, but never called the worst.

Values = tuple[str, ...]  # the groups of an image, one per column
_Group = str | int | float | bool  # as JSON may write a group
Division = dict[str, list[int]]  # {group: indices of its images}


class Summary(TypedDict):
  """A mean over images and its 95% interval.

  Attributes:
    mean: the mean; None if there are no values.
    low: lower end of the interval; None if there are fewer than two values.
    high: upper end of the interval; None in the same case.
  """

  mean: float | None
  low: float | None
  high: float | None


class Gap(TypedDict):
  """The difference between the worst group and all other images.

  Attributes:
    group: the worst group.
    mean: its mean minus that of all other images.
    low: lower end of the 95% interval of the difference.
    high: upper end of the interval.
    sure: whether the difference is significant, even though the worst of
      several groups was chosen.
  """

  group: str
  mean: float
  low: float
  high: float
  sure: bool


class GroupRow(TypedDict):
  """A group of images. Besides these entries it holds {column: `Summary`}.

  Attributes:
    group: name of the group.
    n: number of its images.
    enough: False for a group of fewer than `FEWEST` images.
  """

  group: str
  n: int
  enough: bool


class Comparison(TypedDict):
  """The groups of a division and their gaps.

  Attributes:
    rows: the groups, the worst one first; groups that are too small come last
      and are never called the worst.
    gaps: {column: gap of the worst group}; {} unless two groups are large
      enough.
  """

  rows: list[GroupRow]
  gaps: dict[str, Gap]


def summary_of(row: GroupRow, column: str) -> Summary:
  """Returns the mean of a group in a column, with its interval."""
  return cast(Mapping[str, Any], row)[column]


def columns_of(row: GroupRow) -> list[str]:
  """Returns the names of the columns of scores in a group's row."""
  return [key for key in row if key not in GroupRow.__annotations__]


def read(path: str | os.PathLike) -> tuple[dict[str, Values], Values]:
  """Reads a label file.

  Args:
    path: .csv or .json file of the form that the module's docstring shows.

  Returns:
    ({image: (group, ...)}, (column, ...)); all of them are strings.

  Raises:
    damaged_file.DamagedFile: the file is not UTF-8 text, CSV or JSON.
    ValueError: the file is missing or empty, a row lacks a value, or an image
      is in the file twice.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'--groups={path}: there is no such file.')
  data = path.read_bytes()
  if not data.strip():
    raise ValueError(f'--groups={path} is empty; see cdm robustness --help.')
  if path.suffix == '.json':
    columns, rows = _from_json(path, data)
  else:
    columns, rows = _from_csv(path, data)
  if len(columns) < 1 or not rows:
    raise ValueError(
      f'--groups={path} holds no groups: under a line of headings, the first '
      'column names the image, and every other column gives its group.'
    )
  labels = {}
  for image, values in rows:
    if image in labels:
      raise ValueError(f'--groups={path} names image {image!r} twice.')
    if len(values) != len(columns) or '' in values:
      raise ValueError(
        f'--groups={path}: image {image!r} has {list(values)}, and there are '
        f'the columns {list(columns)}; give every column a value.'
      )
    labels[image] = values
  return labels, columns


def _from_csv(
  path: pathlib.Path, data: bytes
) -> tuple[Values, list[tuple[str, Values]]]:
  try:
    text = data.decode('utf-8-sig')
    rows = [r for r in csv.reader(text.splitlines()) if any(map(str.strip, r))]
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise damaged_file.DamagedFile(
      f'--groups={path}, line {line}: byte {error.start} of the file is not '
      'UTF-8. Save it as UTF-8 ("CSV UTF-8" in Excel).'
    ) from None
  except csv.Error as error:
    raise damaged_file.DamagedFile(
      f'--groups={path} is no CSV: {error}. Save it again, one line per image.'
    ) from None
  rows = [tuple(cell.strip() for cell in row) for row in rows]
  if not rows:
    return (), []
  return rows[0][1:], [(row[0], row[1:]) for row in rows[1:]]


def _from_json(
  path: pathlib.Path, data: bytes
) -> tuple[Values, list[tuple[str, Values]]]:
  content = json_file.parse(
    data.removeprefix(codecs.BOM_UTF8),
    Any,
    name=f'--groups={path}',
    remedy='Write it again.',
  )
  if not isinstance(content, dict):
    raise damaged_file.DamagedFile(
      f'--groups={path} holds a {type(content).__name__}; an object from image '
      'to group is expected.'
    )
  json_file.check(
    content,
    dict[str, dict[str, _Group] | _Group],
    name=f'--groups={path}',
    remedy='Give an object from image to group.',
  )
  rows = {
    str(image): value if isinstance(value, dict) else {'group': value}
    for image, value in content.items()
  }
  columns = tuple(next(iter(rows.values()), {}))
  return columns, [
    (image, tuple(str(row.get(c, '')).strip() for c in columns))
    for image, row in rows.items()
  ]


def assign(
  found: Mapping[str, Values],
  records: Sequence[int],
  names: Sequence[str] | None,
  *,
  count: int,
  path: str | os.PathLike,
) -> dict[int, Values]:
  """Looks up the groups of the images that are evaluated.

  Args:
    found: {image: (group, ...)}, from `read`.
    records: indices, in the data, of the images that are evaluated.
    names: file name of every image in the data, or None if the images have no
      names.
    count: number of images in the data.
    path: path of the label file, for error messages.

  Returns:
    {index: (group, ...)}.

  Raises:
    ValueError: the label file names an image that is not in the data, or lacks
      one that is evaluated.
  """
  index_of = _indices_by_name(names, count)
  groups = {}
  for image, values in found.items():
    if image not in index_of:
      known = 'the images have no file names'
      if names:
        known = f'the files have names like {names[0]!r}'
      raise ValueError(
        f'--groups={path} names image {image!r}, which the data does not hold '
        f'({count:,} images, numbered from 0; {known}).'
      )
    if index_of[image] is None:
      raise ValueError(
        f'--groups={path}: {image!r} is the name of several files; give their '
        'paths in the folder.'
      )
    groups[index_of[image]] = values
  missing = [n for n in records if n not in groups]
  if missing:
    first = f' ({names[missing[0]]})' if names else ''
    raise ValueError(
      f'--groups={path} lacks image {missing[0]}{first} and '
      f'{len(missing) - 1:,} more of the {len(records):,} that are evaluated; '
      'give each a row.'
    )
  return {n: groups[n] for n in records}


def _indices_by_name(
  names: Sequence[str] | None, count: int
) -> dict[str, int | None]:
  """Returns {name: index} for all the names that an image may go by.

  The index is None for a name that several images share.
  """
  index_of = {}
  for spell in (
    lambda p: p.as_posix(),
    lambda p: p.with_suffix('').as_posix(),
    lambda p: p.name,
    lambda p: p.stem,
  ):
    spelled = {}
    for n, name in enumerate(names or ()):
      key = spell(pathlib.PurePosixPath(name))
      spelled[key] = None if key in spelled else n
    for key, n in spelled.items():
      index_of.setdefault(key, n)
  # Indices come last: '7' means the file 7.png, if there is one, and only
  # otherwise the image with index 7.
  for n in range(count):
    index_of.setdefault(str(n), n)
  return index_of


def divisions(
  columns: Sequence[str], groups: Mapping[int, Values]
) -> dict[str, Division]:
  """Divides the images into groups: by each column, and by all columns at once.

  Args:
    columns: names of the columns.
    groups: {index: (group, ...)}, with one group per column.

  Returns:
    {'gender': {group: [index, ...]}, ..., 'gender and age': {...}}. A division
    into one group is omitted, and one that equals an earlier division.

  Raises:
    ValueError: all images are in the same group.
  """
  parts = {c: [i] for i, c in enumerate(columns)}
  if len(columns) > 1:
    parts[' and '.join(columns)] = list(range(len(columns)))
  found = {}
  for name, places in parts.items():
    division = {}
    for record, values in groups.items():
      key = ', '.join(values[i] for i in places)
      division.setdefault(key, []).append(record)
    earlier = [sorted(other.values()) for other in found.values()]
    if len(division) > 1 and sorted(division.values()) not in earlier:
      found[name] = dict(sorted(division.items()))
  if not found:
    only = next(iter(groups.values()))
    raise ValueError(
      f'All {len(groups):,} images are of one group, {", ".join(only)!r}; '
      'there is nothing to compare.'
    )
  return found


def compare(
  division: Mapping[str, Sequence[int]],
  scores: Mapping[str, Mapping[int, float | None]],
  *,
  better: Mapping[str, int],
) -> Comparison:
  """Summarizes the scores of every group, the worst group first.

  Args:
    division: {group: [index, ...]}.
    scores: {column: {index: float or None}}. The groups are sorted by the
      first column. Images whose score is None are skipped.
    better: {column: +1 if higher is better, -1 if lower is better}.
  """
  rows: list[GroupRow] = []
  for group, records in division.items():
    row: GroupRow = {
      'group': group,
      'n': len(records),
      'enough': len(records) >= FEWEST,
    }
    summaries = {
      column: summary([values[n] for n in records])
      for column, values in scores.items()
    }
    rows.append({**row, **summaries})
  first = next(iter(scores))
  rows.sort(key=lambda row: (not row['enough'], _badness(row, first, better)))
  judged = [row for row in rows if row['enough']]
  gaps = {}
  if len(judged) > 1:
    # The worst of many groups is bad by chance too: this is the Bonferroni
    # correction for all the comparisons that are made.
    level = 1 - 0.05 / (len(judged) * len(scores))
    for column, values in scores.items():
      known = [r for r in judged if summary_of(r, column)['mean'] is not None]
      if len(known) > 1:
        row = min(known, key=lambda r, c=column: _badness(r, c, better))
        gaps[column] = _gap(division, row['group'], values, level)
  return {'rows': rows, 'gaps': gaps}


def _badness(row: GroupRow, column: str, better: Mapping[str, int]) -> float:
  """Returns a sort key: the worse the mean of a group, the smaller the key."""
  mean = summary_of(row, column)['mean']
  return np.inf if mean is None else better[column] * mean


def _gap(
  division: Mapping[str, Sequence[int]],
  worst: str,
  values: Mapping[int, float | None],
  level: float,
) -> Gap:
  """Compares the worst group with all the others.

  The difference is significant if 0 is outside its interval of confidence
  `level`, which is wider than 95%.
  """
  others = [records for group, records in division.items() if group != worst]
  inside = _known(values, division[worst])
  outside = _known(values, itertools.chain.from_iterable(others))
  low, high = difference(inside, outside)
  wide = difference(inside, outside, level=level)
  return {
    'group': worst,
    'mean': float(np.mean(inside) - np.mean(outside)),
    'low': low,
    'high': high,
    'sure': not wide[0] <= 0.0 <= wide[1],
  }


def summary(values: Sequence[float | None]) -> Summary:
  """Returns the mean and its 95% bootstrap interval.

  Values that are None are skipped. The mean of no values is None, and so is the
  interval of fewer than two values.
  """
  values = [v for v in values if v is not None]
  if not values:
    return {'mean': None, 'low': None, 'high': None}
  low = high = None
  if len(values) > 1:
    low, high = bootstrap.ends(bootstrap.means(values), 0.95)
  return {'mean': float(np.mean(values)), 'low': low, 'high': high}


def difference(
  inside: Sequence[float],
  outside: Sequence[float],
  *,
  level: float = 0.95,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns the bootstrap interval of mean(inside) - mean(outside).

  Both samples are resampled independently.

  Args:
    inside, outside: the values of two samples.
    level: confidence level of the interval, in (0, 1).
    seed: seed of the resampling.
  """
  apart = bootstrap.means(inside, seed=seed)
  apart = apart - bootstrap.means(outside, seed=seed + 1)
  return bootstrap.ends(apart, level)


def _known(
  values: Mapping[int, float | None], records: Iterable[int]
) -> list[float]:
  return [v for n in records if (v := values[n]) is not None]
