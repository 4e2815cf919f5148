"""Names the public data set and the split that images come from.

The name is known of data sets of tensorflow-datasets, and of shards that were
prepared from one. Folders have paths, which differ from machine to machine and
name nothing.
"""

import re
from collections.abc import Mapping
from typing import Any, TypedDict


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
  if section.get('kind') != 'tfds' or 'name' not in section:
    return {}
  name = str(section['name']).partition(':')[0]  # without the version
  return {'source': f'tfds:{name}', 'split': str(section.get('split', ''))}


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
