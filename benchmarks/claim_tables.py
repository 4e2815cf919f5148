"""Writes the tables of what `claims.py` has run, as Markdown."""

import dataclasses

import numpy as np

from cdm.evaluation import metrics_table
from cdm.reporting.text_table import format_si

DASH = '\N{EN DASH}'
SETS = {'cifar10': 'CIFAR-10', 'imagenette': 'Imagenette'}
# Settings of a cascade, as a reader calls them.
TITLES = {
  'cascade': 'cascade, trained with noise, at its best level',
  'plain': 'cascade, trained without augmentation',
  'blur': 'cascade, trained with blur',
  'single': 'one model of equal training FLOPs',
  'real': 'real images',
}


def markdown(rows):
  """Returns all tables of the rows that are not those of a smoke test."""
  rows = [row for row in rows if not row['smoke']]
  if not rows:
    return 'Nothing has been run.\n'
  parts = [claims(rows)]
  for claim, title in SETS.items():
    of_claim = [row for row in rows if row['claim'] == claim]
    if of_claim:
      parts += [levels(of_claim, title), settings(of_claim, title)]
      parts += [trainings(of_claim, title)]
  parts += [faces(rows), steps(rows), temperatures(rows)]
  return '\n'.join(part for part in parts if part)


def claims(rows):
  """Returns the table of claims: what was expected, and what came out."""
  lines = []
  for claim, title in SETS.items():
    of_set = by_setting([row for row in rows if row['claim'] == claim])
    for text, wins, loses, metric, higher in CASCADE_CLAIMS:
      lines += _contest(f'{title}: {text}', of_set, wins, loses, metric, higher)
  of_faces = by_setting([row for row in rows if row['claim'] == 'faces'])
  for text, wins, loses, metric, higher in FACE_CLAIMS:
    lines += _contest(f'faces: {text}', of_faces, wins, loses, metric, higher)
  if not lines:
    return ''
  return table(
    ['claim', 'metric', 'this', 'that', 'seeds in which this wins'],
    lines,
    '[CDM] and [SR3]: what they claim, and in how many seeds it holds',
  )


# (the claim, the setting that wins, the one that loses, metric, whether more is
# better).
CASCADE_CLAIMS = (
  ('noise beats no augmentation', 'cascade', 'plain', 'fd_test', False),
  ('noise beats no augmentation', 'cascade', 'plain', 'cas_top1', True),
  ('some level beats level 0', 'best', 'zero', 'fd_train', False),
  ('the cascade beats one model', 'cascade', 'single', 'fd_test', False),
  ('the cascade beats one model', 'cascade', 'single', 'cas_top1', True),
  ('blur beats no augmentation', 'blur', 'plain', 'fd_test', False),
  ('noise beats blur on 8 to 32', 'cascade', 'blur', 'fd_test', False),
)
FACE_CLAIMS = (
  ('regression wins PSNR', 'regression', 'sr3', 'psnr', True),
  ('SR3 wins the Fréchet distance', 'sr3', 'regression', 'fd', False),
  ('SR3 is more consistent than PULSE', 'sr3', 'pulse', 'consistency', False),
)


def by_setting(rows):
  """Returns {setting: {seed: figures}}, with the best level above 0, and 0."""
  found = {}
  for row in rows:
    for figures in row['figures']:
      found.setdefault(figures['setting'], {})[row['seed']] = figures
    if row['piece'] == 'levels':
      noised = [f for f in row['figures'] if f['level'] > 0.0]
      (zero,) = (f for f in row['figures'] if f['level'] == 0.0)
      best = min(noised, key=lambda f: f['fd_train'])
      found.setdefault('best', {})[row['seed']] = best
      found.setdefault('zero', {})[row['seed']] = zero
  return found


def _contest(text, found, wins, loses, metric, higher):
  """Returns the line of a claim, or none if no seed has both settings."""
  pairs = [
    (found[wins][seed][metric], found[loses][seed][metric])
    for seed in sorted({*found.get(wins, ())} & {*found.get(loses, ())})
    if metric in found[wins][seed] and metric in found[loses][seed]
  ]
  if not pairs:
    return []
  held = sum((a > b) if higher else (a < b) for a, b in pairs)
  sides = [shown(metric, side) for side in zip(*pairs, strict=True)]
  return [[text, METRICS[metric].heading, *sides, f'{held} of {len(pairs)}']]


# {metric: how it is printed}.
METRICS = {
  **metrics_table.numbers(),
  **{
    name: dataclasses.replace(metrics_table.numbers()['fd'], title=title)
    for name, title in (
      ('fd_train', 'FD train'),
      ('fd_test', 'FD test'),
      ('bits', 'bits per dim'),
    )
  },
}


def shown(metric, values):
  """Returns a mean over seeds, and the least and the most if they are many."""
  values, text = [v for v in values if v is not None], METRICS[metric].text
  if len(values) < 2:
    return text(values[0]) if values else DASH
  return f'{text(np.mean(values))} ({text(min(values))} to {text(max(values))})'


