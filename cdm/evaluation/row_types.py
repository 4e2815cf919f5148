"""Declares the types of the rows and manifests that evaluations write.

A row is the result of one evaluation. It states its numbers, their conventions
and, as manifests, everything that the numbers depend on.
"""

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict


class StageEntry(TypedDict):
  """A sampled stage in the manifest of a set of images.

  Attributes:
    name: name of the stage in its cascade, or of its config.
    checkpoint: step of the checkpoint that its parameters come from.
    ema: name of the average that they are; absent for the main one.
    sampler: the `sampler` section that it draws with.
    start_level: the level at which drawing begins, at a noised image.
    level: augmentation level in [0, 1] of its low-res input.
    truncated: True if the previous stage stops at `level`.
    folder: folder of a cascade's stage, relative to its work directory.
    experiment: name of the config of a cascade's stage.
    lowres_size: side in pixels of the low-res input of a single stage.
    downsample: filter that shrank the images to the input of a single stage.
    prepared: how its training images were cropped, resized and chosen, see
      `stage_record.Preparation`.
    data_sets: the data sets of its config, see `stage_record.StageRecord`.
  """

  name: str
  checkpoint: int
  ema: NotRequired[str]
  sampler: dict[str, Any]
  start_level: NotRequired[float]
  level: NotRequired[float]
  truncated: NotRequired[bool]
  folder: NotRequired[str]
  experiment: NotRequired[str]
  lowres_size: NotRequired[int]
  downsample: NotRequired[str]
  prepared: NotRequired[dict[str, Any]]
  data_sets: NotRequired[dict[str, Any]]


class NetworkManifest(TypedDict):
  """Everything that features depend on apart from the images.

  Attributes:
    network: name of the network.
    resize_to_network: how images are resized to the input of the network.
    weights_sha256: checksum of the file of the weights.
  """

  network: str
  resize_to_network: str
  weights_sha256: str


class ImageManifest(TypedDict, total=False):
  """Everything that a set of images and the features of a network depend on.

  Which entries are present depends on where the images come from.

  Attributes:
    data: path of the files, or the config section of the data.
    source: name of the public data set, see `data_origin.Origin`.
    split: its split.
    origin: fingerprint of the original data; for shards, of what they were
      prepared from.
    count: number of images, including those that are skipped.
    available: number of images that the data has.
    order: which of them were taken, and in which order.
    image_size: [height, width] in pixels.
    suffixes: the suffixes of the files, in lower case.
    sampling: the manifest that `cdm sample` or `cdm upscale --held_out` left
      beside the images.
    crop: how the pipeline crops the images of a config.
    filter: how the pipeline resizes the images of a config.
    min_side: least side of an image that the pipeline takes, or None.
    drawn: name of the config whose images are sampled.
    low_res: 'true' if the low-res inputs of a stage are real images, shrunk.
    seed: seed of the sampled images.
    labels: which labels are sampled, or None without labels.
    stages: the stages that sample the images.
    weights: which of the saved parameters the stages use.
    rounding: how sampled images become uint8.
    records: indices of the images of a robustness study.
    max_value: the value of white that the user stated for deep images.
    fingerprint: identifies the files of the data.
    network: name of the network.
    resize_to_network: how images are resized to the input of the network.
    weights_sha256: checksum of the file of the weights of the features.
    classifier_weights_sha256: checksum of the file of a classifier's weights.
    preset: how images are resized and cropped for the classifier.
    sizes: side in pixels of the image after each resizing, of a stage that a
      classifier evaluates.
    resize: how these resizings are computed.
  """

  data: str | dict[str, Any]
  source: str
  split: str
  origin: str
  count: int
  available: int
  order: str
  image_size: list[int]
  suffixes: list[str]
  sampling: dict[str, Any]
  crop: str
  filter: str
  min_side: int | None
  drawn: str
  low_res: str
  seed: int
  labels: str | None
  stages: Sequence[StageEntry]
  weights: str
  rounding: str
  records: Sequence[int]
  max_value: float
  fingerprint: str
  network: str
  resize_to_network: str
  weights_sha256: str
  classifier_weights_sha256: str
  preset: str
  sizes: list[int]
  resize: str


