"""Writes a model card: README.md of a model on Hugging Face.

It opens with metadata in YAML, which the site reads: licence, library, task and
figures. Then it says for people what the model is, how it is used, what it
reaches, what it was trained on and under which licence it is passed on.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cdm.config.loader import ConfigDict, plain

WEIGHTS = 'model.safetensors'
# Notes of a packed stage that are a part of the card.
CARD, CREDITS = 'card', 'credits'


class Figure(NamedTuple):
  """A number that a model reaches.

  Attributes:
    metric: its name in a row of `cdm evaluate`, such as 'fid'.
    title: how people call it, with its unit.
    value: the number as it is shown.
    data: which images were judged against which.
  """

  metric: str
  title: str
  value: str
  data: str


class Card(NamedTuple):
  """What a card is written of.

  Attributes:
    config: config of the stage.
    count: number of parameters.
    dtype: what they were rounded to.
    step: step of the checkpoint.
    licence: of the weights, as Hugging Face abbreviates it.
    figures: numbers that it reaches.
    notes: {name: text} of the packed stage.
  """

  config: ConfigDict
  count: int
  dtype: str
  step: int
  licence: str
  figures: Sequence[Figure]
  notes: Mapping[str, str]


def text(card: Card) -> str:
  """Returns the card, in Markdown with a head of YAML."""
  parts = [_head(card), _what(card), _use(card), _figures(card), _data(card)]
  if CARD in card.notes:
    parts.append(card.notes[CARD].strip())
  parts.append(
    f'## Licence\n\nThe weights are passed on under `{card.licence}`. The data '
    'that they were trained on have terms of their own.'
  )
  return '\n\n'.join(parts) + '\n'


def _task(card):
  is_base = card.config.get('lowres') is None
  return 'unconditional-image-generation' if is_base else 'image-to-image'


def _head(card):
  """Returns the metadata. JSON is YAML, and quotes what needs it."""
  tags = ['cdm', 'jax', card.config.method.kind]
  if card.config.get('lowres') is not None:
    tags.append('super-resolution')
  entries: dict[str, Any] = {
    'license': card.licence,
    'library_name': 'cdm',
    'pipeline_tag': _task(card),
    'tags': tags,
  }
  if card.figures:
    results = [
      {
        'task': {'type': _task(card)},
        'dataset': {'type': 'images', 'name': figure.data},
        'metrics': [
          {
            'type': figure.metric,
            'name': figure.title,
            'value': float(figure.value),
          }
        ],
      }
      for figure in card.figures
    ]
    entries['model-index'] = [{'name': card.config.name, 'results': results}]
  lines = [
    f'{k}: {json.dumps(v, ensure_ascii=False)}' for k, v in entries.items()
  ]
  return '\n'.join(['---', *lines, '---'])


def _what(card):
  c = card.config
  size, lowres = c.pipeline.image_size, c.get('lowres')
  what = (
    f'A base model for images of {size} pixels'
    if lowres is None
    else f'A super-resolution stage, from {lowres.size} to {size} pixels'
  )
  classes = (c.get('model') or {}).get('num_classes')
  labels = f', of {classes} classes' if classes else ''
  return (
    f'# {c.name}\n\n{what}{labels}, `method.kind={c.method.kind!r}`. '
    f'{card.count:,} parameters in {card.dtype}, of step {card.step:,}. '
    'It was trained with cdm, a JAX framework for cascaded diffusion models; '
    'The file config.json is its complete config.'
  )


def _use(card):
  given = f'--workdir={WEIGHTS}'
  draw = (
    f'cdm sample --config=config.json {given} --num=16 --out=samples'
    if card.config.get('lowres') is None
    else f'cdm upscale {given} image.png --out=large.png'
  )
  return (
    f'## Use\n\n```sh\n{draw}\n```\n\n'
    f'`cdm import --from=cdm {WEIGHTS} --out=runs/{card.config.name}` makes a '
    'work directory of it, to train it further.'
  )


def _figures(card):
  if not card.figures:
    return '## Figures\n\nNone were measured for this card.'
  rows = [f'| {f.title} | {f.value} | {f.data} |' for f in card.figures]
  return '\n'.join(
    ['## Figures', '', '| metric | value | images |', '|---|---|---|', *rows]
  )


def _data(card):
  section = plain(card.config.get('train_data') or {})
  lines = [f'- `{key}`: {json.dumps(value)}' for key, value in section.items()]
  credits = card.notes.get(CREDITS)
  own = [] if credits is None else ['', 'Credits:', '', '```', credits, '```']
  return '\n'.join(['## Data', '', *lines, *own])
