"""Decides what degraded a picture, and whether its result keeps to it."""

from cdm.data import low_res_inputs
from cdm.data.low_res_inputs import Degradation
from cdm.data.photographs import visible_damage
from cdm.data.photographs.photograph import Photograph
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_size import Size

# JPEG files below this quality show what compression has done; a picture that
# is made consistent with them shows it too.
CLEAN_QUALITY = 90
QUIET_NOISE = 1.0  # grey levels; below it, too
# Low-res pixels. A round loses 0.4 dB at 0.5 and 1.6 dB at 0.8, which it makes
# as blurred as the input again, and gains 0.2 at 0.3.
SHARP_BLUR = 0.4


def of_picture(
  one: Photograph, upscaler: CanvasUpscaler, asked: Degradation | None
) -> Degradation:
  """Returns what degraded a picture.

  Args:
    one: the picture.
    upscaler: the stage; if it is not told of damage, only the quality of a JPEG
      file counts.
    asked: what is said of it; None estimates it.
  """
  if asked is not None:
    return asked
  if not upscaler.takes_any_factor:
    return low_res_inputs.CLEAN._replace(quality=one.quality)
  return visible_damage.estimate(one.samples, one.quality)


def rounds_of(
  one: Photograph, size: Size, damage: Degradation, asked: int | None
) -> int:
  """Returns the rounds of back-projection of a picture.

  Args:
    one: the picture.
    size: what it becomes.
    damage: what degraded it.
    asked: what is asked for; None chooses.
  """
  if asked is not None:
    return asked
  # A picture of the same size would become itself again.
  is_larger = (size.height, size.width) != one.samples.shape[:2]
  return int(is_larger and is_clean(damage))


def is_clean(damage: Degradation) -> bool:
  """Returns whether a result should shrink to what was degraded so."""
  is_good = damage.quality is None or damage.quality >= CLEAN_QUALITY
  is_quiet, is_sharp = damage.noise < QUIET_NOISE, damage.blur < SHARP_BLUR
  return is_good and is_quiet and is_sharp
