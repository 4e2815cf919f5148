"""Draws, enlarges and judges images from Python, with NumPy and Pillow.

  load      a trained stage or cascade, once
  upscale   pictures to any size          restore   to their own size
  sample    images from nothing           evaluate  metrics of images

It is the code of the commands `cdm upscale`, `cdm sample` and `cdm evaluate`:
the same picture, seed and settings give the same result. An argument has the
name of the command's flag, and a message that names one means the argument.

Pictures are Pillow images (L, LA, RGB, RGBA or I;16), NumPy arrays [H, W],
[H, W, 3] or [N, H, W, 3] (uint8 or uint16, whose largest value is white, or
float32 from 0 to 1), or a list of either. A result is of the kind that was
given: Pillow for Pillow, with its mode, colour profile and EXIF; an array for
an array, with its dtype.

For example, with a super-resolution stage in RUNS/sr and its base model in
RUNS/base:

>>> import numpy as np
>>> from cdm import api
>>> stage = api.load(RUNS / 'sr')
>>> photo = np.full((10, 14, 3), 90, np.uint8)
>>> api.upscale(stage, photo).shape  # by the factor of the stage, 2 here
(20, 28, 3)
>>> large = api.upscale(stage, photo, scale=api.Size(long_edge=50), seed=1)
>>> large.shape, large.dtype
((36, 50, 3), dtype('uint8'))
>>> len(api.upscale(stage, photo, num_samples=3))  # as many guesses
3
>>> api.restore(stage, photo).shape
(10, 14, 3)
>>> base = api.load(RUNS / 'base', sampler='ddim', steps=2)
>>> drawn = api.sample(base, 4, labels=[0, 3], seed=1)  # classes 0, 3, 0, 3
>>> drawn.shape
(4, 8, 8, 3)
>>> scores = api.evaluate(api.upscale(stage, drawn), api.upscale(stage, drawn))
>>> scores['psnr'], round(scores['ssim'], 6)
(inf, 1.0)
"""

import contextlib
import hashlib
import os
import pathlib
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast, overload

import jax
import numpy as np
from PIL import Image

from cdm.data import low_res_inputs
from cdm.data.files import damaged_file
from cdm.data.photographs import array_pictures
from cdm.distributed import compilation_cache, platforms
from cdm.evaluation import array_sets
from cdm.sampling import (
  enlarged_jobs,
  enlarged_pictures,
  loaded_model,
  shipped_model,
)
from cdm.sampling.enlarged_size import Asked as Size
from cdm.sampling.loaded_model import Model

__all__ = [
  'Correction',
  'Model',
  'Size',
  'evaluate',
  'load',
  'restore',
  'sample',
  'upscale',
]

Pictures = TypeVar('Pictures', np.ndarray, Image.Image, list)
Number = int | str | os.PathLike


class Correction(NamedTuple):
  """How close results keep to their pictures.

  Attributes:
    back_projection: rounds, 0 to 10, that make a result shrink to its original;
      None is 1, and 0 for a Pillow image of a JPEG file below quality 90, for
      noisy or blurred pictures that a stage restores, and for results of the
      size of their original.
    damage: what degraded the pictures, for a stage that restores it: 'none', or
      some of 'noise=3,jpeg=60,blur=0.8'; None estimates noise and quality.
    detail: for a stage that draws details over a mean: from 0, the mean, to 1,
      a draw; None is 0.6.
  """

  back_projection: int | None = None
  damage: str | None = None
  detail: float | None = None


AS_SEEN = Correction()


def load(
  workdir: str | os.PathLike | None = None,
  *,
  config: str | os.PathLike | None = None,
  at: int | str | None = None,
  ema: str | None = None,
  sampler: str | Mapping[str, str] | None = None,
  steps: int | Mapping[str, int] | None = None,
  guidance: float | Mapping[str, float] | None = None,
  overrides: Mapping[str, Any] | None = None,
) -> Model:
  """Loads a trained stage or cascade; it compiles when it first draws.

  Compiled programs are kept on disk for the next start, as by the commands.

  Args:
    workdir: work directory of a stage (a base model, a super-resolution stage,
      a distilled student, a regression); or, with a config, the folder of the
      work directories of the stages of a cascade. None is the model for
      photographs that lies in the package, if there is one.
    config: path of the config of the cascade. A config is a program, which is
      run: give only files that you have read.
    at: the checkpoint: a step, or 'best'; None is the newest.
    ema: the average of the parameters, such as 'std=0.05'; None is the main.
    sampler: a sampler in the place of the config's, such as 'heun', or
      {stage: sampler} for a cascade.
    steps: the number of its steps, or {stage: steps}.
    guidance: the weight of guidance, where 0 is none, or {stage: weight}.
    overrides: {key: value} of the config, such as {'sampler.clip': 'none'} or
      {'stages.sr.level': 0.2}. For a single super-resolution stage, the keys
      'level' and 'start_level' are the flags of these names.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: an argument is wrong, or the work directory holds something
      else.
  """
  given = loaded_model.Choice(at, ema, sampler, steps, guidance, overrides)
  with _words_of_python():
    platforms.require()
    settings: Any = jax.config
    # Whoever keeps compiled programs elsewhere goes on doing so.
    if settings.jax_compilation_cache_dir is None:
      compilation_cache.enable_compilation_cache()
    if workdir is None:
      if config is not None:
        raise ValueError(
          f'config={os.fspath(config)!r} is of a cascade; give workdir=, the '
          'folder of the work directories of its stages.'
        )
      workdir = shipped_model.photo()
    return loaded_model.load(workdir, config, given)


