"""Records what the images of a stage depend on, for manifests of folders.

Preparation    how a stage's training images were prepared
StageManifest  a stage, and CascadeEntry one of a cascade, as JSON has them
StageRecord    the settings, from which both are made
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NotRequired, TypedDict, cast

from cdm.checkpointing import average_names
from cdm.config import datasets, loader
from cdm.data import data_origin, transforms


class Preparation(TypedDict):
  """How the images that a stage was trained on were prepared.

  Attributes:
    crop: how they were cropped to a square.
    filter: how they were resized.
    min_side: least side in pixels of an image that was taken; 0 takes all.
  """

  crop: str
  filter: str
  min_side: int


class StageManifest(TypedDict):
  """A restored stage in the manifest of an output folder.

  Callers may add entries of their own, such as the seed.

  Attributes:
    experiment: name of the stage's config; absent in a list of stages.
    name: name of the stage's config in a list of stages; absent elsewhere.
    checkpoint: step of the checkpoint that its parameters come from.
    ema: name of the average that they are; absent for the main one.
    sha256: their hash, if they come from a packed stage.
    level: augmentation level in [0, 1] of its low-res input.
    sampler: the `sampler` section that it draws with.
    start_level: the level at which drawing begins, at a noised image; absent if
      it begins at noise.
    prepared: how its training images were prepared; absent in the manifests of
      earlier versions.
    data_sets: see `StageRecord`; absent if it names none.
  """

  experiment: NotRequired[str]
  name: NotRequired[str]
  checkpoint: int
  ema: NotRequired[str]
  sha256: NotRequired[str]
  level: float
  sampler: dict[str, Any]
  start_level: NotRequired[float]
  prepared: NotRequired[Preparation]
  data_sets: NotRequired[dict[str, data_origin.Origin]]


class CascadeEntry(TypedDict):
  """A stage in the manifest of a cascade.

  Attributes:
    name: name of the stage in the cascade.
    level: augmentation level in [0, 1] of its low-res input; absent if the
      config of the cascade sets none.
    truncated: True if the previous stage stops at `level`; absent if the config
      of the cascade does not say.
    folder: the stage's folder, relative to the cascade's work directory.
    experiment: name of the stage's config.
    checkpoint: step of the checkpoint that its parameters come from.
    ema: name of the average that they are; absent for the main one.
    sampler: the `sampler` section that it draws with.
    start_level: see `StageManifest`.
    prepared: how its training images were prepared; absent in the manifests of
      earlier versions.
    data_sets: see `StageRecord`; absent if it names none.
  """

  name: str
  level: NotRequired[float]
  truncated: NotRequired[bool]
  folder: str
  experiment: str
  checkpoint: int
  ema: NotRequired[str]
  sampler: dict[str, Any]
  start_level: NotRequired[float]
  prepared: NotRequired[Preparation]
  data_sets: NotRequired[dict[str, data_origin.Origin]]


@dataclasses.dataclass(frozen=True)
class StageRecord:
  """The settings that the images of a restored stage depend on.

  Manifests of output folders contain them.

  Attributes:
    experiment: name of the stage's config.
    checkpoint: step of the checkpoint that its parameters come from.
    level: augmentation level in [0, 1] of its low-res input.
    sampler: the `sampler` section that it draws with, as a plain dict.
    prepared: how its training images were prepared; None if it is not known.
    data_sets: {'train': origin, 'eval': origin}, the public data sets that its
      config names; None if it names none.
    average: name of the average that its parameters are.
    start_level: see `StageManifest`; None begins at noise.
    sha256: hash of the parameters, if they come from a packed stage.
  """

  experiment: str
  checkpoint: int
  level: float
  sampler: dict[str, Any]
  prepared: Preparation | None = None
  data_sets: dict[str, data_origin.Origin] | None = None
  average: str = average_names.MAIN
  start_level: float | None = None
  sha256: str | None = None
  weights: ClassVar[str] = 'EMA'

  def manifest(
    self,
    title: str = 'experiment',
    *,
    after_checkpoint: Mapping[str, object] | None = None,
    after_level: Mapping[str, object] | None = None,
  ) -> StageManifest:
    """Returns the settings as a dict of JSON values for a manifest.

    The keys have the order of earlier manifests on disk.

    Args:
      title: key of the experiment's name; 'name' in a list of stages.
      after_checkpoint: further entries, placed after 'checkpoint'.
      after_level: further entries, placed after 'level'.
    """
    settings = {
      title: self.experiment,
      'checkpoint': self.checkpoint,
      **self._ema(),
      **(after_checkpoint or {}),
      'level': self.level,
      **(after_level or {}),
      'sampler': self.sampler,
    }
    if self.start_level is not None:
      settings['start_level'] = self.start_level
    if self.prepared is not None:
      settings['prepared'] = self.prepared
    if self.data_sets is not None:
      settings['data_sets'] = self.data_sets
    return cast(StageManifest, settings)

  def _ema(self):
    found = {}
    if self.average != average_names.MAIN:
      found['ema'] = self.average
    if self.sha256 is not None:
      found['sha256'] = self.sha256
    return found

  def cascade_entry(
    self, section: Mapping[str, object], folder: str
  ) -> CascadeEntry:
    """Returns the stage's entry in the manifest of a cascade.

    Args:
      section: the stage's section of the cascade config, without `config`. It
        contains the level if one is set.
      folder: the stage's folder, relative to the cascade's work directory.
    """
    settings = dict(self.manifest())
    del settings['level']
    entry = {**section, 'folder': folder, **settings}
    return cast(CascadeEntry, entry)


def of_stage(
  c: loader.ConfigDict,
  *,
  step: int,
  level: float,
  sampler: Mapping[str, Any] | loader.ConfigDict,
) -> StageRecord:
  """Returns the record of a stage.

  Args:
    c: its config.
    step: step of the checkpoint that its parameters come from.
    level: augmentation level of its low-res input.
    sampler: the `sampler` section that it draws with, or what is in its place;
      {} if there is none.
  """
  settings = loader.plain(dict(sampler))
  pipeline = datasets.pipeline_options(c)
  prepared: Preparation = {
    'crop': pipeline.crop,
    'filter': transforms.filter_name(pipeline.filter),
    'min_side': pipeline.least_side,
  }
  named = data_origin.of_sections(c)
  return StageRecord(c.name, step, level, settings, prepared, named)
