"""Computes the errors of a published classifier, and makes the row of them."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from cdm.evaluation import compare_sets
from cdm.evaluation.classification import labelled_set, ranks
from cdm.evaluation.classification.imagenet_reader import Reader
from cdm.evaluation.metrics import top_k
from cdm.evaluation.row_types import ErrorRates, ErrorRow, ImageManifest

NETWORK = "ResNet-50, torchvision's IMAGENET1K_V1"


def error_rates(found: np.ndarray) -> ErrorRates:
  """Computes errors and accuracies, shares in [0, 1].

  Args:
    found: int [N], the ranks of the true classes.
  """
  accuracy = ranks.accuracy(found)
  errors = {f'top{k}_error': float(np.mean(found >= k)) for k in (1, 5)}
  intervals = {
    f'{name}_error': [1.0 - high, 1.0 - low]
    for name, (low, high) in accuracy['intervals'].items()
  }
  return cast(ErrorRates, {**accuracy, 'intervals': intervals, **errors})


def error_row(
  found: np.ndarray,
  reader: Reader,
  recipe: ImageManifest,
  names: Mapping[str, str],
) -> ErrorRow:
  """Returns the errors with everything that they depend on.

  Args:
    found: int [N], the ranks of the true classes.
    reader: the images.
    recipe: the manifest of the ranks.
    names: {'samples': name of the set}, and for a stage its 'reference'.
  """
  warnings = []
  if not labelled_set.is_named(reader.source):
    warnings.append(
      'the classes have no names: label n is taken for class n of ImageNet'
    )
  if recipe['network'] != NETWORK:
    warnings.append(f'the classifier is a {recipe["network"]}')
  row: dict[str, Any] = {
    **names,
    'n': reader.count,
    'which': reader.which,
    **error_rates(found),
    'conventions': {'accuracy': f'{top_k.CONVENTION}; error is 1 less it'},
    'warnings': warnings,
    'samples_recipe': recipe,
    'versions': compare_sets.versions(),
  }
  return cast(ErrorRow, row)
