"""States which images of a set an evaluation reads, or how it samples them.

The classes are read-only values without behaviour, so that a command can make
them from its flags before anything heavy is imported.
"""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Selection:
  """Which images of a named set are read or sampled.

  Attributes:
    num: number of images to sample from a cascade, or to take from an existing
      set, spread evenly over it; None takes all images of an existing set.
    seed: seed of sampled images; None is the seed of the config.
    overrides: ((dotted key, text), ...), changes to the config of a cascade or
      of data that is read, or to the saved config of a stage whose images are
      sampled. For a stage, the
      key `level` sets its augmentation level.
    max_value: the value of white in image files of 16 or more bits that do not
      state it; None takes 65535.
    at: the checkpoints that images are sampled with, see
      `checkpointing.reader.resolve`; None takes the newest.
    batch_per_device: images that are sampled at once on each device; None
      chooses, see `sampling.drawing_batch`.
    redraws: other samplers, or numbers of steps, than the configs of the stages
      say; see `config.redrawn_sampler.parse`.
  """

  num: int | None = None
  seed: int | None = None
  overrides: Sequence[tuple[str, str]] = ()
  max_value: float | None = None
  at: int | str | None = None
  batch_per_device: int | None = None
  redraws: Sequence[tuple[str, str]] = ()


ALL_IMAGES = Selection()


@dataclasses.dataclass(frozen=True)
class StageSampling:
  """How the images of a super-resolution stage are sampled for its evaluation.

  Attributes:
    num: number of images, spread over the data; what None means is stated by
      the evaluation.
    seed: seed of the samples.
    level: augmentation level in [0, 1] of the low-res input.
    batch_size: images that are sampled at once, over all devices; None takes
      `batch_per_device`.
    overrides: ((dotted key, text), ...), changes to the stage's saved config.
    at, batch_per_device, redraws: see `Selection`.
  """

  num: int | None = None
  seed: int = 0
  level: float = 0.0
  batch_size: int | None = None
  overrides: Sequence[tuple[str, str]] = ()
  at: int | str | None = None
  batch_per_device: int | None = None
  redraws: Sequence[tuple[str, str]] = ()
