"""Checks that the data of a stage have the classes that its network counts.

A label is an index. If the training data have a class that the evaluation data
lack, every label after it means another class in the two, and nothing shows it
but bad numbers. So both must name the same classes in the same order, and as
many as `config.model.num_classes`.

The key `allow_missing_classes` of a data section allows fewer. Training data
then count the classes that they have (`class_names` gives them their places in
a longer list), and evaluation data are matched with the training data by name.
"""

import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from cdm.config import datasets
from cdm.data import class_names
from cdm.data.source import Source, first_names


def check_training(
  c: ConfigDict,
  num_classes: int | None,
  source: Source,
  name: str = 'train_data',
) -> None:
  """Checks that a data set has as many classes as the network.

  Args:
    c: config of one stage.
    num_classes: the classes of its network; None if it uses no labels.
    source: the data set.
    name: its section of the config.

  Raises:
    ValueError: it has no classes, or more or fewer.
  """
  n, own = num_classes, source.num_classes
  if n is None or own == n:
    return
  if not own:
    raise ValueError(_unlabelled(c, n, name))
  if own > n:
    raise ValueError(
      f'config.model.num_classes is {n}, but the data has {own} classes, '
      f'labels 0 to {own - 1}; use --config.model.num_classes={own}.'
    )
  if not datasets.allows_missing_classes(c[name]):
    raise ValueError(
      f'config.model.num_classes is {n}, but config.{name} has {own} classes, '
      f'{first_names(tuple(source.class_names))}. Use data of all classes, '
      f'--config.model.num_classes={own}, or, if the others are missing on '
      f'purpose, --config.{name}.{datasets.ALLOW_MISSING}=True.'
    )


def matched(
  c: ConfigDict, names: Sequence[str] | None, name: str = 'eval_data'
) -> ConfigDict:
  """Returns the config with evaluation data that count the training's classes.

  Args:
    c: config of one stage.
    names: names of the classes in training; None if they are not known.
    name: the section of the data.

  Returns:
    The config itself, unless its evaluation data may lack classes.
  """
  section = c[name]
  takes_names = 'class_names' in datasets.keys_of(section)
  if (
    not names or not takes_names or not datasets.allows_missing_classes(section)
  ):
    return c
  if section.get('class_names') is not None:
    return c
  c = c.copy_and_resolve_references()
  with c.unlocked():
    c[name].class_names = tuple(names)
  return c


def of_stage(
  c: ConfigDict,
  workdir: str | os.PathLike[str],
  num_classes: int | None,
  name: str = 'eval_data',
) -> ConfigDict:
  """Checks the data on which a trained stage is used.

  Args:
    c: config of the stage.
    workdir: its work directory, which names the classes of its training.
    num_classes: the classes of its network; None if it uses no labels, and the
      data are not opened.
    name: the section of the data.

  Returns:
    The config to open the data with, see `matched`.

  Raises:
    ValueError: see `check_evaluation`.
  """
  if num_classes is None:
    return c
  names = class_names.read(workdir)
  # Numbers in their order are what data without names has.
  if names == [str(n) for n in range(len(names or ()))]:
    names = None
  c = matched(c, names, name)
  check_evaluation(c, num_classes, names, name=name)
  return c


def check_evaluation(
  c: ConfigDict,
  num_classes: int | None,
  names: Sequence[str] | None,
  *,
  name: str = 'eval_data',
  remedy: str | None = None,
) -> None:
  """Opens evaluation data and compares its classes with those in training.

  Args:
    c: config of one stage.
    num_classes: the classes of its network; None if it uses no labels, and the
      data are not opened.
    names: names of the classes in training; None if they are not known.
    name: the section of the data.
    remedy: see `datasets.open_source`.

  Raises:
    ValueError: the data cannot be opened, or have other classes.
  """
  if num_classes is None:
    return
  source = datasets.open_source(c[name], name, remedy=remedy)
  if not source.num_classes:
    raise ValueError(_unlabelled(c, num_classes, name))
  own = tuple(source.class_names)
  if not (names and getattr(source, 'named', True)):
    check_training(c, num_classes, source, name)
    return
  why = difference(own, tuple(names))
  if why:
    raise ValueError(
      f'The classes of config.{name} are not those of the training data: '
      f'{why}. One label would mean two classes. Use data of the same classes'
      f'{_ways_out(c, name, own, names)}.'
    )


def difference(own: Sequence[str], expected: Sequence[str]) -> str | None:
  """Returns the first difference of two lists of classes, or None."""
  if tuple(own) == tuple(expected):
    return None
  lacking = sorted(set(expected) - set(own), key=list(expected).index)
  strange = sorted(set(own) - set(expected), key=list(own).index)
  if len(lacking) == len(expected):
    return (
      f'they have no class in common, class 0 is {own[0]!r} here and '
      f'{expected[0]!r} there'
    )
  if strange:
    return (
      f'{_count(strange)} not in training, first {strange[0]!r} '
      f'({len(own):,} classes here, {len(expected):,} there)'
    )
  if lacking:
    number = list(expected).index(lacking[0])
    return (
      f'{_count(lacking)} missing, first {lacking[0]!r}, class {number} in '
      f'training ({len(own):,} classes here, {len(expected):,} there)'
    )
  number = next(n for n, name in enumerate(own) if name != expected[n])
  return (
    f'class {number} is {own[number]!r} here and {expected[number]!r} there'
  )


def _count(names):
  return '1 class is' if len(names) == 1 else f'{len(names):,} classes are'


def _ways_out(c, name, own, names):
  """Returns what else may be done, for data whose classes can be named."""
  if 'class_names' not in datasets.keys_of(c[name]):
    return ''
  text = f', or give all names in their order as config.{name}.class_names'
  if set(own) - set(names) or len(own) >= len(names):
    return text
  return (
    f'{text}; if classes are missing on purpose, --config.{name}.'
    f'{datasets.ALLOW_MISSING}=True matches them by name'
  )


def _unlabelled(c, num_classes, name):
  kind, known = c[name].kind, datasets.keys_of(c[name])
  file = ''
  if 'labels' in known:
    file = (
      f'give a file of its labels, --config.{name}.labels=FILE (lines '
      "'NAME LABEL', Kaggle's LOC_val_solution.csv or the development kit's "
      'ILSVRC2012_validation_ground_truth.txt), '
    )
  return (
    f'config.model.num_classes is {num_classes}, but config.{name} ({kind}) '
    f'has no classes: all its images would have the label 0. Use labelled '
    f'data, {file}or --config.model.num_classes=None.'
  )
