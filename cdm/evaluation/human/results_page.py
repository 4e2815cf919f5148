"""Builds the page of a study's results, one file that needs nothing else."""

import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from cdm.evaluation.human import published_judgements, scored_trials
from cdm.evaluation.human.study_file import MEDIA, ORIGINAL, RATINGS, Study
from cdm.reporting import bar_chart, html_page, image_files
from cdm.reporting.html_page import Section

MOST_WIDE = 320  # pixels of a picture on the page
EXTREME = 4  # scenes of each method that are shown at either end
TASKS = {
  '2afc': 'how often persons took the picture of a method for the photograph',
  'preference': 'which of two methods persons would rather keep',
  'rating': 'the mean opinion score of each method, 1 to 5',
}
CHANCE = (
  'At 50% persons cannot tell a picture from the photograph. Most methods stay '
  'below; above, persons prefer it to the photograph.'
)


def build(
  study: Study, found: dict[str, Any], folder: str | os.PathLike[str]
) -> str:
  """Returns the page.

  Args:
    study: the study.
    found: see `study_results.results`.
    folder: the study's folder, of whose pictures some are shown.
  """
  media = pathlib.Path(folder) / MEDIA
  kept, everyone = found['kept'], found['everyone']
  sections = [
    Section('Results', _summary(study, kept, everyone)),
    Section('Beside the papers', _papers(study, kept)),
    Section('Pictures', _pictures(study, kept, media)),
    Section('Persons', _persons(study, found['persons'])),
    Section('Every scene', _scenes(study, kept)),
    Section('How this was computed', [html_page.bullets(_method(study))]),
  ]
  return html_page.build_page(
    study['title'],
    sections,
    subtitle=f'{study["question"]} This page shows {TASKS[study["task"]]}.',
    footer=f'Study {study["id"]}, seed {study["seed"]}.',
  )


def percent(interval: tuple[float, float] | None) -> str | None:
  """Returns '35.8 to 44.4 %', or None."""
  if interval is None:
    return None
  low, high = (100 * end for end in interval)
  return f'{low:.1f} to {high:.1f} %'


def name_of(study: Study, methods: list[str]) -> str:
  """Returns what a condition is called."""
  if study['task'] == 'preference':
    return f'{methods[1]} over {methods[0]}'
  return methods[-1]


def _numbers(interval):
  return f'{interval[0]:.2f} to {interval[1]:.2f}' if interval else None


def _summary(study, kept, everyone):
  parts = [
    f'{kept["persons"]} persons count, with {kept["trials"]} trials; '
    f'{everyone["persons"]} have answered, with {everyone["trials"]}.'
  ]
  if not kept['trials']:
    return [
      *parts,
      html_page.notice('No answer counts, so there is no result.'),
    ]
  row = _opinion_row if study['task'] == 'rating' else _rate_row
  for title, found in (
    ('Without the excluded persons', kept),
    ('With everyone', everyone),
  ):
    parts.append(html_page.subheading(title))
    parts.append(html_page.table([row(study, o) for o in found['conditions']]))
  if study['task'] == '2afc':
    parts.append(CHANCE)
  if study['task'] == 'rating':
    charts = [
      html_page.figure(
        bar_chart.svg(
          one['histogram'], x_label='score', y_label='trials', names='12345'
        ),
        f'{one["methods"][0]}: ' + ', '.join(RATINGS),
      )
      for one in kept['conditions']
    ]
    parts.append(html_page.row(*charts))
  if kept['strengths']:
    parts += _strengths(kept['strengths'])
  return parts


def _rate_row(study, one):
  rate = one['rate']
  asked = 'fool rate' if study['task'] == '2afc' else 'chosen'
  return {
    'method': name_of(study, one['methods']),
    'trials': one['trials'],
    f'{asked}, %': None if rate is None else f'{100 * rate:.1f}',
    '95%, persons and scenes drawn': percent(one['interval']),
    '95%, Wilson': percent(one['wilson']),
  }


def _opinion_row(study, one):
  return {
    'method': name_of(study, one['methods']),
    'trials': one['trials'],
    'mean opinion': None if not one['trials'] else f'{one["mean"]:.2f}',
    '95%, persons and scenes drawn': _numbers(one['interval']),
    "in a person's standard deviations": None
    if one['z_score'] is None
    else f'{one["z_score"]:+.2f}',
  }


def _strengths(rows):
  ordered = sorted(rows, key=lambda one: -one['strength'])
  table = [
    {
      'method': one['method'],
      'strength': f'{one["strength"]:+.2f}',
      '95%, persons and scenes drawn': _numbers(one['interval']),
    }
    for one in ordered
  ]
  text = (
    "Strengths of Bradley and Terry's model, log w with mean 0: of two "
    'methods, the one whose strength is larger by d is chosen with the '
    'probability 1 / (1 + exp(-d)).'
  )
  if rows[0]['smoothed']:
    text += (
      ' One method, or a group, was chosen each time, so half a choice each '
      'way was added to every pair.'
    )
  heading = html_page.subheading('Strengths of the methods')
  return [heading, html_page.table(table), text]


def _papers(study, kept):
  tables = published_judgements.beside(study['task'])
  if not tables:
    return ['The papers print no such numbers.']
  ours = [
    [name_of(study, one['methods']), _own(study, one)]
    for one in kept['conditions']
    if one['trials']
  ]
  parts = [published_judgements.CAVEAT]
  if ours:
    what = 'opinion, 95%' if study['task'] == 'rating' else '% fooled, 95%'
    shown = ', low-res picture shown' if study['items'][0]['lowres'] else ''
    parts.append(html_page.subheading(f'This study{shown}'))
    parts.append(html_page.table(ours, header=['method', what]))
  for caption, header, rows in tables:
    parts.append(html_page.subheading(caption))
    parts.append(html_page.table(rows, header=header))
  return parts


