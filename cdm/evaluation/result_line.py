"""Formats the result of an evaluation as one line of Markdown for a report."""

import json
import os
import pathlib
from collections.abc import Mapping

from cdm.data import picture_files
from cdm.reporting import output_files

NAMES = {  # metric -> (title, format)
  'fid': ('FID', '.2f'),
  'sfid': ('sFID', '.2f'),
  'is': ('IS', '.2f'),
  'kid': ('KID', '.5f'),
  'precision': ('precision', '.3f'),
  'recall': ('recall', '.3f'),
  'psnr': ('PSNR', '.2f'),
  'ssim': ('SSIM', '.3f'),
  'ms_ssim': ('MS-SSIM', '.3f'),
  'lpips': ('LPIPS', '.3f'),
  'consistency_1e-5': ('consistency, 1e-5', '.2f'),
  'cas_top1': ('CAS top-1 (%)', '.2f'),
  'cas_top5': ('CAS top-5 (%)', '.2f'),
  'top1_error': ('top-1 error', '.3f'),
  'top5_error': ('top-5 error', '.3f'),
}
# Metric -> keys of the paper's number in the `paper` section of a config.
PAPER = {
  'is': ('inception_score',),
  'fid': ('fid_train', 'fid_val', 'fid'),
  'psnr': ('psnr',),
  'ssim': ('ssim',),
  'consistency_1e-5': ('consistency',),
  'cas_top1': ('cas_top1',),
  'cas_top5': ('cas_top5',),
  'top1_error': ('resnet50_error_top1',),
  'top5_error': ('resnet50_error_top5',),
}
# Configs hold the consistency itself, while tables state it in units of 1e-5.
SCALE = {'consistency': 1e5}


def check(path: str | os.PathLike, *, overwrite: bool) -> None:
  """Checks that the two files of a row can be written, before hours of work.

  Args:
    path: the path that `write` will get.
    overwrite: whether files that are there may be replaced.

  Raises:
    ValueError: the path is the name of another kind of file, a file is there,
      or its folder cannot be written to.
  """
  path = pathlib.Path(path)
  if path.suffix == '.md':
    raise ValueError(
      f'--out={path}: the row is written as JSON, with a line of Markdown in '
      'FILE.md beside it; give FILE.json.'
    )
  if picture_files.has_suffix(path) or path.suffix == '.npz':
    raise ValueError(f'--out={path}: the row is JSON; give FILE.json.')
  for file in (path, path.with_suffix('.md')):
    output_files.check(file, overwrite=overwrite)


def write(row: Mapping, path: str | os.PathLike) -> pathlib.Path:
  """Writes a row as JSON to `path`, and its line of Markdown beside it.

  Returns:
    The path of the JSON file; the other file has the suffix .md.
  """
  path = pathlib.Path(path)
  output_files.write_text(path.with_suffix('.md'), line(row) + '\n')
  output_files.write_text(path, json.dumps(row, allow_nan=False) + '\n')
  return path


def line(row: Mapping) -> str:
  """Returns a row as one line of Markdown.

  Args:
    row: result of `compare_sets.judge`, `paired_metrics.evaluate_paths`, or
      another evaluation whose metrics are in `NAMES`.
  """
  parts = []
  for name, (title, form) in NAMES.items():
    value = row.get(name)
    if value is None:
      continue
    text = f'{title} {value:{form}}'
    if name in row.get('bicubic', ()):
      text += f' (bicubic {row["bicubic"][name]:{form}})'
    if row.get(f'{name}_std') is not None:
      text += f' ± {row[f"{name}_std"]:{form}}'
    stated = [
      f'{key} {row["paper"][key] * SCALE.get(key, 1):.6g}'
      for key in PAPER.get(name, ())
      if row.get('paper') and key in row['paper']
    ]
    if name in row.get('intervals', {}):
      low, high = row['intervals'][name]
      text += f' (95%: {low:{form}} to {high:{form}})'
    if stated:
      text += f' (paper: {", ".join(stated)})'
    parts.append(f'**{text}**')
  for kind in ('baseline', 'bicubic'):
    errors = row.get(kind, {})
    if 'top1_error' in errors:
      pair = f'{errors["top1_error"]:.3f} / {errors["top5_error"]:.3f}'
      parts.append(f'{kind} {pair}')
  if row.get('which', 'all') != 'all':
    parts.append(row['which'])
  parts += describe_sets(row)
  parts += describe_sampling(row.get('samples_recipe') or {})
  weights = (row.get('samples_recipe') or {}).get('weights_sha256')
  if weights:
    parts.append(f'Inception {weights[:8]}')
  if row.get('warnings'):
    parts.append('**not comparable: ' + '; '.join(row['warnings']) + '**')
  return '- ' + '; '.join(parts)


def describe_sets(row: Mapping) -> list[str]:
  """Returns which sets were compared: ['1,000 images: WHAT', 'against ...']."""
  samples = f'{row["n"]:,} images: {row["samples"]}'
  if 'trained_on' in row:
    trained = f'trained on {row["trained_on"]:,} images: {row["samples"]}'
    return [trained, f'tested on {row["n"]:,} images: {row["reference"]}']
  if not row.get('reference'):
    return [samples]
  counted = row.get('n_reference')
  of = f'{counted:,} images: ' if counted else ''
  return [samples, f'against {of}{row["reference"]}']


def describe_sampling(recipe: Mapping) -> list[str]:
  """Returns how images were sampled: ['seed 0', 'base: step 1000, ...'].

  Args:
    recipe: manifest of the images; [] is returned if they were not sampled.
  """
  recipe = recipe.get('sampling') or recipe
  parts = [f'seed {recipe["seed"]}'] if 'seed' in recipe else []
  for stage in recipe.get('stages', ()):
    sampler = stage['sampler']
    words = [f'step {stage["checkpoint"]}, EMA, {sampler.get("kind")}']
    grid = sampler.get('grid') or {}
    if grid.get('num_steps'):
      words.append(f'{grid["num_steps"]} steps')
    else:
      words.append(f'{grid.get("kind", "full")} grid')
    if sampler.get('guidance_weight'):
      words.append(f'guidance {sampler["guidance_weight"]}')
    if stage.get('level'):
      how = 'truncated' if stage.get('truncated') else 'not truncated'
      words.append(f'augmentation level {stage["level"]}, {how}')
    parts.append(f'{stage["name"]}: {", ".join(words)}')
  return parts
