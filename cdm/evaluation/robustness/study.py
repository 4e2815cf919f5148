"""From a trained stage to the page: opens, draws, scores, sums up, writes."""

import json
import pathlib

import jax

from cdm.distributed import collectives
from cdm.evaluation import compare_sets, groups, result_line
from cdm.evaluation.metrics import consistency, distortion, fid, kid
from cdm.evaluation.robustness import (
  aggregate,
  page,
  scoring,
  set_scores,
  stage_images,
  wording,
)
from cdm.ops import degradations
from cdm.reporting import atomic_files

SHOWN = 2  # images whose pictures are on the page


def examine(
  samples,
  out,
  *,
  degrade=(),
  label_file=None,
  draws=8,
  metrics=('psnr', 'ssim', 'consistency'),
  num=None,
  seed=0,
  level=0.0,
  batch_size=32,
  overrides=(),
  perceptual=None,
  few=False,
  network=None,
  title=None,
  command='',
):
  """Examines a super-resolution stage and writes report.html and report.json.

  Args:
    samples: 'WORKDIR@eval' or 'WORKDIR@train'.
    out: folder; continued if it holds this examination.
    degrade: words of `degradations.parse`.
    label_file: path of `groups.read`; the data's classes if None.
    draws: samples of each clean input, 0 or at least 2.
    metrics: names of `aggregate.METRICS` and `aggregate.OF_SETS`; the first one
      decides which group is the worst, so it is one of `aggregate.METRICS`.
    num, seed, level, batch_size, overrides: see `stage_images.open_samples`.
    perceptual: `lpips_scorer.LpipsScorer` for lpips, or None.
    few, network: see `set_scores`.
    title: of the page.
    command: what was typed, for the page.

  Returns:
    the facts that are on the page.

  Raises:
    ValueError: what was asked for cannot be done; nothing was written then.
  """
  if draws < 0 or draws == 1:
    raise ValueError(
      f'--draws={draws}: a spread needs 2 samples or more of one input; 0 '
      'leaves uncertainty out.'
    )
  found = stage_images.open_samples(
    samples,
    num=num,
    seed=seed,
    level=level,
    batch_size=batch_size,
    overrides=overrides,
  )
  check_size(found.upscale.image_size, metrics)
  chosen = degradations.parse(degrade, own=found.upscale.lowres.downsample)
  records = found.held_out.records
  divisions = divide(found, label_file)
  of_sets = [m for m in metrics if m in aggregate.OF_SETS]
  if of_sets:
    set_scores.check(of_sets, len(records), few)
  work = scoring.Examination(
    out,
    found,
    chosen=chosen,
    metrics=[m for m in metrics if m in aggregate.METRICS],
    seed=seed,
    perceptual=perceptual,
    shown=SHOWN,
    keep=bool(of_sets),
  )
  every = scoring.cells(chosen)
  rows, spreads = work.run(every, draws)
  scores = {}
  if of_sets:
    scores = set_scores.score(
      work, every, metrics=of_sets, network=network or {}
    )
  divisions = divisions or by_class(found, rows)
  result = aggregate.collect(
    rows,
    spreads,
    records=records,
    chosen=chosen,
    metrics=metrics,
    divisions=divisions,
    draws=draws,
    sets=scores,
  )
  result |= circumstances(found, metrics, perceptual, label_file, command)
  if collectives.is_first():
    write(result, work, title or f'Robustness of {found.recipe["experiment"]}')
  collectives.barrier('the page')
  return result


def check_size(side, metrics):
  """Raises ValueError for a metric whose windows are larger than images."""
  gaussian = distortion.WINDOWS['gaussian11'][1]
  least = {'ms_ssim': distortion.MS_SIDE, 'ssim_gaussian': gaussian}
  for metric in metrics:
    if side < least.get(metric, 0):
      raise ValueError(
        f'{metric} needs images of {least[metric]} pixels, and this stage '
        f'makes {side}; leave it out of --metrics.'
      )


