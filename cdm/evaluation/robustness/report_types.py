"""Declares the JSON types of a robustness study's rows and report.

A method is 'ours', the stage, or 'bicubic'. A condition is one kind of input,
named 'clean' or by degradation and strength, such as 'noise-10'.
"""

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

from cdm.evaluation import groups

Method = Literal['ours', 'bicubic']
Scores = dict[str, float | None]  # {metric: value}, None if it is not finite


class ScoreRow(TypedDict):
  """The scores of one image under one condition, a line of rows.jsonl.

  Attributes:
    record: index of the image in the data.
    cell: name of the condition.
    degradation: 'clean' or a kind of degradation.
    value: strength of the degradation; None for 'clean'.
    label: class of the image.
    ours: the scores of the stage's image.
    bicubic: the scores of the bicubic image.
  """

  record: int
  cell: str
  degradation: str
  value: float | str | None
  label: int
  ours: Scores
  bicubic: Scores


class DrawsRow(TypedDict):
  """The calibration of the draws of one image, a line of draws.jsonl.

  Attributes:
    record: index of the image in the data.
    k: number of draws.
    psnr_of_one: PSNR of the first draw in dB; None if it is infinite.
    psnr_of_mean: PSNR of the mean of the draws in dB; None if it is infinite.
    tally: the fields of `calibration.Tally`, as lists.
  """

  record: int
  k: int
  psnr_of_one: float | None
  psnr_of_mean: float | None
  tally: list[Any]


class SetSettings(TypedDict):
  """What the scores of sets depend on besides the condition and the method.

  Attributes:
    metrics: names of the metrics, sorted.
    records: indices of the images.
  """

  metrics: list[str]
  records: list[int]


class SetScoresRow(TypedDict):
  """The scores of all images of a condition, a line of sets.jsonl.

  Attributes:
    cell: name of the condition.
    method: what made the images.
    scores: {metric: value}.
    what: the settings.
  """

  cell: str
  method: Method
  scores: dict[str, float]
  what: SetSettings


class StudyManifest(TypedDict):
  """Everything that the images of a study depend on.

  Attributes:
    samples: name of the set, WORKDIR@eval or WORKDIR@train.
    experiment: name of the stage's config.
    checkpoint: step of the checkpoint that its parameters come from.
    weights: which of the saved parameters the stage uses.
    seed: seed of the samples and of the degradations.
    level: augmentation level in [0, 1] of the low-res input.
    sampler: the `sampler` section that the stage draws with.
    low_res: the `lowres` section of its config.
    image_size: side in pixels of the stage's images.
    data: the config section of the data.
    fingerprint: identifies the files of the data.
    lpips: version and backbone of LPIPS, or None; in robustness.json alone.
    prepared: how the stage's training images were prepared, see
      `stage_record.Preparation`.
  """

  samples: str
  experiment: str
  checkpoint: int
  weights: str
  seed: int
  level: float
  sampler: dict[str, Any]
  low_res: dict[str, Any]
  image_size: int
  data: dict[str, Any]
  fingerprint: str
  lpips: NotRequired[str | None]
  prepared: NotRequired[dict[str, Any]]


class DegradationReport(TypedDict):
  """The scores under one kind of degradation.

  Attributes:
    name: the kind of degradation.
    title: its title.
    axis: label of the axis of its strengths.
    values: its strengths as text, rising; of 'kernel' the filters.
    cells: names of the conditions, the clean one first.
    photometric: whether it changes brightness or contrast, which is undone
      before the scores are computed.
    curves: {metric: {method: [mean under each condition]}}.
    at: phrase that names the strength of `fall`, the middle one.
    at_cell: name of the condition of `fall`.
    fall: {method: loss of the first metric against the clean input}.
  """

  name: str
  title: str
  axis: str
  values: list[str]
  cells: list[str]
  photometric: bool
  curves: dict[str, dict[Method, list[groups.Summary]]]
  at: str
  at_cell: str
  fall: dict[Method, groups.Summary]


class DivisionReport(groups.Comparison):
  """The groups of one division of the images, compared.

  Attributes:
    by: name of the division, such as a column of the label file.
    too_small: names of the groups that are too small to be compared.
  """

  by: str
  too_small: list[str]


class CalibrationReport(TypedDict):
  """The calibration of k draws of each image.

  Attributes:
    k: number of draws of each image.
    spread_skill: spread-skill ratio, 1 if calibrated; None without any error.
    interval: 95% interval of the ratio, or None.
    coverage_error: mean of |observed - nominal| coverage.
    coverage_bias: mean of observed minus nominal coverage.
    coverage: [(nominal, observed), ...] of the central intervals.
    ranks: share of the values with 0, 1, ..., k draws below the original.
    reliability: [(predicted error, actual error, share), ...] by bins.
    rms_spread: root mean square of the spread in grey levels.
    rmse_of_mean: error of the mean of the draws in grey levels.
    psnr_of_one: PSNR of one draw in dB.
    psnr_of_mean: PSNR of the mean of the draws in dB.
  """

  k: int
  spread_skill: float | None
  interval: list[float] | None
  coverage_error: float
  coverage_bias: float
  coverage: list[tuple[float, float]]
  ranks: list[float]
  reliability: list[tuple[float, float, float]]
  rms_spread: float
  rmse_of_mean: float
  psnr_of_one: groups.Summary
  psnr_of_mean: groups.Summary


class Results(TypedDict):
  """The numbers of a study.

  Attributes:
    n: number of images.
    metrics: names of the metrics; the first one decides which group and which
      filter is the worst.
    counts: {metric of pairs: number of images that all its means are over};
      the others are identical to their originals for a method.
    clean: {metric: {method: mean on clean inputs}}.
    degradations: the scores under each kind of degradation.
    groups: the groups of each division of the images.
    calibration: the calibration of the draws; None without draws.
  """

  n: int
  metrics: list[str]
  counts: dict[str, int]
  clean: dict[str, dict[Method, groups.Summary]]
  degradations: list[DegradationReport]
  groups: list[DivisionReport]
  calibration: CalibrationReport | None


class StudySettings(TypedDict):
  """Everything that the numbers of a study depend on.

  Attributes:
    subject: sizes and seed in a few words, for the head of the page.
    command: the command line that was typed.
    recipe: the manifest of the stage's images.
    records: indices of the images in the data.
    conventions: {metric: sentence that defines it}.
    versions: {package: version}.
    run: {text: text}, the table of settings on the page.
  """

  subject: str
  command: str
  recipe: StudyManifest
  records: Sequence[int]
  conventions: dict[str, str]
  versions: dict[str, str]
  run: dict[str, str]


class Report(Results, StudySettings):
  """The content of report.json."""