@overload
def upscale(
  model: Model,
  images: Pictures,
  *,
  scale: float | Size | None = ...,
  seed: int = ...,
  number: Number | Sequence[Number] | None = ...,
  label: int | str | None = ...,
  correction: Correction = ...,
  num_samples: None = ...,
) -> Pictures: ...
@overload
def upscale(
  model: Model,
  images: Pictures,
  *,
  scale: float | Size | None = ...,
  seed: int = ...,
  number: Number | Sequence[Number] | None = ...,
  label: int | str | None = ...,
  correction: Correction = ...,
  num_samples: int,
) -> list[Pictures]: ...
def upscale(
  model: Model,
  images: Pictures,
  *,
  scale: float | Size | None = None,
  seed: int = 0,
  number: Number | Sequence[Number] | None = None,
  label: int | str | None = None,
  correction: Correction = AS_SEEN,
  num_samples: int | None = None,
) -> Pictures | list[Pictures]:
  """Enlarges pictures of any size to any size, as `cdm upscale` does.

  The noise of a picture depends on the seed and its number alone, whatever is
  drawn beside it. The command takes the number from the bytes of the file:
  `number='photo.png'` does so too, and the result is that of the command.

  Args:
    model: a super-resolution stage: a diffusion model or a regression.
    images: the pictures, see above. Turn a photograph upright first:
      `ImageOps.exif_transpose(image, in_place=True)`.
    scale: times as long each side becomes, 1 to 16, or a `Size`: one of width,
      height, long_edge (pixels) and megapixels; None is the stage's factor.
    seed: seed of the noise, 0 to 2^32 - 1.
    number: what the noise depends on beside the seed: 0 to 2^32 - 1, or the
      path of a file; of several pictures a list. None takes it from the pixels.
    label: class of all pictures, by index or name; None is unknown.
    correction: how close results keep to the pictures, see `Correction`.
    num_samples: None for one result; or k for a list of k, whose seeds are
      seed, seed + 1, ..., seed + k - 1.

  Returns:
    What was given, larger; or a list of as many of them as num_samples says.

  Raises:
    TypeError: images are no pictures.
    ValueError: an argument is wrong; the message says which.
  """
  with _words_of_python():
    given = array_pictures.taken(images)
    numbers = _numbers(number, given.photographs)
    many = 1 if num_samples is None else num_samples
    if many < 1:
      raise ValueError(f'num_samples={many}: it must be at least 1.')
    _check_seed(seed, many)
    settings = enlarged_jobs.Settings(
      asked=scale if isinstance(scale, Size) else Size(scale=scale),
      label=model.label(label),
    )
    canvas = _canvas(model)
    settings = _corrected(settings, canvas, correction)
    results = [
      given.back(
        enlarged_pictures.enlarge(
          canvas,
          given.photographs,
          numbers,
          settings._replace(seed=seed + i),
        )
      )
      for i in range(many)
    ]
  return cast(Any, results[0] if num_samples is None else results)


def restore(
  model: Model,
  images: Pictures,
  *,
  seed: int = 0,
  number: Number | Sequence[Number] | None = None,
  label: int | str | None = None,
  correction: Correction = AS_SEEN,
) -> Pictures:
  """Redraws pictures in their own size, as `cdm upscale --scale=1` does.

  A stage that enlarges by any factor restores them at their size. One with a
  factor of its own enlarges them, and the result is shrunk back.

  Args:
    model, images, seed, number, label, correction: see `upscale`.

  Returns, raises: see `upscale`.
  """
  return upscale(
    model,
    images,
    scale=1.0,
    seed=seed,
    number=number,
    label=label,
    correction=correction,
  )


def sample(
  model: Model,
  num: int,
  *,
  labels: Sequence[int | str] | None = None,
  seed: int = 0,
) -> np.ndarray:
  """Draws images from nothing, as `cdm sample` does.

  Args:
    model: a base model or a cascade.
    num: number of images.
    labels: classes to draw in rotation, by index or name; None is all of them.
    seed: seed of all images; image n depends on it, n and its class alone.

  Returns:
    uint8 [num, H, W, 3], the images of the last stage.

  Raises:
    ValueError: an argument is wrong; the message says which.
  """
  with _words_of_python():
    if num < 1:
      raise ValueError(f'num={num}: it must be at least 1.')
    _check_seed(seed, 1)
    return model.draw(num, labels=model.labels(labels), seed=seed)


