"""Parses the words that name a set of images on the command line.

WHAT names a set:

  FOLDER, FILE.npz     pictures; or statistics, as a reference
  CONFIG.py:train      the data of a config, through its own preprocessing
  CONFIG.py:eval
  CONFIG.py@WORKDIR    a trained cascade (or base), sampled as it is judged
  WORKDIR@eval         a trained super-resolution stage on true low-res images,
  WORKDIR@train        its own data's, made small as in training
"""

import dataclasses
import re

# The first form that fits counts; all else are files.
FORMS = {
  'data': r'(?P<path>.+\.py):(?P<split>train|eval)',
  'stage': r'(?P<workdir>.+)(?<!\.py)@(?P<split>train|eval)',
  'cascade': r'(?P<path>.+\.py)@(?P<workdir>.+)',
}


@dataclasses.dataclass(frozen=True)
class SetName:
  """What a set of images was named by.

  Attributes:
    kind: 'data', 'stage', 'cascade' or 'files'.
    path: the config of 'data' and 'cascade', the folder or file of 'files'.
    split: 'train' or 'eval', of 'data' and 'stage'.
    workdir: of the trained 'stage' or 'cascade'.
  """

  kind: str
  path: str | None = None
  split: str | None = None
  workdir: str | None = None


def parse(what):
  """WHAT -> SetName; whether there is such a set shows when it is opened."""
  for kind, form in FORMS.items():
    match = re.fullmatch(form, str(what))
    if match:
      return SetName(kind, **match.groupdict())
  return SetName('files', path=str(what))


def asks_to_draw(what):
  """Whether WHAT is a 'stage' or a 'cascade', or one that is mistyped."""
  return '@' in str(what)
