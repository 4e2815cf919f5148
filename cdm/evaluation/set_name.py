"""Parses the name of a set of images, WHAT, as given on the command line.

WHAT is one of:

  FOLDER, FILE.npz     images; or, for a reference, statistics
  CONFIG.py:train      the data of a config, after its own preprocessing
  CONFIG.py:eval
  CONFIG.py@WORKDIR    samples of a trained cascade (or base), drawn on the fly
  WORKDIR@eval         samples of a trained super-resolution stage; its low-res
  WORKDIR@train        inputs are its own data, downsampled as in training
  METHOD:CONFIG.py@eval    the same of a method without training, see
  METHOD:CONFIG.py@train   `sampling.named_upscaler`
"""

import dataclasses
import os
import re

# The first form that matches decides; any other name is a path of files.
FORMS = {
  'data': r'(?P<path>.+\.py):(?P<split>train|eval)',
  'stage': (r'(?P<workdir>\w+:.+\.py|.+(?<!\.py))@(?P<split>train|eval)'),
  'cascade': r'(?P<path>.+\.py)@(?P<workdir>.+)',
}


@dataclasses.dataclass(frozen=True)
class SetName:
  """The parsed name of a set of images.

  Attributes:
    kind: 'data', 'stage', 'cascade' or 'files'.
    path: path of the config for 'data' and 'cascade', of the folder or file for
      'files', else None.
    split: 'train' or 'eval' for 'data' and 'stage', else None.
    workdir: work directory of the trained 'stage' or 'cascade', else None.
  """

  kind: str
  path: str | None = None
  split: str | None = None
  workdir: str | None = None


def parse(what: str | os.PathLike) -> SetName:
  """Parses WHAT; does not check that the set exists."""
  for kind, form in FORMS.items():
    match = re.fullmatch(form, str(what))
    if match:
      return SetName(kind, **match.groupdict())
  return SetName('files', path=str(what))


def has_config(what: str | os.PathLike | None) -> bool:
  """Returns whether a config says what the images of WHAT are."""
  return what is not None and parse(what).kind != 'files'


def asks_to_draw(what: str | os.PathLike) -> bool:
  """Returns whether WHAT is a 'stage' or 'cascade', even if it is mistyped."""
  return '@' in str(what)
