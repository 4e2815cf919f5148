"""Says what the overview of a folder of images shows, from its manifest."""

import json
import pathlib
from typing import Any


def describe(folder: pathlib.Path) -> str:
  """Returns what the overview of a folder shows, as its manifest tells it.

  The caption is '' for a folder without a manifest that can be read.
  """
  for name, words in (
    ('sampling.json', _describe_samples),
    ('upscaling.json', _describe_upscaled),
  ):
    try:
      return words(json.loads((folder / name).read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
      continue
  return ''


def _describe_samples(manifest: dict[str, Any]) -> str:
  rows = 'A row per class' if manifest['labels'] else 'Drawn without a label'
  if len(manifest['stages']) == 1:
    return f'{rows}.'
  return f'{rows}; each group shows one image at every stage.'


def _describe_upscaled(manifest: dict[str, Any]) -> str:
  return f'Images of the evaluation data of {manifest["experiment"]}.'
