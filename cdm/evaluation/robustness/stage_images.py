"""Opens the subject of a robustness study: a trained stage and its images."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, cast

from cdm.config import class_agreement, datasets, evaluated_images, loader
from cdm.evaluation import image_source, set_name
from cdm.evaluation.image_selection import StageSampling
from cdm.evaluation.robustness.report_types import StudyManifest
from cdm.sampling import drawing_batch, named_upscaler
from cdm.sampling.upscaler import Upscaler

MOST = 256  # number of images if the caller gives none


class StageImages(NamedTuple):
  """A trained super-resolution stage and the images that it is examined on.

  Attributes:
    upscale: super-resolves with the stage.
    held_out: the images, see `evaluated_images.HeldOut`.
    files: file names of all images of the data, by index; None if the data are
      not files.
    class_names: names of the labels; () if there is one class or none.
    recipe: the manifest: everything that the images made depend on.
  """

  upscale: Upscaler
  held_out: evaluated_images.HeldOut
  files: Sequence[str] | None
  class_names: tuple[str, ...]
  recipe: StudyManifest


def open_samples(samples: str, sampling: StageSampling) -> StageImages:
  """Opens the stage and the images that 'WORKDIR@eval' or '@train' names.

  Args:
    samples: 'WORKDIR@eval' for the held-out data of the stage, 'WORKDIR@train'
      for its training data.
    sampling: how the images are sampled; `num` None takes all images of the
      data, but at most `MOST`. The seed is also that of the degradations.

  Raises:
    ValueError: there is no such stage, it is a base model, or the data have
      fewer than `num` images.
  """
  name = set_name.parse(samples)
  if name.kind != 'stage':
    raise ValueError(
      f'--samples={samples}: give WORKDIR@eval, a trained super-resolution '
      'stage on its held-out data, or WORKDIR@train, the stage on its training '
      'data.'
    )
  assert name.workdir is not None
  upscale, saved = named_upscaler.opened(
    pathlib.Path(name.workdir),
    level=sampling.level,
    batch_size=sampling.batch_size,
    overrides=sampling.overrides,
    at=sampling.at,
    limits=drawing_batch.OWN_ROWS._replace(
      per_device=sampling.batch_per_device
    ),
    redraws=sampling.redraws,
  )
  saved = class_agreement.of_stage(
    saved, name.workdir, upscale.num_classes, f'{name.split}_data'
  )
  if name.split == 'train':
    saved.eval_data = saved.train_data
  source = datasets.open_source(saved.eval_data, f'{name.split}_data')
  num = sampling.num
  if num is None:
    num = min(MOST, len(source))
  num = image_source.check_available(samples, len(source), num)
  held_out = evaluated_images.open_held_out(saved, num)
  if sampling.batch_size is None:  # Batches are filled up: none is much larger.
    size = drawing_batch.evened(upscale.batch_size, num, upscale.mesh)
    upscale = dataclasses.replace(upscale, batch_size=size)
  names = tuple(source.class_names) if source.num_classes > 1 else ()
  recipe = {
    'samples': str(samples),
    **upscale.record.manifest(
      after_checkpoint={
        'weights': upscale.record.weights,
        'seed': sampling.seed,
      }
    ),
    'low_res': loader.plain(saved.lowres),
    'image_size': upscale.image_size,
    'data': loader.plain(saved.eval_data),
    'fingerprint': source.fingerprint,
  }
  files = getattr(source, 'files', None)
  manifest = cast(StudyManifest, recipe)
  return StageImages(upscale, held_out, files, names, manifest)
