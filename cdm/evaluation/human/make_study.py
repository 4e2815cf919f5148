"""Writes a study from folders of pictures: one per method, and the originals.

Every picture is decoded and written again, as PNG without any metadata, under a
name that does not tell who made it.
"""

import json
import math
import os
import pathlib
import random
import secrets
import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from cdm.data import image_decoder
from cdm.data.files import atomic_files
from cdm.evaluation.human import picture_sets
from cdm.evaluation.human.study_file import (
  BETTER,
  FILE,
  FORMAT,
  MEDIA,
  ORIGINAL,
  QUESTIONS,
  WORSE,
  Item,
  Study,
  Task,
)
from cdm.reporting import image_files, output_files

MOST_TRIALS = 50  # as in [SR3]'s study
PRACTICE = 4
CATCH_SHARE = 0.1  # of a person's trials, at least
# A control picture is shrunk by this factor and enlarged again, which anybody
# who looks can tell from the sharp one.
BLUR = 8


class Options(NamedTuple):
  """What the pictures do not say.

  Attributes:
    task: one of `study_file.TASKS`.
    trials: judged trials per person; None takes as many as there are scenes
      for, up to `MOST_TRIALS`.
    seconds: how long the pictures of a trial are shown.
    seed: seed of the order of scenes, the lists and the sides.
    title, question: texts of the page; None takes the task's question.
    information: paragraphs to read before agreeing.
  """

  task: Task
  trials: int | None = None
  seconds: float = 3.0
  seed: int = 0
  title: str = 'Which picture?'
  question: str | None = None
  information: Sequence[str] = ()


def make(
  folder: str | os.PathLike[str],
  sets: Mapping[str, str],
  lowres: str | None,
  options: Options,
) -> Study:
  """Writes a study into a new folder.

  Args:
    folder: path of a folder that is empty, or not there.
    sets: {method: folder of its pictures}; the photographs are called
      `study_file.ORIGINAL`.
    lowres: folder of the low-res pictures that are shown with the others, or
      None.
    options: see `Options`.

  Returns:
    The study that was written.

  Raises:
    ValueError: the folder is not empty, or the pictures do not make a study.
    BadImage, UnusableImage: a picture cannot be read.
  """
  folder = pathlib.Path(folder)
  if folder.is_dir() and any(folder.iterdir()):
    raise ValueError(f'{folder} is not empty; give the path of a new folder.')
  scenes = picture_sets.match(sets, lowres)
  scenes = _drawn(scenes, options.seed)
  trials, catch = share_out(len(scenes), options.trials)
  output_files.check_folder(folder / MEDIA, given=folder, flag='STUDY')
  try:
    controls = [_control(folder, s) for s in scenes[: PRACTICE + catch]]
    items = [_item(folder, scene) for scene in scenes[PRACTICE + catch :]]
  except BaseException:
    shutil.rmtree(folder / MEDIA, ignore_errors=True)
    raise
  task = options.task
  key = f'{task} with the low-res picture' if lowres else task
  study = Study(
    format=FORMAT,
    id=secrets.token_hex(8),
    task=task,
    title=options.title,
    question=options.question or QUESTIONS.get(key, QUESTIONS[task]),
    information=list(options.information),
    seconds=options.seconds,
    seed=options.seed,
    methods=[m for m in sets if m != ORIGINAL or task == 'rating'],
    trials=trials,
    items=items,
    practice=controls[:PRACTICE],
    catch=controls[PRACTICE:],
  )
  # Last, so that a folder with this file holds a whole study.
  atomic_files.write_text_atomically(
    folder / FILE, json.dumps(study, indent=1) + '\n'
  )
  return study


def share_out(scenes: int, trials: int | None) -> tuple[int, int]:
  """Returns (judged trials, catch trials) of a person, for so many scenes.

  Nobody sees a scene twice: practice and catch trials have scenes of their own.

  Raises:
    ValueError: there are too few scenes.
  """

  def catch(count: int) -> int:
    return math.ceil(count * CATCH_SHARE / (1 - CATCH_SHARE) - 1e-9)

  most = max(
    (t for t in range(1, scenes + 1) if t + catch(t) + PRACTICE <= scenes),
    default=0,
  )
  if most == 0 or (trials or 0) > most:
    wanted = trials or 1
    raise ValueError(
      f'There are {scenes} scenes, which is enough for {most} judged trials: '
      f'{wanted} need {wanted + catch(wanted) + PRACTICE}, because {PRACTICE} '
      f'practice trials and {catch(wanted)} trials with a known answer need '
      'scenes of their own. Give more pictures or fewer --trials.'
    )
  if trials is None:
    trials = min(most, MOST_TRIALS)
  return trials, catch(trials)


def _drawn(scenes, seed):
  draw = random.Random(f'scenes {seed}')
  return [scene for _, scene in sorted((draw.random(), s) for s in scenes)]


def _read_all(scene):
  """Returns {method: pixels}, all of one size."""
  images, size = {}, None
  for method, path in scene.files.items():
    pixels = image_decoder.read_file(path).pixels
    if size not in (None, pixels.shape):
      raise ValueError(
        f'{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, but the other '
        f'pictures of {scene.name} have {size[1]}x{size[0]}. All pictures of a '
        'scene but the low-res one must be of one size.'
      )
    images[method], size = pixels, pixels.shape
  return images


def _item(folder, scene) -> Item:
  images = _read_all(scene)
  pictures = {m: _write(folder, pixels) for m, pixels in images.items()}
  return _entry(folder, scene, pictures, next(iter(images.values())).shape)


def _control(folder, scene) -> Item:
  """Writes the best picture of a scene, and a blurred version of it."""
  images = _read_all(scene)
  pixels = images.get(ORIGINAL, next(iter(images.values())))
  pair = {BETTER: pixels, WORSE: blurred(pixels)}
  names = {kind: _write(folder, image) for kind, image in pair.items()}
  return _entry(folder, scene, names, pixels.shape)


def blurred(pixels: np.ndarray) -> np.ndarray:
  """Shrinks a picture by `BLUR` and enlarges it again, bicubically."""
  height, width = pixels.shape[:2]
  small = (max(1, width // BLUR), max(1, height // BLUR))
  image = Image.fromarray(pixels).resize(small, Image.Resampling.BICUBIC)
  return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _entry(folder, scene, pictures, size) -> Item:
  lowres = None
  if scene.lowres is not None:
    lowres = _write(folder, image_decoder.read_file(scene.lowres).pixels)
  return Item(
    name=scene.name,
    width=size[1],
    height=size[0],
    pictures=pictures,
    lowres=lowres,
  )


def _write(folder, pixels) -> str:
  name = f'{secrets.token_hex(16)}.png'
  image_files.write_png(folder / MEDIA / name, pixels)
  return name
