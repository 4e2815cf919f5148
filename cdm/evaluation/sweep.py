"""Evaluates samples for every setting of a grid and names the best setting.

A setting is a combination of config values that change the samples:
augmentation levels, truncated or not ([CDM] tab. 4 and 5), steps and betas of
an inference schedule ([SR3] sec. 2.3), guidance; or of samplers and their
steps, see `redrawn_sampler`. Each setting gives a row,
which is written to rows.jsonl as soon as it is computed; a sweep that was
stopped continues with the next setting.

Settings share their compiled programs where they differ in augmentation levels,
truncation, the weight of guidance (0 is another program) or the grid of noise
levels only. Images of the earlier stages are kept while only settings of later
stages vary, and settings are computed in an order that makes them last.
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cdm.checkpointing import average_names, checkpoint_name
from cdm.config import cascade_stages, loader, redrawn_sampler
from cdm.distributed import collectives
from cdm.evaluation import (
  compare_sets,
  image_source,
  metrics_table,
  quality_plot,
  set_metrics,
  set_name,
)
from cdm.evaluation.extract_features import GathererOptions
from cdm.evaluation.image_selection import ALL_IMAGES, Selection
from cdm.evaluation.row_types import (
  ImageManifest,
  SweepDescription,
  SweepRow,
)
from cdm.reporting import guidance_weight, jsonl, output_files
from cdm.sampling import kept_images

# The key whose values are averages of the parameters, see `average_names`.
AVERAGE = 'ema'

Setting = tuple[tuple[str, str], ...]  # ((dotted key, text), ...)


def settings(tries: Sequence[str]) -> list[Setting]:
  """Returns all combinations of the values to try.

  Args:
    tries: ('KEY=V,V,...', ...), the values of each key: that of a config, or of
      `redrawn_sampler.parse`.

  Returns:
    [((key, text), ...), ...]; the value of the last key changes fastest.

  Raises:
    ValueError: a text that is not of this form, or a key that occurs twice.
  """
  axes = []
  for text in tries:
    key, equals, values = text.partition('=')
    values = values.split(',')
    if not equals or not key or '' in values:
      raise ValueError(
        f'--try={text}: expected KEY=VALUE,VALUE,..., for example '
        'stages.sr.level=0,0.1,0.2.'
      )
    if key in [axis[0][0] for axis in axes]:
      raise ValueError(f'--try names {key} twice; give all its values at once.')
    if key == AVERAGE:
      values = [average_names.canonical(value) for value in values]
    axes.append([(key, value) for value in values])
    redrawn_sampler.split(axes[-1])  # A sampler may be unknown.
  return list(itertools.product(*axes))


def sweep(
  samples: str | os.PathLike,
  reference: str | os.PathLike,
  out: str | os.PathLike,
  *,
  tries: Sequence[str],
  choice: set_metrics.MetricChoice,
  selection: Selection = ALL_IMAGES,
  network: GathererOptions | None = None,
  reference_overrides: Sequence[tuple[str, str]] = (),
) -> tuple[list[SweepRow], int]:
  """Compares the samples of every setting with one reference.

  Args:
    samples: name of a set that is sampled on the fly, see `set_name`.
    reference: name of the reference set.
    out: folder for rows.jsonl, table.md and quality.html; if it holds rows of
      this sweep already, the sweep continues after them.
    tries: see `settings`.
    choice: the metrics to compute; the first one decides which setting is the
      best.
    selection: which images are sampled; its overrides are the config changes
      that all settings share.
    network: keyword arguments of `extract_features.Gatherer`.
    reference_overrides: the `overrides` of the reference, see `Selection`.

  Returns:
    (rows in the order of the settings, index of the best row).

  Raises:
    ValueError: an error of `compare_sets.compare`, or `out` holds rows of
      another sweep.
  """
  if not set_name.asks_to_draw(samples):
    raise ValueError(
      f'{samples} is not sampled now, so settings cannot change it. Give '
      '--samples=CONFIG.py@WORKDIR or WORKDIR@eval.'
    )
  _check_flags(tries, selection)
  out = pathlib.Path(out)
  every, metrics = settings(tries), choice.names
  description: SweepDescription = {
    'samples': str(samples),
    'reference': str(reference),
    'metrics': list(metrics),
    'num': selection.num,
    'seed': selection.seed,
    'overrides': [
      list(pair) for pair in (*selection.overrides, *selection.redraws)
    ],
    'kid_size': choice.kid_size,
  }
  if collectives.is_first():
    output_files.check_folder(out)
  kept = open_rows(out / 'rows.jsonl', metrics, description)
  pending = [setting for setting in every if setting not in kept.rows]
  gatherer = None
  if pending:
    opened = compare_sets.Reference(
      reference,
      metrics,
      selection=Selection(
        seed=selection.seed,
        overrides=reference_overrides,
        batch_per_device=selection.batch_per_device,
      ),
    )
    gatherer = compare_sets.Gatherer(**network or {})
    shared = kept_images.Kept(out / 'kept')
    try:
      for setting in drawing_order(pending, samples, shared):
        title = ', '.join(f'{key}={value}' for key, value in setting)
        if collectives.is_first():
          print(f'{title} ...', flush=True)
        drawn = drawn_with(selection, setting)
        source = image_source.resolve(samples, drawn, kept=shared)
        row = compare_sets.compare(
          samples,
          opened,
          gatherer,
          choice,
          selection=drawn,
          source=source,
          check_manifests=functools.partial(check_same, out, kept.rows),
          keep_reference=True,
        )
        own: dict[str, Any] = {'setting': setting, 'sweep': description}
        if source.costs is not None:
          own['cost'] = source.costs()
        kept.append([own | row])
    finally:
      shared.forget()
  rows = [kept.rows[setting] for setting in every]
  best = choose(rows, metrics[0])
  if collectives.is_first():
    _write(out, rows, metrics, best)
  if gatherer is not None:
    gatherer.forget()
  return rows, best


def drawn_with(selection: Selection, setting: Setting) -> Selection:
  """Returns a selection whose images are drawn with a setting.

  Args:
    selection: what the settings share.
    setting: its key `AVERAGE` is no change of the config, and those of
      `redrawn_sampler.split` are not either.
  """
  at = selection.at
  for key, value in setting:
    if key == AVERAGE:
      at = checkpoint_name.joined(at, value)
  overrides, redraws = redrawn_sampler.split(
    [pair for pair in setting if pair[0] != AVERAGE]
  )
  return dataclasses.replace(
    selection,
    overrides=(*selection.overrides, *overrides),
    redraws=(*selection.redraws, *redraws),
    at=at,
  )


def _check_flags(tries, selection):
  """Refuses to try what a flag sets for all settings."""
  for key, text in selection.redraws:
    if any(words.startswith(f'{key}=') for words in tries):
      raise ValueError(
        f'--{key}={text} is for all settings, but --try={key}=... changes it '
        'from setting to setting; give one of the two.'
      )


def _write(out, rows, metrics, best):
  """Writes the table and, if it is known what an image costs, the plot."""
  output_files.write_text(out / 'table.md', table(rows, metrics, best))
  page = quality_plot.page(rows, metrics[0], best)
  if page is not None:
    output_files.write_text(out / quality_plot.FILE, page)


def drawing_order(
  pending: Sequence[Setting],
  samples: str | os.PathLike,
  shared: kept_images.Kept,
) -> Iterator[Setting]:
  """Yields settings so that those of early stages change least often.

  Before each setting, `shared` is told which images another one will need.

  Args:
    pending: the settings.
    samples: name of the set that is sampled.
    shared: what the settings share.
  """
  names = stage_names(samples)

  def group(setting, i):
    """Returns the values of the keys that the images of stage i depend on."""
    return tuple(pair for pair in setting if stage_of(pair[0], names) <= i)

  stages = range(len(names))
  first = {}
  for n, setting in enumerate(pending):
    for i in stages:
      first.setdefault((i, group(setting, i)), n)
  ordered = sorted(
    pending, key=lambda s: [first[i, group(s, i)] for i in stages]
  )
  for n, setting in enumerate(ordered):
    before, after = ordered[max(n - 1, 0)], ordered[n + 1 : n + 2]
    changed = [i for i in stages if group(before, i) != group(setting, i)]
    shared.forget(changed)
    shared.wanted = [
      i for i in stages if [group(s, i) for s in after] == [group(setting, i)]
    ]
    yield setting


def stage_names(samples: str | os.PathLike) -> list[str]:
  """Returns the names of the stages of a cascade, or one for a single stage."""
  name = set_name.parse(samples)
  if name.kind == 'cascade':
    assert name.path is not None
    loaded = loader.load(name.path, ())
    if cascade_stages.is_cascade(loaded):
      return [s['name'] for s in cascade_stages.sections(loaded)]
  return ['']


def stage_of(key: str, names: Sequence[str]) -> int:
  """Returns the number of the stage that a config key is about, else 0."""
  words = key.split('.')
  if words[0] == 'stages' and len(words) > 2 and words[1] in names:
    return list(names).index(words[1])
  return 0


def check_same(
  out: str | os.PathLike,
  known: Mapping[Setting, SweepRow],
  samples_recipe: ImageManifest,
  reference_recipe: ImageManifest | None,
) -> None:
  """Refuses a new row that is not comparable with the rows of earlier runs.

  Args:
    out: folder of the rows, for the error message.
    known: {setting: row}, the rows that exist.
    samples_recipe, reference_recipe: manifests of the samples and of the
      reference that the new row is about.

  Raises:
    ValueError: the checkpoint, its average, the network that guides, the
      weights of the network that judges or the reference have changed since.
  """

  # A sweep may try averages and guides, as it tries any other setting.
  keys = {key.split('.')[-1] for setting in known for key, _ in setting}

  def relevant(recipe, reference):
    stages = recipe.get('stages', ())
    return {
      'checkpoint': [stage.get('checkpoint') for stage in stages],
      'average': (
        None if AVERAGE in keys else [stage.get('ema') for stage in stages]
      ),
      'guide': None if 'guide' in keys else list(map(_guide, stages)),
      'weights_sha256': recipe.get('weights_sha256'),
      'reference': json.loads(json.dumps(reference)),
    }

  now = relevant(samples_recipe, reference_recipe)
  for row in known.values():
    then = relevant(row['samples_recipe'], row['reference_recipe'])
    for key in now:
      if now[key] != then[key]:
        raise ValueError(
          f'{out} holds rows of another {key}: it was {then[key]}, now it is '
          f'{now[key]}. The rows cannot be compared; give another --out.'
        )


def _guide(stage):
  """Returns the network that guides a stage of a manifest, or None."""
  # '' is none, as is a section of an earlier version, which has no such key.
  return (stage.get('sampler') or {}).get('guide') or None


def open_rows(
  path: str | os.PathLike,
  metrics: Sequence[str],
  description: SweepDescription,
) -> jsonl.ResumableRows:
  """Opens the rows {setting: row} of a sweep.

  Args:
    path: path of rows.jsonl, which may not exist yet.
    metrics: names, from `metrics_table.SETS`, that every row must have.
    description: what the sweep evaluates; every row repeats it as `sweep`.

  Raises:
    ValueError: the file holds rows of another sweep.
  """

  def setting(row):
    for key, value in description.items():
      if row['sweep'].get(key) != value:
        raise ValueError(
          f'{path} holds rows of another sweep: {key} was '
          f'{row["sweep"].get(key)!r}, now it is {value!r}. Give another --out.'
        )
    return tuple(map(tuple, row['setting']))

  table = metrics_table.SETS
  numbers = [name for metric in metrics for name in table[metric].numbers]
  declared = {
    'setting': list[tuple[str, str]],
    'sweep': dict[str, Any],
    'samples': str,
    'reference': str,
    'n': int,
    'samples_recipe': dict[str, Any],
    'reference_recipe': dict[str, Any] | None,
    **dict.fromkeys(numbers, float),
  }
  return jsonl.ResumableRows(path, setting, declared=declared, allow_nan=False)


def choose(rows: Sequence[Mapping[str, Any]], metric: str) -> int:
  """Returns the index of the best row by a metric; for 'pr', by precision."""
  name, shown = next(iter(metrics_table.SETS[metric].numbers.items()))
  pick = max if shown.higher_is_better else min
  return pick(range(len(rows)), key=lambda i: rows[i][name])


def table(
  rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], best: int
) -> str:
  """Returns a Markdown table with a line per setting, the best one in bold."""
  table = metrics_table.SETS
  names = [name for metric in metrics for name in table[metric].numbers]
  keys = [key for key, _ in rows[0]['setting']]
  heads = [*keys, *names]
  with_cost = any('cost' in row for row in rows)
  if with_cost:
    heads.append('network evaluations')
  lines = ['| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
  for i, row in enumerate(rows):
    cells = [guidance_weight.table_cell(*pair) for pair in row['setting']]
    cells += [f'{row[name]:.4g}' for name in names]
    if with_cost:
      cells.append(quality_plot.evaluations_text(row.get('cost')))
    if i == best:
      cells = [f'**{cell}**' for cell in cells]
    lines.append('| ' + ' | '.join(cells) + ' |')
  first = rows[best]
  lines += ['', f'Best by {metrics[0]} of {first["n"]:,} images, against ']
  lines[-1] += f'{first["reference"]}; {first["samples"]}.'
  if any(map(guidance_weight.is_weight, keys)):
    lines += ['', guidance_weight.NOTE]
  return '\n'.join(lines) + '\n'
