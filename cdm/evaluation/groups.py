"""Who is served worse: scores group by group, and how sure that is.

A label file says of each image what it belongs to, in one column or several:

  CSV    image,gender,age      the first column names the image
         1303,female,under 30
  JSON   {"1303": {"gender": "female", "age": "under 30"}, ...}
         or {"1303": "female", ...}

An image is named by its number in the data or, where it is a file, by its path
in the data's folder, its path without the suffix, or its bare name.
"""

import csv
import itertools
import json
import pathlib

import numpy as np

from cdm.evaluation.metrics import bootstrap

FEWEST = 10  # images of a group; below it, it is shown but not judged


def read(path):
  """Reads a label file.

  Args:
    path: .csv or .json, see the module.

  Returns:
    ({image: (group, ...)}, (column, ...)); all of them text.

  Raises:
    ValueError: no such file, nothing in it, a row that lacks a value, or an
      image that is there twice.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'--groups={path}: there is no such file.')
  text = path.read_text(encoding='utf-8-sig')
  if not text.strip():
    raise ValueError(f'--groups={path} is empty; see cdm robustness --help.')
  rows = _from_json(path, text) if path.suffix == '.json' else _from_csv(text)
  columns, rows = rows
  if len(columns) < 1 or not rows:
    raise ValueError(
      f'--groups={path} holds no groups: a first column names the image, '
      'every other one is what it belongs to, under a line of headings.'
    )
  found = {}
  for image, values in rows:
    if image in found:
      raise ValueError(f'--groups={path} names image {image!r} twice.')
    if len(values) != len(columns) or '' in values:
      raise ValueError(
        f'--groups={path}: image {image!r} has {list(values)}, and there are '
        f'the columns {list(columns)}; give each a value.'
      )
    found[image] = values
  return found, columns


def _from_csv(text):
  rows = [r for r in csv.reader(text.splitlines()) if any(map(str.strip, r))]
  rows = [tuple(cell.strip() for cell in row) for row in rows]
  return rows[0][1:], [(row[0], row[1:]) for row in rows[1:]]


def _from_json(path, text):
  try:
    held = json.loads(text)
  except ValueError as error:
    raise ValueError(f'--groups={path} is no JSON: {error}.') from None
  if not isinstance(held, dict):
    raise ValueError(
      f'--groups={path} holds a {type(held).__name__}; an object from image '
      'to group is expected.'
    )
  rows = {
    str(image): value if isinstance(value, dict) else {'group': value}
    for image, value in held.items()
  }
  columns = tuple(next(iter(rows.values()), {}))
  return columns, [
    (image, tuple(str(row.get(c, '')).strip() for c in columns))
    for image, row in rows.items()
  ]


def assign(found, records, names, *, count, path):
  """Gives each image that is looked at its groups.

  Args:
    found: {image: (group, ...)} of `read`.
    records: numbers in the data of the images that are looked at.
    names: file of every record of the data, or None where they have none.
    count: records of the data.
    path: of the label file, for messages.

  Returns:
    {record: (group, ...)}.

  Raises:
    ValueError: the file names an image that the data has not, or lacks one.
  """
  number = _numbers(names, count)
  groups = {}
  for image, values in found.items():
    if image not in number:
      known = f'its files are named as {names[0]!r}' if names else 'it has none'
      raise ValueError(
        f'--groups={path} names image {image!r}, which the data does not hold '
        f'({count:,} images, numbered from 0; {known}).'
      )
    if number[image] is None:
      raise ValueError(
        f'--groups={path}: {image!r} is the name of several files; give their '
        'paths in the folder.'
      )
    groups[number[image]] = values
  missing = [n for n in records if n not in groups]
  if missing:
    first = f' ({names[missing[0]]})' if names else ''
    raise ValueError(
      f'--groups={path} lacks image {missing[0]}{first} and '
      f'{len(missing) - 1:,} more of the {len(records):,} that are looked at; '
      'give each a row.'
    )
  return {n: groups[n] for n in records}


def _numbers(names, count):
  """-> {what an image may be called: its number, None if it is several}."""
  number = {}
  for spell in (
    lambda p: p.as_posix(),
    lambda p: p.with_suffix('').as_posix(),
    lambda p: p.name,
    lambda p: p.stem,
  ):
    called = {}
    for n, name in enumerate(names or ()):
      key = spell(pathlib.PurePosixPath(name))
      called[key] = None if key in called else n
    for key, n in called.items():
      number.setdefault(key, n)
  for n in range(count):  # last: a file called 7.png is not record 7
    number.setdefault(str(n), n)
  return number


def divisions(columns, groups):
  """The ways to divide the images: by each column, and by all of them.

  Args:
    columns: names.
    groups: {record: (group, ...)}.

  Returns:
    {'gender': {group: [record, ...]}, ..., 'gender and age': {...}}; what
    divides them no further than one before is left out.

  Raises:
    ValueError: there is one group only.
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
    told = [sorted(other.values()) for other in found.values()]
    if len(division) > 1 and sorted(division.values()) not in told:
      found[name] = dict(sorted(division.items()))
  if not found:
    only = next(iter(groups.values()))
    raise ValueError(
      f'All {len(groups):,} images are of one group, {", ".join(only)!r}; '
      'there is nothing to compare.'
    )
  return found


