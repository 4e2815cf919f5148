"""Opens the maps of faces that training data have, for a network of them.

Three keys of the section `train_data` say where they are. They are no arguments
of a source, because any source of named pictures may have them.

  landmarks   a file of points, see `landmark_file` and `ffhq_landmarks`; of
              kind='tfds' the name of a feature, see `tfds_landmarks`
  parsing     a folder of maps of parts, see `parsing_folder`
  parts       the names of the parts 0, 1, 2, ...; () is CelebAMask-HQ's
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from cdm.config import key_errors, value_types
from cdm.data import (
  facial_maps,
  ffhq_landmarks,
  landmark_file,
  parsing_folder,
  tfds_landmarks,
)
from cdm.data.source import Source
from cdm.data.tfds import Tfds

KEYS = {'landmarks': '', 'parsing': '', 'parts': ()}
_METHOD = 'fsrgan'


def with_maps(c: ConfigDict, source: Source) -> Source:
  """Returns the training data of a stage, with maps if its network has them.

  Args:
    c: config of one stage.
    source: its training data as they are.

  Returns:
    A `facial_maps.FacialMaps`; or `source` itself, if there are no maps.

  Raises:
    ValueError: the maps are not those of the network, or cannot be read.
  """
  _refuse_evaluation(c)
  section = {key: c.train_data.get(key, empty) for key, empty in KEYS.items()}
  for key, value in section.items():
    kind = tuple[str, ...] if key == 'parts' else str
    value_types.check(f'train_data.{key}', value, kind)
  wanted = of_network(c)
  if not (section['landmarks'] or section['parsing']):
    if section['parts']:
      raise ValueError(
        'config.train_data.parts names parts of faces, but config.train_data.'
        'parsing gives no folder of their maps. Give it with '
        '--config.train_data.parsing=DIR.'
      )
    if wanted:
      raise ValueError(
        f'config.model.num_maps is {wanted}, but config.train_data gives no '
        'maps of faces. Give them with --config.train_data.landmarks=FILE or '
        '--config.train_data.parsing=DIR, or set --config.model.num_maps=0.'
      )
    return source
  found = _open(c.train_data.kind, section, source)
  if found.num_maps != wanted:
    raise ValueError(_disagreement(c, section, found.num_maps, wanted))
  with key_errors.naming('train_data', KEYS, otherwise=_first(section)):
    found.check(flip=c.pipeline.get('flip', False))
  return found


def of_network(c: ConfigDict) -> int:
  """Returns how many maps of faces the network of a stage estimates."""
  if c.get('method', {}).get('kind') != _METHOD:
    return 0
  return c.model.get('num_maps', 0)


def _refuse_evaluation(c):
  """Refuses maps of evaluation data, which nothing would read."""
  for key in KEYS:
    if c.get('eval_data', {}).get(key):
      raise ValueError(
        f'config.eval_data.{key} is given, but only training reads landmarks '
        'and parts of faces; leave it out.'
      )


def _first(section):
  """Returns the dotted name of the key that gives maps."""
  return f'train_data.{"landmarks" if section["landmarks"] else "parsing"}'


def _open(kind: str, section: Mapping[str, Any], source: Source):
  """Returns the `FacialMaps` of a source."""
  if kind == 'array_records':
    raise ValueError(
      f'config.{_first(section)} is given, but prepared shards keep neither '
      'landmarks nor parts of faces, and their pictures are cropped and '
      'resized. Train from the folder that they were made of, with '
      '--config.train_data.kind=folder.'
    )
  of_tfds = isinstance(source, Tfds)
  files = ()
  if section['parsing'] or not of_tfds:
    files = getattr(source, 'file_names', lambda: None)()
    if files is None:
      raise ValueError(
        f'config.{_first(section)} is given, but the pictures of these data '
        f'(kind={kind!r}) have no names. Use --config.train_data.kind=folder.'
      )
  landmarks = parsing = None
  if section['landmarks']:
    with key_errors.naming(
      'train_data', KEYS, otherwise='train_data.landmarks'
    ):
      if of_tfds:
        landmarks = tfds_landmarks.TfdsLandmarks(source, section['landmarks'])
      elif ffhq_landmarks.is_one(section['landmarks']):
        landmarks = ffhq_landmarks.read(section['landmarks'], files)
      else:
        landmarks = landmark_file.read(section['landmarks'], files)
  if section['parsing']:
    names = section['parts'] or parsing_folder.PARTS
    with key_errors.naming('train_data', KEYS, otherwise='train_data.parsing'):
      parsing = parsing_folder.ParsingFolder(section['parsing'], files, names)
  return facial_maps.FacialMaps(source, landmarks, parsing)


def _disagreement(c, section, found, wanted):
  """Returns the message about maps that are not those of the network."""
  given = [key for key in ('landmarks', 'parsing') if section[key]]
  names = ' and '.join(f'config.train_data.{key}' for key in given)
  several = len(given) > 1
  kind = c.get('method', {}).get('kind')
  if kind != _METHOD:
    return (
      f'{names} {"are" if several else "is"} given, but config.method.kind is '
      f'{kind!r}, and only {_METHOD!r} learns maps of faces; leave out the '
      'maps.'
    )
  return (
    f'{names} {"have" if several else "has"} {found} maps, but '
    f'config.model.num_maps is {wanted}. Set --config.model.num_maps={found}, '
    'or leave out the maps.'
  )
