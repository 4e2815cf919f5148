"""Judges one setting after the other and names the best.

A setting is a set of config values of what is drawn: augmentation levels,
truncated or not ([CDM] tab. 4 and 5), steps and betas of an inference schedule
([SR3] sec. 2.3), guidance. Each gives a row, kept in rows.jsonl as soon as it
is there; a sweep that is stopped goes on with the next.
"""

import itertools
import json
import pathlib

from cdm.distributed import collectives
from cdm.evaluation import compare_sets, set_name
from cdm.reporting import jsonl, output_files

# Metric -> whether more is better.
BEST = {
  'fid': False,
  'sfid': False,
  'kid': False,
  'is': True,
  'precision': True,
  'recall': True,
}


def settings(tries):
  """All combinations.

  Args:
    tries: ('KEY=V,V,...', ...).

  Returns:
    [((key, text), ...), ...], the last key turning fastest.

  Raises:
    ValueError: one that is not of this form, or a key that is there twice.
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
    axes.append([(key, value) for value in values])
  return list(itertools.product(*axes))


def sweep(
  samples,
  reference,
  out,
  *,
  tries,
  metrics,
  overrides=(),
  network=None,
  **given,
):
  """Judges every setting.

  Args:
    samples: WHAT that is drawn, see `compare_sets`.
    reference: WHAT.
    out: folder of rows.jsonl and table.md; continued if it holds this sweep.
    tries: see `settings`.
    metrics: names, of `set_metrics.METRICS`; the first one decides.
    overrides: ((dotted key, text), ...) that all settings share.
    network: keyword arguments of `extract_features.Gatherer`.
    **given: see `compare_sets.compare`.

  Returns:
    (rows in the order of the settings, index of the best).

  Raises:
    ValueError: see `compare_sets.compare`; or out holds another sweep.
  """
  if not set_name.asks_to_draw(samples):
    raise ValueError(
      f'{samples} is not drawn: settings change nothing about it. Give '
      '--samples=CONFIG.py@WORKDIR or WORKDIR@eval.'
    )
  out = pathlib.Path(out)
  every = settings(tries)
  what = {
    'samples': str(samples),
    'reference': str(reference),
    'metrics': list(metrics),
    'num': given.get('num'),
    'seed': given.get('seed'),
    'overrides': [list(pair) for pair in overrides],
    'kid_size': given.get('kid_size'),
  }
  if collectives.is_first():
    output_files.check_folder(out)
  kept = open_rows(out / 'rows.jsonl', what)
  against = gatherer = None
  rows = []
  for setting in every:
    if setting not in kept.rows:
      told = ', '.join(f'{key}={value}' for key, value in setting)
      if collectives.is_first():
        print(f'{told} ...', flush=True)
      if gatherer is None:
        against = compare_sets.Reference(
          reference, metrics, seed=given.get('seed')
        )
        gatherer = compare_sets.Gatherer(**network or {})
      row = compare_sets.compare(
        samples,
        against,
        gatherer,
        metrics=metrics,
        overrides=(*overrides, *setting),
        agree=lambda mine, theirs: check_same(out, kept.rows, mine, theirs),
        again=True,
        **given,
      )
      kept.append([{'setting': setting, 'sweep': what} | row])
    rows.append(kept.rows[setting])
  best = choose(rows, metrics[0])
  if collectives.is_first():
    output_files.write_text(out / 'table.md', table(rows, metrics, best))
  if gatherer is not None:
    gatherer.forget()
  return rows, best


def check_same(out, known, mine, theirs):
  """Refuses to put rows beside others that they do not compare with.

  Args:
    out: folder of the rows.
    known: {setting: row}.
    mine, theirs: recipes of the samples and of the reference.

  Raises:
    ValueError: training went on since, or the weights or the reference are
      others.
  """

  def of(recipe, reference):
    steps = [stage['checkpoint'] for stage in recipe.get('stages', ())]
    return {
      'checkpoint': steps,
      'weights_sha256': recipe.get('weights_sha256'),
      'reference': json.loads(json.dumps(reference)),
    }

  now = of(mine, theirs)
  for row in known.values():
    then = of(row['samples_recipe'], row['reference_recipe'])
    for key in now:
      if now[key] != then[key]:
        raise ValueError(
          f'{out} holds rows of another {key}: it was {then[key]}, now it is '
          f'{now[key]}. Rows of both do not compare; give another --out.'
        )


def open_rows(path, what):
  """Opens the rows {setting: row} of a sweep, as `jsonl.ResumableRows`.

  Raises:
    ValueError: the file holds rows of another sweep.
  """

  def setting(row):
    for key, value in what.items():
      if row['sweep'].get(key) != value:
        raise ValueError(
          f'{path} holds rows of another sweep: {key} was '
          f'{row["sweep"].get(key)!r}, now it is {value!r}. Give another --out.'
        )
    return tuple(map(tuple, row['setting']))

  return jsonl.ResumableRows(path, setting, allow_nan=False)


def choose(rows, metric):
  """-> index of the best row by a metric."""
  metric = 'precision' if metric == 'pr' else metric
  pick = max if BEST[metric] else min
  return pick(range(len(rows)), key=lambda i: rows[i][metric])


def table(rows, metrics, best):
  """-> Markdown, a line per setting, the best one in bold."""
  names = [
    name
    for metric in metrics
    for name in (('precision', 'recall') if metric == 'pr' else (metric,))
  ]
  keys = [key for key, _ in rows[0]['setting']]
  lines = [
    '| ' + ' | '.join([*keys, *names]) + ' |',
    '|---' * (len(keys) + len(names)) + '|',
  ]
  for i, row in enumerate(rows):
    cells = [value for _, value in row['setting']]
    cells += [f'{row[name]:.4g}' for name in names]
    if i == best:
      cells = [f'**{cell}**' for cell in cells]
    lines.append('| ' + ' | '.join(cells) + ' |')
  first = rows[best]
  lines += ['', f'Best by {metrics[0]} of {first["n"]:,} images, against ']
  lines[-1] += f'{first["reference"]}; {first["samples"]}.'
  return '\n'.join(lines) + '\n'