def levels(rows, title):
  """Returns the distance over the level, in full and truncated sampling."""
  found = {}
  for row in rows:
    if row['piece'] in ('levels', 'truncated'):
      for f in row['figures']:
        cell = found.setdefault(f['level'], {}).setdefault(row['piece'], [])
        cell.append(f['fd_train'])
  if not found:
    return ''
  plain = [
    f['fd_train'] for r in rows if r['piece'] == 'plain' for f in r['figures']
  ]
  lines = [
    [
      f'{level:g}',
      *(
        shown('fd_train', found[level].get(piece, []))
        for piece in ('levels', 'truncated')
      ),
    ]
    for level in sorted(found)
  ]
  lines += [['trained without', shown('fd_train', plain), DASH]]
  return table(
    ['level', 'FD train', 'FD train, truncated'],
    lines,
    f'[CDM] {title}: distance over the level of augmentation, {seeds(rows)}',
  )


def settings(rows, title):
  """Returns the table of the settings that were judged."""
  found, lines = by_setting(rows), []
  for name, words in TITLES.items():
    figures = [*found.get(name, {}).values()]
    if figures:
      lines.append(
        [
          words,
          *(
            shown(m, [f[m] for f in figures if m in f])
            for m in ('fd_train', 'fd_test', 'cas_top1')
          ),
        ]
      )
  if not lines:
    return ''
  heads = [METRICS[m].heading for m in ('fd_train', 'fd_test', 'cas_top1')]
  return table(
    ['setting', *heads], lines, f'[CDM] {title}: settings, {seeds(rows)}'
  )


def trainings(rows, title):
  """Returns what each training and each other piece took."""
  found = {}
  for row in rows:
    found.setdefault(row['piece'], []).append(row)
  lines = []
  for piece, of_piece in found.items():
    figures = of_piece[0]['figures'][:1]
    trained = figures[0] if figures and 'training_flops' in figures[0] else {}
    cpu = sum(row['cpu_core_hours'] for row in of_piece) / len(of_piece)
    wall = sum(row['wall_hours'] for row in of_piece) / len(of_piece)
    lines.append(
      [
        piece,
        f'{trained["parameters"]:,}' if trained else DASH,
        f'{trained["steps"]:,}' if trained else DASH,
        format_si(trained['training_flops'], 'FLOP') if trained else DASH,
        f'{cpu:.2f}',
        f'{wall:.2f}',
      ]
    )
  heads = ['piece', 'parameters', 'steps', 'training', 'core-hours', 'hours']
  total = sum(row['cpu_core_hours'] for row in rows)
  words = sorted({row['hardware'] for row in rows})
  return table(
    heads,
    lines,
    f'[CDM] {title}: cost of a seed, {total:.2f} core-hours over '
    f'{seeds(rows)} ({"; ".join(words)})',
  )


def faces(rows):
  """Returns the comparisons of [SR3] and [PRSR]."""
  parts = []
  for claim, title in (('faces', '[SR3]'), ('prsr', '[PRSR]')):
    for row in rows:
      if (row['claim'], row['piece']) != (claim, 'compare'):
        continue
      metrics = [
        m
        for m in ('psnr', 'ssim', 'consistency', 'lpips', 'fd')
        if any(f.get(m) is not None for f in row['figures'])
      ]
      lines = [
        [f['setting'], *(shown(m, [f.get(m)]) for m in metrics)]
        for f in row['figures']
      ]
      heads = ['method', *(METRICS[m].heading for m in metrics)]
      parts.append(table(heads, lines, f'{title} faces: methods side by side'))
  return '\n'.join(parts)


def steps(rows):
  """Returns the distance over the steps and schedules of SR3."""
  lines = []
  for row in rows:
    if row['claim'] == 'faces' and row['piece'] in ('steps', 'schedule'):
      for f in row['figures']:
        number = f.get('sampler.grid.spacing', f.get('sampler.grid.num_steps'))
        last = f.get('sampler.grid.beta_max')
        grid = 'as trained' if last is None else f'linear, last beta {last:g}'
        lines.append([f'{number:g}', grid, shown('fd', [f['fd']])])
  lines.sort(key=lambda line: (int(line[0]), line[1]))
  heads = ['steps', 'schedule', 'FD']
  return table(heads, lines, '[SR3] faces: fewer steps') if lines else ''


def temperatures(rows):
  """Returns distance and likelihood over the temperature of [PRSR]."""
  found = {}
  for row in rows:
    if row['claim'] == 'prsr':
      for f in row['figures']:
        if 'method.temperature' in f:
          found.setdefault(f['method.temperature'], {}).update(f)
  lines = [
    [f'{tau:g}', *(shown(m, [found[tau].get(m)]) for m in ('fd', 'bits'))]
    for tau in sorted(found)
  ]
  heads = ['temperature', 'FD', 'bits per dim']
  return table(heads, lines, '[PRSR] faces: the temperature') if lines else ''


def seeds(rows):
  """Returns how many seeds have been run, in words."""
  count = len({row['seed'] for row in rows})
  return f'{count} seed' + ('s' if count > 1 else '')


def table(heads, lines, title):
  """Returns a Markdown table under a line of text."""
  rule = '|---' * len(heads) + '|'
  body = ['| ' + ' | '.join(cells) + ' |' for cells in (heads, *lines)]
  return '\n'.join([f'{title}:', '', body[0], rule, *body[1:]]) + '\n'
