"""Finds the shards that a path stands for: one, a folder of them, or a pattern.

A pattern has the numbers or words that differ in braces, as shells do:
train-{000000..000146}.tar or {train,extra}-{0..9}.tar.
"""

import itertools
import os
import re
from collections.abc import Sequence

from absl import logging

from cdm.data import picture_files
from cdm.data.printable_name import printable

SUFFIX = '.tar'
_BRACES = re.compile(r'\{([^{}]*)\}')
_RANGE = re.compile(r'(\d+)\.\.(\d+)')
_MOST = 1_000_000
# A split's name, which is a word of its own in the name of a shard.
_SPLIT = re.compile(
  r'(?<![a-z])(train|training|val|valid|validation|dev|test)(?![a-z])'
)
_ONE_NAME = {
  'training': 'train',
  'valid': 'val',
  'validation': 'val',
  'dev': 'val',
}


def is_pattern(path: str) -> bool:
  """Returns whether a path has braces and is not itself that of a file."""
  return bool(_BRACES.search(path)) and not os.path.exists(path)


def expanded(pattern: str) -> list[str]:
  """Returns the paths that a pattern stands for, in their order.

  Raises:
    ValueError: they are more than a million, or a range runs downwards.
  """
  parts = _BRACES.split(pattern)  # plain, inside, plain, ...
  choices = [
    _choices(part, pattern) if n % 2 else [part] for n, part in enumerate(parts)
  ]
  count = 1
  for each in choices:
    count *= len(each)
  if count > _MOST:
    raise ValueError(f'{printable(pattern)} stands for {count:,} shards.')
  return [''.join(each) for each in itertools.product(*choices)]


def _choices(inside, pattern) -> list[str]:
  match = _RANGE.fullmatch(inside)
  if not match:
    return inside.split(',')
  first, last = int(match[1]), int(match[2])
  if not first <= last < first + _MOST:
    raise ValueError(
      f'{printable(pattern)} has the range {inside}; one such as '
      '000000..000146 was expected.'
    )
  return [f'{n:0{len(match[1])}d}' for n in range(first, last + 1)]


def find(path: str) -> list[str]:
  """Returns the paths of the shards that a path stands for, in order.

  Args:
    path: a shard, a folder of shards, or a pattern of their paths.

  Raises:
    ValueError: there are none, or one of a pattern is not there, or a folder
      holds those of several splits.
  """
  if is_pattern(path):
    shards = expanded(path)
    missing = [shard for shard in shards if not os.path.isfile(shard)]
    if missing:
      raise ValueError(
        f'{len(missing):,} of the {len(shards):,} shards of {printable(path)} '
        f'are not there, the first {printable(missing[0])}. Download them, or '
        'give the pattern of those that are there.'
      )
    return shards
  if os.path.isdir(path):
    return _in_folder(path)
  reason = picture_files.why_not_a_file(path)
  if reason is not None:
    raise ValueError(
      f'{printable(path)} {reason}; give a shard ({SUFFIX}), a folder of '
      'shards, or a pattern such as train-{000000..000146}.tar.'
    )
  return [path]


def tars_at(path: str) -> list[str]:
  """Returns the names of the tars in a folder, in order, or that of one tar.

  It never raises: where nothing can be read, there are none.
  """
  try:
    if os.path.isdir(path):
      names = sorted(os.listdir(path))
    else:
      names = [os.path.basename(path)] if os.path.isfile(path) else []
  except (OSError, ValueError):
    return []
  return [
    name
    for name in names
    if name.lower().endswith(SUFFIX) and not picture_files.is_hidden(name)
  ]


def holds_shards(path: str) -> bool:
  """Returns whether a folder holds tars, and neither pictures nor folders.

  A tar that lies beside unpacked pictures is not what is meant. It never
  raises.
  """
  try:
    with os.scandir(path) as entries:
      others = any(
        entry.is_dir() or picture_files.has_suffix(entry.name)
        for entry in entries
        if not picture_files.is_hidden(entry.name)
      )
  except (OSError, ValueError):
    return False
  return not others and bool(tars_at(path))


def _in_folder(path) -> list[str]:
  names = tars_at(path)
  if not names:
    raise ValueError(f'{printable(path)} has no shards ({SUFFIX}).')
  _refuse_several_splits(path, names)
  _warn_of_gaps(path, names)
  return [os.path.join(path, name) for name in names]


def _refuse_several_splits(path, names):
  """Raises if names of shards differ in the split that they name."""
  splits: dict[str, list[str]] = {}
  for name in names:
    words = (match[1] for match in _SPLIT.finditer(name.lower()))
    split = '+'.join(_ONE_NAME.get(word, word) for word in words)
    splits.setdefault(split, []).append(name)
  if len(splits) > 1:
    first = ', '.join(printable(shards[0]) for shards in splits.values())
    example = _pattern(max(splits.values(), key=len))
    raise ValueError(
      f'{printable(path)} holds the shards of several splits ({first}, ...). '
      'Give a pattern of those that are meant, such as '
      f'{printable(os.path.join(path, example))}'
    )


def _pattern(names: Sequence[str]) -> str:
  """Returns a pattern that the first and the last name fit, as an example."""
  first, last = (re.split(r'(\d+)', name) for name in (names[0], names[-1]))
  if len(first) != len(last):
    return names[0]
  return ''.join(
    a if a == b else f'{{{a}..{b}}}' for a, b in zip(first, last, strict=True)
  )


def _warn_of_gaps(path, names):
  """Warns if the numbers of shards leave one out."""
  numbers = [re.findall(r'\d+', name) for name in names]
  if not all(numbers):
    return
  for position in {0, len(numbers[0]) - 1}:
    found = {each[position] for each in numbers if len(each) > position}
    found = sorted(map(int, found))
    gaps = found[-1] - found[0] + 1 - len(found)
    if len(found) == len(names) and 0 < gaps <= len(names):
      logging.warning(
        '%s has %d shards, and %d between the first, %s, and the last, %s, are '
        'not there.',
        printable(path), len(names), gaps, names[0], names[-1],
      )  # fmt: skip
      return
