"""Runs a whole robustness study of one stage and writes its report.

The order: open the stage and its images, draw and score samples of clean and
degraded inputs, aggregate the scores, write report.html and report.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from cdm.data.files import atomic_files
from cdm.distributed import collectives
from cdm.evaluation import compare_sets, groups, metrics_table, result_line
from cdm.evaluation.extract_features import GathererOptions
from cdm.evaluation.image_selection import StageSampling
from cdm.evaluation.robustness import (
  aggregate,
  page,
  scoring,
  set_scores,
  stage_images,
  wording,
)
from cdm.evaluation.robustness.conditions import CLEAN, list_conditions
from cdm.evaluation.robustness.report_types import Report, StudySettings
from cdm.ops import degradations

if TYPE_CHECKING:
  from cdm.evaluation.lpips_scorer import LpipsScorer

SHOWN = 2  # the page shows the results of this many images


@dataclasses.dataclass(frozen=True)
class StudyPlan:
  """What a study measures.

  Attributes:
    degrade: the degradations, as words that `degradations.parse` reads.
    label_file: label file that `groups.read` reads; None groups the images by
      the classes of the data.
    draws: number k of samples of each clean input, 0 or at least 2.
    metrics: names of metrics of pairs and of sets. The first one decides which
      group is the worst, so it must be a metric of pairs.
    allow_few_images: allow FID of too few images, see `set_scores.check`.
  """

  degrade: Sequence[str] = ()
  label_file: str | os.PathLike | None = None
  draws: int = 8
  metrics: Sequence[str] = ('psnr', 'ssim', 'consistency')
  allow_few_images: bool = False


def examine(
  samples: str,
  out: str | os.PathLike,
  plan: StudyPlan,
  sampling: StageSampling,
  *,
  perceptual: LpipsScorer | None = None,
  network: GathererOptions | None = None,
  title: str | None = None,
  command: str = '',
) -> Report:
  """Examines a super-resolution stage and writes report.html and report.json.

  Args:
    samples: 'WORKDIR@eval' or 'WORKDIR@train'.
    out: output folder. If it holds an unfinished study of the same settings,
      that study is continued.
    plan: what is measured.
    sampling: how the images are sampled, see `stage_images.open_samples`.
    perceptual: computes LPIPS; None if it is not among the metrics.
    network: keyword arguments of the feature network, see `set_scores.score`.
    title: title of the page.
    command: the command line that was typed; the page quotes it.

  Returns:
    the content of report.json.

  Raises:
    ValueError: the arguments contradict each other, or do not suit the stage or
      the data. An error before the first sample leaves nothing written.
  """
  metrics, label_file = plan.metrics, plan.label_file
  if plan.draws < 0 or plan.draws == 1:
    raise ValueError(
      f'--draws={plan.draws}: a spread needs 2 samples or more of one input; 0 '
      'leaves uncertainty out.'
    )
  opened = stage_images.open_samples(samples, sampling)
  check_size(opened.upscale.image_size, metrics)
  chosen = degradations.parse(
    plan.degrade, own=opened.upscale.lowres.downsample
  )
  records = opened.held_out.records
  divisions = divide(opened, label_file)
  of_sets = [m for m in metrics if m in metrics_table.SETS]
  if of_sets:
    set_scores.check(of_sets, len(records), plan.allow_few_images)
  work = scoring.Examination(
    out,
    opened,
    chosen=chosen,
    metrics=[m for m in metrics if m in metrics_table.PAIRS],
    seed=sampling.seed,
    perceptual=perceptual,
    shown=SHOWN,
    keep=bool(of_sets),
  )
  conditions = list_conditions(chosen)
  rows, spreads = work.run(conditions, plan.draws)
  scores = {}
  if of_sets:
    scores = set_scores.score(
      work, conditions, metrics=of_sets, network=network or {}
    )
  divisions = divisions or divide_by_class(opened, rows)
  results = aggregate.collect(
    rows,
    spreads,
    records=records,
    chosen=chosen,
    metrics=metrics,
    divisions=divisions,
    draws=plan.draws,
    sets=scores,
  )
  settings = describe(opened, metrics, perceptual, label_file, command)
  report: Report = {**results, **settings}
  if collectives.is_first():
    write(report, work, title or f'Robustness of {opened.recipe["experiment"]}')
  collectives.barrier('the page')
  return report


def check_size(side: int, metrics: Sequence[str]) -> None:
  """Raises ValueError if the images are too small for one of the metrics.

  Args:
    side: height and width of the stage's images in pixels.
    metrics: names.
  """
  for metric in metrics:
    if metric not in metrics_table.PAIRS:
      continue
    least = metrics_table.PAIRS[metric].measure.least_side
    if side < least:
      raise ValueError(
        f'{metric} needs images of {least} pixels, and this stage makes '
        f'{side}; leave it out of --metrics.'
      )


def divide(
  opened: stage_images.StageImages, label_file: str | os.PathLike | None
) -> dict[str, dict[str, list[int]]]:
  """Divides the examined images into groups by the columns of a label file.

  Args:
    opened: the images.
    label_file: file that `groups.read` reads, or None.

  Returns:
    {column: {group: [index, ...]}}, see `groups.divisions`; {} without a file.

  Raises:
    ValueError: the file cannot be read, or does not fit the images.
  """
  if label_file is None:
    return {}
  labels, columns = groups.read(label_file)
  assigned = groups.assign(
    labels,
    opened.held_out.records,
    opened.files,
    count=len(opened.held_out.source),
    path=label_file,
  )
  return groups.divisions(columns, assigned)


def divide_by_class(
  opened: stage_images.StageImages, rows: aggregate.ScoreRows
) -> dict[str, dict[str, list[int]]]:
  """Divides the examined images into groups by the classes of the data.

  Args:
    opened: the images.
    rows: the scores of the images, from `scoring.Examination.run`.

  Returns:
    {'class': {class name: [index, ...]}}; {} if all images are of one class.
  """
  if not opened.class_names:
    return {}
  division = {}
  for n in opened.held_out.records:
    label = rows[n, CLEAN]['label']
    division.setdefault(opened.class_names[label], []).append(n)
  return {'class': dict(sorted(division.items()))} if len(division) > 1 else {}


def describe(
  opened: stage_images.StageImages,
  metrics: Sequence[str],
  perceptual: LpipsScorer | None,
  label_file: str | os.PathLike | None,
  command: str,
) -> StudySettings:
  """Describes everything that the numbers of the report depend on.

  Args:
    opened: the stage and its images.
    metrics, perceptual, label_file, command: see `examine`.
  """
  recipe, upscale = opened.recipe, opened.upscale
  made = result_line.describe_sampling(
    {'stages': [{'name': recipe['experiment'], **recipe}]}
  )
  data = recipe['data']
  device = jax.devices()[0]
  mesh = 1 if upscale.mesh is None else upscale.mesh.size
  return {
    'subject': f'{upscale.lowres_size} to {upscale.image_size} pixels, '
    f'{made[0]}',
    'command': command,
    'recipe': recipe,
    'records': opened.held_out.records,
    'conventions': {
      metric: convention(metric, opened, perceptual) for metric in metrics
    },
    'versions': compare_sets.versions(),
    'run': {
      'stage': recipe['samples'],
      'drawn': made[0],
      'sampler': section_text(recipe.get('sampler') or {}) or 'none',
      'input': f'shrunk by {upscale.lowres.downsample}, augmentation level '
      f'{recipe.get("level") or 0:g}',
      'seed': str(recipe['seed']),
      'images': f'{len(opened.held_out.records):,} of '
      f'{len(opened.held_out.source):,}, spread over {data["kind"]}'
      + (f' {data["path"]}' if data.get('path') else ''),
      'groups': str(label_file or 'classes of the data'),
      'devices': f'{mesh} {device.device_kind}',
      'versions': ', '.join(
        f'{k} {v}' for k, v in compare_sets.versions().items()
      ),
    },
  }


def convention(
  metric: str,
  opened: stage_images.StageImages,
  perceptual: LpipsScorer | None,
) -> str:
  """Returns the sentence that defines a metric in a study.

  Args:
    metric: its name.
    opened, perceptual: see `examine`.
  """
  if metric in metrics_table.SETS:
    size = set_scores.kid_size(len(opened.held_out.records))
    return metrics_table.SETS[metric].measure.convention.format(size=size)
  found = metrics_table.PAIRS[metric]
  text = found.measure.describe(opened.upscale.lowres.downsample, perceptual)
  if found.needs == 'lowres':
    text += '; against the degraded input that was given'
  return text


def section_text(section: Mapping[str, Any], prefix: str = '') -> str:
  """Returns a config section on one line: 'kind ddim, grid.spacing 4, ...'.

  Args:
    section: plain, possibly nested dict; values that are None are left out.
    prefix: dotted key of the section itself, with a dot at the end.
  """
  parts = []
  for key, value in section.items():
    if isinstance(value, dict):
      parts.append(section_text(value, f'{prefix}{key}.'))
    elif value is not None:
      parts.append(f'{prefix}{key} {value}')
  return ', '.join(parts)


def write(report: Report, work: scoring.Examination, title: str) -> None:
  """Writes report.json and report.html, each whole or not at all.

  Args:
    report: the content of report.json.
    work: the examination, whose images the page shows.
    title: title of the page.
  """
  out = pathlib.Path(work.out)
  text = json.dumps(report, indent=2, allow_nan=False) + '\n'
  content = {
    'report.json': text,
    'report.html': page.build(report, work, title=title),
  }
  for name, text in content.items():
    atomic_files.write_text_atomically(out / name, text)


def text(report: Report) -> str:
  """Returns the main results in a few lines for a terminal.

  Args:
    report: the content of report.json.
  """
  first = report['metrics'][0]
  clean = report['clean'][first]
  lines = [
    f'{wording.axis(first)}: ours '
    f'{wording.interval(clean["ours"], first)}, bicubic '
    f'{wording.interval(clean["bicubic"], first)}'
    f'{wording.counted(report, first)}'
  ]
  for kind in report['degradations']:
    ours, other = (kind['fall'][m] for m in scoring.METHODS)
    lines.append(
      f'{kind["title"]}, {kind["at"]}: ours loses '
      f'{wording.interval(ours, first)}, bicubic '
      f'{wording.interval(other, first)}'
    )
  for division in report['groups']:
    lines.append(wording.worst_group(division, first))
  if report['calibration']:
    lines.append(wording.calibration(report['calibration']))
  return '\n'.join(lines)
