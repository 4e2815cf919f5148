"""Formats the result of an evaluation as one line of Markdown for a report."""

import json
import os
import pathlib
from collections.abc import Mapping

from cdm.data import picture_files
from cdm.distributed import bucket_folders
from cdm.evaluation import metrics_table
from cdm.reporting import guidance_weight, output_files
from cdm.reporting.shown_number import ShownNumber


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
  # The local copies of what is in a bucket are at other paths elsewhere.
  text = bucket_folders.with_urls(json.dumps(row, allow_nan=False))
  output_files.write_text(path, text + '\n')
  return path


def line(row: Mapping) -> str:
  """Returns a row as one line of Markdown.

  Args:
    row: result of `compare_sets.judge`, `paired_metrics.evaluate_paths`, or
      another evaluation whose metrics are in `metrics_table.numbers`.
  """
  parts = [
    f'**{number_text(row, name, shown)}**'
    for name, shown in metrics_table.numbers().items()
    if row.get(name) is not None
  ]
  parts += describe_missing(row)
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


def number_text(row: Mapping, name: str, shown: ShownNumber) -> str:
  """Returns one number of a row with all that is known about it.

  Args:
    row: see `line`.
    name: key of the number in the row, whose value is not None.
    shown: how it is shown.
  """
  title = shown.title if shown.scale == 1 else shown.heading
  text = f'{title} {shown.text(row[name])}'
  baseline = (row.get('bicubic') or {}).get(name)
  if baseline is not None:
    text += f' (bicubic {shown.text(baseline)})'
  if row.get(f'{name}_std') is not None:
    text += f' ± {shown.text(row[f"{name}_std"])}'
  counted = row.get('counts', {}).get(name, row['n'])
  if counted != row['n']:
    text += f' over {counted:,} of {row["n"]:,} images'
  if name in row.get('intervals', {}):
    low, high = map(shown.text, row['intervals'][name])
    text += f' (95%: {low} to {high})'
  paper = row.get('paper') or {}
  stated = [
    f'{key} {paper[key] * shown.scale:.6g}'
    for key in shown.paper
    if key in paper
  ]
  return text + (f' (paper: {", ".join(stated)})' if stated else '')


def describe_missing(row: Mapping) -> list[str]:
  """Returns what the means of a row leave out: ['1 identical', ...]."""
  parts = []
  ours = row.get('identical_pairs', 0)
  baseline = row.get('bicubic', {}).get('identical_pairs', 0)
  if ours or baseline:
    of_bicubic = f' ({baseline:,} of bicubic)' if baseline else ''
    parts.append(f'{ours:,} identical{of_bicubic}')
  table = metrics_table.numbers()
  for name, why in row.get('left_out', {}).items():
    parts.append(f'{table[name].title} left out: {why}')
  for name, count in row.get('counts', {}).items():
    if not count and name not in row.get('left_out', {}):
      parts.append(f'{table[name].title} is finite for no image')
  return parts


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
    # A stage that does not sample, such as a regression, has no sampler.
    sampler = stage.get('sampler') or {}
    words = []
    if stage.get('checkpoint') is not None:
      words.append(f'step {stage["checkpoint"]}, EMA')
    if sampler:
      words.append(str(sampler.get('kind')))
      grid = sampler.get('grid') or {}
      if grid.get('num_steps'):
        words.append(f'{grid["num_steps"]} steps')
      elif 'temperature' in sampler:
        words.append(f'temperature {sampler["temperature"]}')
      elif 'search' in sampler:
        words.append(f'{sampler["search"]["steps"]} steps')
      elif sampler.get('kind') != 'pulse':  # whose images are drawn at once
        words.append(f'{grid.get("kind", "full")} grid')
    if sampler.get('guidance_weight'):
      words.append(_guidance(sampler))
    if stage.get('level'):
      how = 'truncated' if stage.get('truncated') else 'not truncated'
      words.append(f'augmentation level {stage["level"]}, {how}')
    parts.append(': '.join(filter(None, [stage['name'], ', '.join(words)])))
  return parts


def _guidance(sampler):
  guide = sampler.get('guide')
  shown = guidance_weight.described(
    sampler['guidance_weight'], guide=bool(guide)
  )
  by = f' by {guidance_weight.shown_guide(guide)}' if guide else ''
  return f'guidance {shown}{by}'