def _own(study, one):
  if study['task'] == 'rating':
    return f'{one["mean"]:.2f} ({_numbers(one["interval"]) or "no interval"})'
  return (
    f'{100 * one["rate"]:.1f} ({percent(one["interval"] or one["wilson"])})'
  )


def _pictures(study, kept, media):
  """Shows the most and the least convincing scenes of each condition."""
  parts = []
  by_condition: dict[tuple[str, ...], list[dict[str, Any]]] = {}
  for row in kept['scenes']:
    by_condition.setdefault(tuple(row['methods']), []).append(row)
  for methods, rows in by_condition.items():
    rows = sorted(rows, key=lambda row: (-row['mean'], row['item']))
    ends = [('Most', rows[:EXTREME])]
    if len(rows) > EXTREME:
      ends.append(('Least', rows[EXTREME:][-EXTREME:]))
    for word, shown in ends:
      parts.append(
        _strip(study, methods, shown, media, f'{word} convincing scenes of ')
      )
  return parts or ['No answer counts, so there is nothing to show.']


def _strip(study, methods, rows, media, caption):
  rating = study['task'] == 'rating'
  heads = [
    f'{row["scene"]}: '
    + (f'{row["mean"]:.1f}' if rating else f'{100 * row["mean"]:.0f} %')
    + f' of {row["trials"]}'
    for row in rows
  ]
  items = [study['items'][row['item']] for row in rows]
  shown = list(methods)
  if ORIGINAL in items[0]['pictures'] and ORIGINAL not in shown:
    shown.insert(0, ORIGINAL)
  images = [
    [shown_png(media / item['pictures'][method]) for item in items]
    for method in shown
  ]
  scale = max(1.0, min(4, 160 // max(items[0]['width'], 1)))
  return html_page.strip(
    images,
    heads=heads,
    names=shown,
    scale=scale,
    zoom=2 * scale,
    caption=f'{caption}{name_of(study, list(methods))}. Above each scene '
    + ('stands its mean score' if rating else 'stands how often it was chosen')
    + ', of so many trials.',
  )


def shown_png(path: pathlib.Path) -> bytes:
  """Returns the bytes of a picture, made smaller than `MOST_WIDE` if needed.

  The pictures of a page are a part of it, and large ones would make it huge.
  """
  with Image.open(path) as image:
    if image.width <= MOST_WIDE:
      return path.read_bytes()
    image.thumbnail((MOST_WIDE, image.height))
    return image_files.png_bytes(np.asarray(image))


def _persons(study, persons):
  if not persons:
    return ['Nobody has answered yet.']
  rows = []
  for person in persons:
    rating = study['task'] == 'rating'
    rows.append(
      {
        'person': person['name'],
        'answered': person['answered'],
        'not counted': person['left_out'],
        'catch trials right': f'{person["catch_right"]} of '
        f'{person["catch_total"]}',
        'median time, ms': person['median_rt'],
        **{
          name_of(study, one['methods']): _numbers_of(one, rating)
          for one in person['conditions']
        },
        'excluded because': '; '.join(person['reasons']) or None,
      }
    )
  faint = [i for i, one in enumerate(persons) if one['reasons']]
  caption = 'Each person, with Wilson intervals; the excluded ones are faint.'
  return [html_page.table(rows, caption=caption, faint=faint)]


def _numbers_of(one, rating):
  if not one['trials']:
    return None
  of = f'of {one["trials"]}'
  if rating:
    return html_page.stacked(f'{one["mean"]:.2f}', of)
  ends = percent(one['wilson'])
  return html_page.stacked(f'{100 * one["rate"]:.0f} % {of}', f'{ends}')


def _scenes(study, kept):
  rating = study['task'] == 'rating'
  if not kept['scenes']:
    return ['No answer counts.']
  rows = [
    {
      'scene': row['scene'],
      'method': name_of(study, row['methods']),
      'trials': row['trials'],
      ('mean opinion' if rating else 'chosen, %'): f'{row["mean"]:.2f}'
      if rating
      else f'{100 * row["mean"]:.0f}',
    }
    for row in kept['scenes']
  ]
  return [html_page.table(rows)]


def _method(study):
  rules = scored_trials.RULES
  return [
    f'Pictures were decoded beforehand and shown for {study["seconds"]:g} '
    'seconds; the time was measured by the frames of the screen. A trial whose '
    f'pictures were shown for {100 * rules.time_share:.0f}% more or less, or '
    'whose page was hidden, does not count.',
    'A person is excluded who did not finish, who had less than '
    f'{100 * rules.catch_share:.0f}% of the catch trials right (a sharp '
    'picture beside the same one, blurred), whose median answer came within '
    f'{rules.least_rt:.0f} ms, or who gave one answer in more than '
    f'{100 * rules.one_answer:.0f}% of {rules.least_trials} or more trials.',
    'Intervals of all persons are percentiles of 2000 resamples in which '
    'persons and, separately, scenes are drawn with replacement (the '
    'pigeonhole bootstrap, Owen 2007): they hold for other persons and other '
    "scenes, and err towards too wide. Wilson's interval takes all trials as "
    'independent, so for one person it is right and for several too narrow.',
    'Sides, orders and pairs follow from the seed of the study; every scene '
    'and every pair is seen equally often, and nobody sees a scene twice.',
  ]
