"""Finds labelled images: from what is named to a section of a config.

WHAT names a labelled set:

  FOLDER              a sub-folder per class; or what `cdm sample` or `cdm
                      prepare` wrote
  FILE.npz            arr_0 pictures, arr_1 labels
  CONFIG.py:train     the data of a config; of its own preprocessing nothing
  CONFIG.py:eval      is taken: whoever asks crops and resizes
"""

import pathlib

from cdm.config import datasets, instantiate, loader
from cdm.data import record_format
from cdm.evaluation import set_name

SAMPLING = 'sampling.json'  # what `cdm sample` leaves beside its pictures
SAMPLES = 'samples.npz'


def section(what):
  """WHAT -> {'kind': ..., ...}, the section of a config that opens it.

  Raises:
    ValueError: there is no such set, or none that could be labelled.
  """
  named = set_name.parse(what)
  if named.kind == 'data':
    loaded = loader.load(named.path, ())
    name = f'{named.split}_data'
    instantiate.require(loaded, name)
    return dict(loaded[name])
  path = pathlib.Path(what)
  if path.suffix == '.npz' and path.is_file():
    return {'kind': 'archive', 'path': str(path), 'class_names': None}
  if not path.is_dir():
    raise ValueError(
      f'{what} is no labelled set: give a folder with a sub-folder per class, '
      'an .npz with arr_0 and arr_1, or CONFIG.py:train or :eval.'
    )
  if (path / SAMPLING).exists():
    if not (path / SAMPLES).exists():
      raise ValueError(
        f'{path} is unfinished, it has no {SAMPLES}: run the same cdm sample '
        'again, it continues.'
      )
    return section(path / SAMPLES)
  if (path / record_format.INDEX).exists():
    return {'kind': 'array_records', 'path': str(path)}
  return {'kind': 'folder', 'path': str(path), 'class_names': None}


def opened(what, given, names=None):
  """Opens a labelled set, its classes in the order of `names`.

  Args:
    what: WHAT, for complaints.
    given: its section.
    names: of the classes 0, 1, 2, ...; None keeps its own.

  Returns:
    (source, the section with the names in it).

  Raises:
    ValueError: it has no classes, or others.
  """
  if names is not None and given['kind'] in ('archive', 'folder'):
    given = {**given, 'class_names': tuple(names)}
  source = datasets.open_source(given, what)
  if not source.num_classes:
    raise ValueError(
      f'{what} has no classes: its pictures lie in no sub-folders. Give '
      'labelled ones, a sub-folder per class.'
    )
  if names is not None and tuple(source.class_names) != tuple(names):
    raise ValueError(_unlike(what, source.class_names, names))
  return source, given


def is_named(source):
  """Whether a source says what its classes are, or only numbers them."""
  return getattr(source, 'named', True)


def _unlike(what, mine, names):
  if len(mine) != len(names):
    return (
      f'{what} has {len(mine)} classes and what it is compared with '
      f'{len(names)}; give data of the same classes.'
    )
  n = next(
    i
    for i, pair in enumerate(zip(mine, names, strict=True))
    if pair[0] != pair[1]
  )
  return (
    f'Class {n} of {what} is {mine[n]!r} and of what it is compared with '
    f'{names[n]!r}: one label would mean two things. Give data of the same '
    'classes in the same order, or as a folder, whose classes go by name.'
  )