# `is` is a word of Python, so a class cannot name the entry.
_InceptionScore = TypedDict(
  '_InceptionScore', {'is': NotRequired[float], 'is_std': NotRequired[float]}
)


class SetRow(_InceptionScore):
  """The result of the comparison of two sets of images.

  The entries `is` and `is_std` are the mean of the Inception Score over its
  splits and the standard deviation.

  Attributes:
    samples: name of the set that was evaluated.
    reference: name of the reference set, or None.
    n: number of samples.
    n_reference: number of images of the reference; None if it is not known.
    conventions: {metric: sentence that defines it}.
    fid: Fréchet distance of the pooled features.
    sfid: Fréchet distance of the spatial features.
    kid: mean of the squared MMD over subsets.
    kid_std: standard deviation of the squared MMD over subsets.
    precision: share of the samples inside the manifold of the reference.
    recall: share of the reference inside the manifold of the samples.
    warnings: reasons why the two sets cannot be compared fairly.
    compared: what was compared, see `reference_statistics.comparison`; absent
      without a reference.
    samples_recipe: manifest of the samples.
    reference_recipe: manifest of the reference; {} if it is not known, None
      without a reference.
    paper: {name: number} that the config quotes from its paper.
    versions: {package: version}.
  """

  samples: str
  reference: str | None
  n: int
  n_reference: int | None
  conventions: dict[str, str]
  fid: NotRequired[float]
  sfid: NotRequired[float]
  kid: NotRequired[float]
  kid_std: NotRequired[float]
  precision: NotRequired[float]
  recall: NotRequired[float]
  warnings: list[str]
  compared: NotRequired[dict[str, dict[str, Any]]]
  samples_recipe: ImageManifest
  reference_recipe: ImageManifest | None
  paper: dict[str, float]
  versions: dict[str, str]


class SweepDescription(TypedDict):
  """What a sweep evaluates; every row of the sweep repeats it.

  Attributes:
    samples: name of the set that is sampled.
    reference: name of the reference set.
    metrics: names of the metrics.
    num: number of images, or None.
    seed: seed of the images, or None.
    overrides: [[dotted key, text], ...], config changes of all settings.
    kid_size: images per subset of KID; None if the user gave none.
  """

  samples: str
  reference: str
  metrics: list[str]
  num: int | None
  seed: int | None
  overrides: list[list[str]]
  kid_size: int | None


class SweepRow(SetRow):
  """The result of one setting of a sweep.

  Attributes:
    setting: [[dotted key, text], ...], the values that were tried.
    sweep: what the sweep evaluates.
    cost: what an image costs in each stage, see `sampling.drawing_cost`; absent
      in rows of earlier versions and without a network.
  """

  setting: Sequence[Sequence[str]]
  sweep: SweepDescription
  cost: NotRequired[list[dict[str, Any]]]


# A class cannot name the entry `consistency_1e-5` either.
_Consistency = TypedDict(
  '_Consistency',
  {
    'consistency': NotRequired[float | None],
    'consistency_1e-5': NotRequired[float | None],
  },
)


class PairMeans(_Consistency):
  """Means over pairs of an image and its original.

  The entry `consistency_1e-5` is the consistency in the units of [SR3] tab. 1;
  both consistencies are absent without low-res inputs.

  Attributes:
    psnr: PSNR in dB over the pairs of which it is finite; None if there are
      none. All methods of a comparison are averaged over the same pairs.
    psnr_y: PSNR of the luma in dB; None in the same case.
    ssim: structural similarity in uniform windows; None for small images.
    ssim_gaussian: structural similarity in Gaussian windows; None for small
      images.
    ms_ssim: multi-scale structural similarity; None for small images.
    lpips: perceptual distance; absent if it was not requested.
    identical_pairs: number of pairs whose images are equal, so that their PSNR
      is infinite.
  """

  psnr: float | None
  psnr_y: float | None
  ssim: float | None
  ssim_gaussian: float | None
  ms_ssim: float | None
  lpips: NotRequired[float | None]
  identical_pairs: int


