"""Opens a set of labelled images that is named on the command line.

WHAT names a labelled set:

  FOLDER              a subfolder for each class, or the output folder of
                      `cdm sample` or `cdm prepare`
  FILE.npz            arr_0 holds the images, arr_1 the labels
  CONFIG.py:train     the data of a config, without the config's preprocessing:
  CONFIG.py:eval      the caller crops and resizes
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cdm.config import datasets, instantiate, loader
from cdm.data import record_format
from cdm.evaluation import set_name

SAMPLING = 'sampling.json'  # the manifest that `cdm sample` writes
SAMPLES = 'samples.npz'


def section(what: str | os.PathLike) -> dict[str, Any]:
  """Returns the config section, {'kind': ..., ...}, that opens a labelled set.

  Args:
    what: WHAT, see the module.

  Raises:
    ValueError: there is no such set, its samples are unfinished, or what is
      named cannot have labels.
  """
  named = set_name.parse(what)
  if named.kind == 'data':
    assert named.path is not None
    loaded = loader.load(named.path, ())
    name = f'{named.split}_data'
    instantiate.require(loaded, name)
    datasets.check_section(name, loaded[name])
    return dict(loaded[name])
  path = pathlib.Path(what)
  if path.suffix == '.npz' and path.is_file():
    return {'kind': 'archive', 'path': str(path), 'class_names': None}
  if not path.is_dir():
    raise ValueError(
      f'{what} is not a labelled set: give a folder with a subfolder per '
      'class, an .npz with arr_0 and arr_1, or CONFIG.py:train or :eval.'
    )
  if (path / SAMPLING).exists():
    if record_format.find_folder(path) is not None:
      return {'kind': 'array_records', 'path': str(path), 'class_names': None}
    if not (path / SAMPLES).exists():
      raise ValueError(
        f'{path} is unfinished, because it has no {SAMPLES}: run the same '
        'cdm sample again, which continues it.'
      )
    return section(path / SAMPLES)
  if (path / record_format.INDEX).exists():
    return {'kind': 'array_records', 'path': str(path), 'class_names': None}
  # The loaders with which published classifiers were trained and judged ignore
  # the EXIF orientation, which some pictures of ImageNet state.
  return {
    'kind': 'folder',
    'path': str(path),
    'class_names': None,
    'exif_rotation': False,
  }


def open_set(
  what: str | os.PathLike,
  given: Mapping[str, Any],
  names: Sequence[str] | None = None,
) -> tuple[Any, Mapping[str, Any]]:
  """Opens a labelled set, with the classes in the order of `names`.

  Args:
    what: WHAT, for error messages.
    given: the config section of the set, see `section`.
    names: names of the classes 0, 1, 2, ...; None keeps the set's own order.

  Returns:
    (source, the section with the names in it); see `data.source` for sources.

  Raises:
    ValueError: the set has no classes, or other classes than `names`.
  """
  if names is not None and 'class_names' in datasets.keys_of(given):
    given = {**given, 'class_names': tuple(names)}
  source = datasets.open_named(given)
  if not source.num_classes:
    raise ValueError(
      f'{what} has no classes: its images lie in no subfolders. Give labelled '
      'images, with a subfolder for each class, or a file of their labels '
      '(--labels=FILE, or config.eval_data.labels where a config names them).'
    )
  if names is not None and tuple(source.class_names) != tuple(names):
    raise ValueError(_unlike(what, source.class_names, names))
  return source, given


def is_named(source: object) -> bool:
  """Returns whether a source has names for its classes, not only numbers."""
  return getattr(source, 'named', True)


def _unlike(what, own, names):
  """Returns the message that refuses a set with other classes than `names`."""
  if len(own) != len(names):
    return (
      f'{what} has {len(own)} classes and the data that it is compared with '
      f'{len(names)}; give data of the same classes.'
    )
  n = next(
    i
    for i, pair in enumerate(zip(own, names, strict=True))
    if pair[0] != pair[1]
  )
  return (
    f'Class {n} of {what} is {own[n]!r}, but class {n} of the data that it is '
    f'compared with is {names[n]!r}: one label would mean two things. Give '
    'data of the same classes in the same order, or a folder, whose classes '
    'are matched by name.'
  )
