"""Opens what is examined: a trained stage and held-out images of its data."""

import pathlib
from typing import NamedTuple

from cdm.config import datasets, loader
from cdm.evaluation import image_source, set_name
from cdm.sampling import restore
from cdm.sampling.upscaler import Upscaler

MOST = 256  # images, where no number is given


class StageImages(NamedTuple):
  """A stage and its images.

  Attributes:
    upscale: what super-resolves.
    held_out: `datasets.HeldOut`.
    files: name of every record of the data, or None.
    class_names: of the labels, () if there is one class or none.
    recipe: JSON-able dict of all that a picture depends on.
  """

  upscale: Upscaler
  held_out: datasets.HeldOut
  files: tuple | None
  class_names: tuple
  recipe: dict


def open_samples(samples, *, num, seed, level, batch_size, overrides=()):
  """WORKDIR@eval or WORKDIR@train -> Opened.

  Args:
    samples: the words above.
    num: images, spread over the data; at most `MOST` of them if None.
    seed: of the samples and the degradations.
    level: augmentation level in [0, 1] of the low-res input.
    batch_size: tiles at once.
    overrides: ((dotted key, text), ...) of the saved config.

  Raises:
    ValueError: no such stage, a base model, or fewer images.
  """
  name = set_name.parse(samples)
  if name.kind != 'stage':
    raise ValueError(
      f'--samples={samples}: expected is WORKDIR@eval, a trained '
      'super-resolution stage on its held-out data, or WORKDIR@train, on its '
      'training data.'
    )
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