def divide(found, label_file):
  """-> the ways to divide the images by a label file; {} without one."""
  if label_file is None:
    return {}
  held, columns = groups.read(label_file)
  given = groups.assign(
    held,
    found.held_out.records,
    found.files,
    count=len(found.held_out.source),
    path=label_file,
  )
  return groups.divisions(columns, given)


def by_class(found, rows):
  """-> {'class': {name: [record, ...]}}; {} if the images are of one class."""
  if not found.class_names:
    return {}
  division = {}
  for n in found.held_out.records:
    label = rows[n, scoring.CLEAN]['label']
    division.setdefault(found.class_names[label], []).append(n)
  return {'class': dict(sorted(division.items()))} if len(division) > 1 else {}


def circumstances(found, metrics, perceptual, label_file, command):
  """-> what was run, in words."""
  recipe, upscale = found.recipe, found.upscale
  made = result_line.made(
    {'stages': [{'name': recipe['experiment'], **recipe}]}
  )
  data = recipe['data']
  conventions = distortion.CONVENTIONS | {
    'consistency': consistency.convention(upscale.lowres.downsample)
    + '; against the degraded input that was given',
    'fid': fid.CONVENTION,
    'kid': kid.CONVENTION.format(
      subsets=100,
      size=min(set_scores.KID_SIZE, len(found.held_out.records)),
      seed=2020,
    ),
  }
  if perceptual:
    conventions['lpips'] = perceptual.convention
  device = jax.devices()[0]
  mesh = 1 if upscale.mesh is None else upscale.mesh.size
  return {
    'subject': f'{upscale.lowres_size} to {upscale.image_size} pixels, '
    f'{made[0]}',
    'command': command,
    'recipe': recipe,
    'records': found.held_out.records,
    'conventions': {m: conventions[m] for m in metrics},
    'versions': compare_sets.versions(),
    'run': {
      'stage': recipe['samples'],
      'drawn': made[0],
      'sampler': told(recipe['sampler']),
      'input': f'shrunk by {upscale.lowres.downsample}, augmentation level '
      f'{recipe["level"]:g}',
      'seed': str(recipe['seed']),
      'images': f'{len(found.held_out.records):,} of '
      f'{len(found.held_out.source):,}, spread over {data["kind"]}'
      + (f' {data["path"]}' if data.get('path') else ''),
      'groups': str(label_file or 'classes of the data'),
      'devices': f'{mesh} {device.device_kind}',
      'versions': ', '.join(
        f'{k} {v}' for k, v in compare_sets.versions().items()
      ),
    },
  }


def told(section, prefix=''):
  """-> 'kind ddim, eta 0.0, grid.kind respaced, ...' of a config's section."""
  parts = []
  for key, value in section.items():
    if isinstance(value, dict):
      parts.append(told(value, f'{prefix}{key}.'))
    elif value is not None:
      parts.append(f'{prefix}{key} {value}')
  return ', '.join(parts)


def write(result, work, title):
  """Writes report.json and report.html, each whole or not at all."""
  out = pathlib.Path(work.out)
  text = json.dumps(result, indent=2, allow_nan=False) + '\n'
  content = {
    'report.json': text,
    'report.html': page.build(result, work, title=title),
  }
  for name, text in content.items():
    atomic_files.write_text_atomically(out / name, text)


def text(result):
  """-> a few lines for a terminal."""
  first = result['metrics'][0]
  clean = result['clean'][first]
  unit = wording.unit(first)
  lines = [
    f'{wording.title(first)}{unit and f",{unit}"}: ours '
    f'{wording.interval(clean["ours"], first)}, bicubic '
    f'{wording.interval(clean["bicubic"], first)}'
  ]
  for kind in result['degradations']:
    ours, other = (kind['fall'][m] for m in scoring.METHODS)
    lines.append(
      f'{kind["title"]}, {kind["at"]}: ours loses '
      f'{wording.interval(ours, first)}, bicubic '
      f'{wording.interval(other, first)}'
    )
  for division in result['groups']:
    lines.append(wording.worst(division, first))
  if result['calibration']:
    lines.append(wording.calibration(result['calibration']))
  return '\n'.join(lines)
