"""Opens the subject of a robustness study: a trained stage and its images."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from cdm.config import datasets, loader
from cdm.evaluation import image_source, set_name
from cdm.sampling import restore
from cdm.sampling.upscaler import Upscaler

MOST = 256  # number of images if the caller gives none


class StageImages(NamedTuple):
  """A trained super-resolution stage and the images that it is examined on.

  Attributes:
    upscale: super-resolves with the stage.
    held_out: the images, see `datasets.HeldOut`.
    files: file names of all images of the data, by index; None if the data are
      not files.
    class_names: names of the labels; () if there is one class or none.
    recipe: the manifest, a JSON-able dict of all that the images made depend
      on.
  """

  upscale: Upscaler
  held_out: datasets.HeldOut
  files: Sequence[str] | None
  class_names: tuple[str, ...]
  recipe: dict[str, Any]


def open_samples(
  samples: str,
  *,
  num: int | None,
  seed: int,
  level: float,
  batch_size: int,
  overrides: Sequence[tuple[str, str]] = (),
) -> StageImages:
  """Opens the stage and the images that 'WORKDIR@eval' or '@train' names.

  Args:
    samples: 'WORKDIR@eval' for the held-out data of the stage, 'WORKDIR@train'
      for its training data.
    num: number of images, spread over the data; None takes all of them, but at
      most `MOST`.
    seed: seed of the samples and of the degradations.
    level: augmentation level in [0, 1] of the low-res input.
    batch_size: images at once.
    overrides: ((dotted key, text), ...) of the saved config.

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
  upscale, saved = restore.restored_upscaler(
    pathlib.Path(name.workdir),
    level=level,
    batch_size=batch_size,
    overrides=overrides,
  )
  if name.split == 'train':
    saved.eval_data = saved.train_data
  source = datasets.open_source(saved.eval_data, f'{name.split}_data')
  if num is None:
    num = min(MOST, len(source))
  held_out = datasets.open_held_out(
    saved, image_source.check_available(samples, len(source), num)
  )
  names = tuple(source.class_names) if source.num_classes > 1 else ()
  recipe = {
    'samples': str(samples),
    **upscale.record.manifest(
      after_checkpoint={'weights': 'EMA', 'seed': seed}
    ),
    'low_res': loader.plain(saved.lowres),
    'image_size': upscale.image_size,
    'data': loader.plain(saved.eval_data),
    'fingerprint': source.fingerprint,
  }
  files = getattr(source, 'files', None)
  return StageImages(upscale, held_out, files, names, recipe)