def compare(division, scores, *, better):
  """Scores by group, the worst first.

  Args:
    division: {group: [record, ...]}.
    scores: {column: {record: float or None}}; the first column gives the
      order. None is left out.
    better: {column: +1 if more is better, -1 if less is}.

  Returns:
    {'rows': [{'group', 'n', 'enough', column: {'mean', 'low', 'high'}}, ...],
    'gaps': {column: see `_gap`}}. A group of fewer than `FEWEST` images is not
    'enough': it comes last and is never the worst. Without two groups that are
    large enough there are no gaps.
  """
  rows = []
  for group, records in division.items():
    row = {'group': group, 'n': len(records), 'enough': len(records) >= FEWEST}
    for column, values in scores.items():
      row[column] = summary([values[n] for n in records])
    rows.append(row)
  first = next(iter(scores))
  rows.sort(
    key=lambda row: (not row['enough'], _worse(row[first], better[first]))
  )
  judged = [row for row in rows if row['enough']]
  gaps = {}
  if len(judged) > 1:
    # The worst of many is bad by chance too: Bonferroni over all that is asked.
    level = 1 - 0.05 / (len(judged) * len(scores))
    for column, values in scores.items():
      row = min(judged, key=lambda r, c=column: _worse(r[c], better[c]))
      if row[column]['mean'] is not None:
        gaps[column] = _gap(division, row['group'], values, level)
  return {'rows': rows, 'gaps': gaps}


def _worse(found, sign):
  """-> a number that is smaller, the worse a mean is."""
  return np.inf if found['mean'] is None else sign * found['mean']


def _gap(division, worst, values, level):
  """-> {'group': the worst, 'mean', 'low', 'high': its mean less that of all
  others and the 95% interval, 'sure': whether the wider interval of `level`
  leaves out 0}."""
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


def summary(values):
  """-> {'mean', 'low', 'high'}: mean and its 95% interval, by bootstrap."""
  values = [v for v in values if v is not None]
  if not values:
    return {'mean': None, 'low': None, 'high': None}
  low = high = None
  if len(values) > 1:
    low, high = bootstrap.ends(bootstrap.means(values), 0.95)
  return {'mean': float(np.mean(values)), 'low': low, 'high': high}


def difference(inside, outside, *, level=0.95, seed=0):
  """-> interval of mean(inside) - mean(outside), both resampled."""
  apart = bootstrap.means(inside, seed=seed)
  apart = apart - bootstrap.means(outside, seed=seed + 1)
  return bootstrap.ends(apart, level)


def _known(values, records):
  return [values[n] for n in records if values[n] is not None]