def evaluate(
  samples: Any,
  references: Any = None,
  *,
  metrics: str | Sequence[str] | None = None,
  lowres: Any = None,
  downsample: str = 'bicubic',
  few: bool = False,
  kid_size: int | None = None,
  weights: Mapping[str, Any] | None = None,
) -> dict[str, float]:
  """Computes metrics of images, as `cdm evaluate` does, in 8 bits.

  Args:
    samples: the pictures to judge, all of one size.
    references: what they are compared with: for metrics of pairs, the original
      of each; for metrics of sets, any number of images. 'is' needs none.
    metrics: names, such as 'psnr' or ['fid', 'kid']: of pairs psnr, psnr_y,
      ssim, ssim_gaussian, ms_ssim, consistency and lpips; of sets fid, fd,
      sfid, is, kid and pr. None is all of pairs but lpips, as far as the images
      are large enough and lowres is given.
    lowres: the low-res inputs of the samples; adds consistency, and scores of
      bicubic enlargement under names such as 'bicubic_psnr'.
    downsample: filter that made the low-res inputs.
    few: whether to compute FID of too few images all the same.
    kid_size: images per subset of KID; None is 1000.
    weights: {'features': path, 'lpips': (path, path)}, files of weights;
      without them those of Inception-v3 and LPIPS are downloaded once.

  Returns:
    {name: value}, the means over the images for metrics of pairs. Equal images,
    whose PSNR is infinite, are left out of the mean PSNR; if all are, it is
    infinite. `kid` and `is` come with `kid_std` and `is_std`, `pr` is
    'precision' and 'recall'.

  Raises:
    TypeError: something is no pictures.
    ValueError: an argument is wrong; the message says which.
    OSError: weights cannot be downloaded.
  """
  sets = {'samples': samples, 'references': references, 'lowres': lowres}
  options = array_sets.Options(downsample, few, kid_size, weights)
  with _words_of_python():
    return array_sets.scores(sets, metrics, options)


def _corrected(settings, canvas, correction):
  """Returns settings with what a `Correction` asks for."""
  rounds, damage, detail = correction
  if rounds is not None:
    if not 0 <= rounds <= 10:
      raise ValueError(f'back_projection={rounds}: give 0 to 10 rounds.')
    settings = settings._replace(back_projections=rounds)
  if damage is not None:
    if not canvas.takes_any_factor:
      raise ValueError(
        f'damage={damage!r}: this stage is not told what degraded a picture; '
        'leave it out.'
      )
    settings = settings._replace(damage=low_res_inputs.parse(damage))
  if detail is not None:
    if not canvas.stage.canvas.draws_mean:
      raise ValueError(
        f'detail={detail:g}: this stage draws no details over a mean; leave it '
        'out.'
      )
    if not 0.0 <= detail <= 1.0:
      raise ValueError(f'detail={detail:g}: give a number from 0 to 1.')
    settings = settings._replace(detail=detail)
  return settings


def _canvas(model):
  """Returns what enlarges pictures."""
  if model.upscaler is None:
    raise ValueError(
      f'{model.name!r} draws from nothing; to enlarge pictures, load a '
      'super-resolution stage.'
    )
  if model.upscaler.canvas is None:
    raise ValueError(
      f'The method of {model.name!r} super-resolves tiles of one size; use '
      'a diffusion model or a regression, or the command `cdm upscale`.'
    )
  return model.upscaler.canvas


def _check_seed(seed, many):
  if not 0 <= seed <= 2**32 - many:
    last = f', and that of the last sample {seed + many - 1}' * (many > 1)
    raise ValueError(f'seed={seed}{last}: seeds are 0 to 2^32 - 1.')


def _numbers(number, pictures) -> list[int]:
  """Returns the number of each picture."""
  if number is None:
    return [enlarged_pictures.number_of_pixels(one) for one in pictures]
  several = isinstance(number, Sequence) and not isinstance(number, str)
  numbers = list(number) if several else [number]
  if len(numbers) != len(pictures):
    raise ValueError(
      f'number has {len(numbers)} values for {len(pictures)} pictures; give '
      'each its own.'
    )
  return [_number(one) for one in numbers]


def _number(value):
  if isinstance(value, str | os.PathLike):
    data = pathlib.Path(value).expanduser().read_bytes()
    return enlarged_jobs.number_of(hashlib.sha256(data).hexdigest())
  if not 0 <= value < 2**32:
    raise ValueError(
      f'number={value}: give 0 to 2^32 - 1, or the path of a file.'
    )
  return int(value)


@contextlib.contextmanager
def _words_of_python() -> Generator[None]:
  """Names the arguments of functions where messages name flags of commands."""
  try:
    yield
  except (ValueError, FileNotFoundError) as error:
    # What stands in backticks is a command.
    parts = str(error).split('`')
    parts[::2] = [re.sub(r'(?<!\S)--(?=[a-z])', '', p) for p in parts[::2]]
    text = '`'.join(parts)
    if text == str(error):
      raise
    if isinstance(error, FileNotFoundError):
      raise FileNotFoundError(text) from error
    raise damaged_file.reworded(error, text) from error
