"""Computes the row of each method of a comparison: scores, time and cost."""

from __future__ import annotations

import pathlib
import time
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from cdm.data import image_set
from cdm.evaluation import compare_sets, paired_metrics, set_metrics
from cdm.evaluation.comparison import opened_methods, result_images
from cdm.evaluation.lpips_scorer import LpipsScorer
from cdm.ops import pair_scores
from cdm.ops.keys import seed_pairs
from cdm.sampling import upscaler


class Row(TypedDict, total=False):
  """One method of a comparison, as comparison.json has it.

  Attributes:
    method: its name.
    kind: see `named_methods.NamedMethod`.
    path: its work directory or folder of images, if it has one.
    checkpoint: step of the checkpoint.
    scores: {metric: mean}.
    intervals: {metric: [low, high]}, 95%, by bootstrap over images.
    conventions: {metric: sentence that defines it}.
    is_drawn: whether two seeds give different images; None for images that
      another program has made.
    seconds_per_image: of super-resolving, on the devices named, compiled.
    cost: see `opened_methods.Cost`.
  """

  method: str
  kind: str
  path: str
  checkpoint: int
  scores: dict[str, float | None]
  intervals: dict[str, list[float]]
  conventions: dict[str, str]
  is_drawn: bool | None
  seconds_per_image: float | None
  cost: dict[str, Any]


class Folders(NamedTuple):
  """Where the images of a method and what they are compared with are.

  Attributes:
    images: the results.
    originals: the held-out images.
    lowres: the low-res images.
  """

  images: pathlib.Path
  originals: pathlib.Path
  lowres: pathlib.Path


class Features(NamedTuple):
  """In whose features sets are compared.

  Attributes:
    weights: path of the weights of the network, or None for no comparison.
    batch_size: images that it judges at once; None chooses.
  """

  weights: str | None = None
  batch_size: int | None = None


def scores_of(
  folders: Folders,
  task: opened_methods.Task,
  *,
  perceptual: LpipsScorer | None,
  features: Features,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
  """Scores the images of a method.

  Returns:
    (scores, intervals, conventions), see `Row`.
  """
  sets = [result_images.load(path) for path in folders]
  count = sets[1].count
  if sets[0].count != count:
    raise ValueError(
      f'{folders.images} holds {sets[0].count} images, but {count} are '
      'compared; give one image for each, in their order.'
    )
  samples, originals, lowres = (
    image_set.stream(images, range(count)) for images in sets
  )
  found: dict[str, Any] = dict(
    paired_metrics.evaluate_pairs(
      samples,
      originals,
      lowres=lowres,
      downsample=task.downsample,
      perceptual=perceptual,
    )
  )
  conventions = found['conventions']
  scores = {name: found[name] for name in conventions}
  if features.weights is not None:
    row: dict[str, Any] = dict(
      compare_sets.judge(
        folders.images,
        folders.originals,
        set_metrics.MetricChoice(('fd',), allow_few_images=True),
        network={
          'weights': features.weights,
          'batch_size': features.batch_size,
        },
      )
    )
    scores['fd'] = row['fd']
    network = row['samples_recipe']['network']
    conventions = {
      **conventions,
      'fd': f'{row["conventions"]["fd"]}; network {network}; '
      f'{count} images against their originals',
    }
  return scores, found['intervals'], conventions


def consistency_of(
  folders: Folders, task: opened_methods.Task
) -> list[float | None]:
  """Returns the consistency of every image of a method."""
  images, _, lowres = (result_images.load(path) for path in folders)
  return [
    float(
      pair_scores.consistency(
        images.read(n)[None], lowres.read(n)[None], method=task.downsample
      )[0]
    )
    for n in range(images.count)
  ]


def seconds_per_image(
  upscale: upscaler.Upscaler, lowres: np.ndarray, label: np.ndarray
) -> tuple[float, bool]:
  """Times a batch that is compiled, and tells whether its images are drawn.

  Args:
    upscale: the method.
    lowres: uint8 [B, h, w, 3].
    label: int [B].

  Returns:
    (seconds for one image, whether two seeds give different images).
  """
  runs = []
  for seed in (0, 1):
    began = time.monotonic()
    runs.append(
      upscale(lowres, keys=seed_pairs(seed, range(len(lowres))), label=label)
    )
    took = time.monotonic() - began
  return took / len(lowres), bool((runs[0] != runs[1]).any())


def device_text() -> str:
  """Returns what the times were measured on: '1 cpu device'."""
  devices = jax.devices()
  ending = '' if len(devices) == 1 else 's'
  return f'{len(devices)} {devices[0].device_kind} device{ending}'