class PairRow(PairMeans):
  """The result of scoring images against their originals.

  Attributes:
    samples: path of the images; absent if they were streamed.
    reference: path of the originals; absent if they were streamed.
    lowres: path of the low-res inputs; absent if they were streamed or not
      given.
    n: number of pairs.
    image_size: [height, width] in pixels.
    counts: {metric: number of pairs that its means are over}.
    left_out: {metric: why it has no value for images of this size}.
    intervals: {metric: [low, high]}, 95% intervals of the means.
    conventions: {metric: sentence that defines it}.
    lowres_size: [height, width] of the low-res inputs; absent without them.
    bicubic: the means of bicubic upsampling; absent without low-res inputs.
  """

  samples: NotRequired[str]
  reference: NotRequired[str]
  lowres: NotRequired[str]
  n: int
  image_size: list[int]
  counts: dict[str, int]
  left_out: dict[str, str]
  intervals: dict[str, list[float]]
  conventions: dict[str, str]
  lowres_size: NotRequired[list[int]]
  bicubic: NotRequired[PairMeans]


class Accuracy(TypedDict):
  """The accuracy of a classifier.

  Attributes:
    top1: share in [0, 1] of images whose class has the highest logit.
    top5: share in [0, 1] of images whose class is among the 5 highest.
    intervals: {'top1', 'top5': [low, high]}, 95% intervals; {} for fewer than
      2 images and for many.
  """

  top1: float
  top5: float
  intervals: dict[str, list[float]]


class ErrorRates(Accuracy):
  """The accuracy and the error of a classifier; `intervals` are of the error.

  Attributes:
    top1_error: 1 less top1.
    top5_error: 1 less top5.
  """

  top1_error: float
  top5_error: float


class ErrorRow(ErrorRates):
  """The result of a published classifier on a set or on a stage's images.

  Attributes:
    samples: name of the set, or work directory of the stage.
    reference: name of the original images of a stage.
    n: number of images.
    which: how the images were chosen from the set.
    conventions: {name: sentence that defines the numbers}.
    warnings: reasons why the numbers cannot be compared with published ones.
    samples_recipe: manifest of the images and of the classifier.
    versions: {package: version}.
    baseline: errors on the original images of a stage.
    bicubic: errors on the images that were shrunk and enlarged by bicubic.
    paper: {name: number} that the config of a stage quotes from its paper.
  """

  samples: str
  reference: NotRequired[str]
  n: int
  which: str
  conventions: dict[str, str]
  warnings: list[str]
  samples_recipe: ImageManifest
  versions: dict[str, str]
  baseline: NotRequired[ErrorRates]
  bicubic: NotRequired[ErrorRates]
  paper: NotRequired[dict[str, float]]


class ClassifierManifest(TypedDict):
  """The classifier of a classification accuracy score, and its training.

  Attributes:
    config: name of its config.
    checkpoint: step of the checkpoint that was tested.
    model: section of the config.
    method: section of the config.
    pipeline: section of the config.
    optimizer: section of the config.
    ema: section of the config.
    seed: seed of the training.
    batch_size: images per training step.
    num_steps: number of training steps.
  """

  config: str
  checkpoint: int
  model: dict[str, Any]
  method: dict[str, Any]
  pipeline: dict[str, Any]
  optimizer: dict[str, Any]
  ema: Any
  seed: int
  batch_size: int
  num_steps: int


class CasRow(TypedDict):
  """A classification accuracy score (CAS).

  Attributes:
    samples: name of the set that the classifier was trained on.
    reference: name of the set that it was tested on.
    trained_on: number of samples.
    n: number of test images.
    cas_top1: top-1 accuracy in percent.
    cas_top5: top-5 accuracy in percent.
    intervals: {'cas_top1', 'cas_top5': [low, high]}, 95% intervals.
    classes: number of classes.
    conventions: {name: sentence that defines the numbers}.
    warnings: reasons why the score cannot be compared with the paper's.
    samples_recipe: manifest of the samples.
    reference_recipe: manifest of the test images.
    classifier: the classifier and its training.
    versions: {package: version}.
    paper: {name: number} that the config quotes from its paper.
  """

  samples: str
  reference: str
  trained_on: int
  n: int
  cas_top1: float
  cas_top5: float
  intervals: dict[str, list[float]]
  classes: int
  conventions: dict[str, str]
  warnings: list[str]
  samples_recipe: ImageManifest
  reference_recipe: ImageManifest
  classifier: ClassifierManifest
  versions: dict[str, str]
  paper: dict[str, float]
