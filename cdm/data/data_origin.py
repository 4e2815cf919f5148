"""Names the public data set and the split that images come from.

The name is known of data sets of tensorflow-datasets, of shards that were
prepared from one, and of ImageNet's own tars. Folders have paths, which differ
from machine to machine and name nothing, so the key `data_set` of a data
section states what is in them.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, TypedDict

# A key of every data section, for comparisons and not for the source.
DATA_SET = 'data_set'
_LIBRARY = 'tfds:'
# Those of `imagenet_tar`, which are not named by the library.
_IMAGENET = 'imagenet2012'
_TARS = {
  'ILSVRC2012_img_train.tar': 'train',
  'ILSVRC2012_img_val.tar': 'validation',
}


class Origin(TypedDict, total=False):
  """Where images come from; what is not known is absent.

  Attributes:
    source: name of the data set, e.g. 'tfds:imagenet2012'.
    split: e.g. 'train' or 'validation[:1%]'.
  """

  source: str
  split: str


def of_section(section: Mapping[str, Any]) -> Origin:
  """Returns the origin that a data section of a config states.

  Args:
    section: the section `train_data` or `eval_data`.
  """
  stated = section.get(DATA_SET)
  if stated:
    return _stated(str(stated))
  if section.get('kind') == 'imagenet_tar':
    split = _TARS.get(os.path.basename(str(section.get('path'))))
    return {'source': _IMAGENET, **({'split': split} if split else {})}
  if section.get('kind') != 'tfds' or 'name' not in section:
    return {}
  name = str(section['name']).partition(':')[0]  # without the version
  return {
    'source': f'{_LIBRARY}{name}',
    'split': str(section.get('split', '')),
  }


def _stated(text: str) -> Origin:
  """Returns the origin that 'NAME:SPLIT' or 'NAME' states."""
  name, _, split = text.removeprefix(_LIBRARY).partition(':')
  return {'source': name, **({'split': split} if split else {})}


def plain(source: str) -> str:
  """Returns the name of a data set, whoever distributes it."""
  return source.removeprefix(_LIBRARY)


def of_sections(config: Any) -> dict[str, Origin] | None:
  """Returns {'train': origin, 'eval': origin} of the data of a config.

  What it does not name is left out, and None stands for neither.

  Args:
    config: a ConfigDict with the sections `train_data` and `eval_data`.
  """
  origins = {
    split: of_section(config.get(f'{split}_data', {}))
    for split in ('train', 'eval')
  }
  return {split: origin for split, origin in origins.items() if origin} or None


def of_fingerprint(fingerprint: str) -> Origin:
  """Returns the origin that the fingerprint of a source states.

  Args:
    fingerprint: see `cdm.data.source`; for prepared shards that of the source
      they were prepared from.
  """
  # tfds:NAME[/CONFIG]/VERSION/SPLIT:HASH, see `tfds.Tfds.fingerprint`.
  found = re.fullmatch(
    r'tfds:(?P<name>.+)/\d+\.\d+\.\d+/(?P<split>.+):[0-9a-f]+', fingerprint
  )
  if found is None:
    return {}
  return {'source': f'tfds:{found["name"]}', 'split': found['split']}
