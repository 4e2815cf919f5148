"""Lists the pieces of `claims.py` that are about cascades, [CDM].

A piece is one step of a claim, such as one training or one sweep. Its commands
continue what an earlier attempt has done, and its figures are read from what
they have written, so a piece may be stopped and started at any time.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import claim_data

CIFAR = 'configs/cifar_small_{}.py'
CASCADE = CIFAR.format('cascade32')
LEVELS = '0.05,0.1,0.2,0.4'
HALVES = {'train': 'train', 'eval': 'test'}  # section: folder
NO_LEVEL = ('--config.model.lowres_level=False', '--config.eval.level=0.0')
# The second stage of the cascade: trained with noise of every level as [CDM],
# with nothing, and with the blur of [CDM] sec. 3.1.
SECOND_STAGES = {
  'sr': (),
  'sr_plain': ('--config.lowres.augment=none', *NO_LEVEL),
  'sr_blur': ('--config.lowres.augment=blur', *NO_LEVEL),
}
# A test of the script: every program is the same, and small.
SMOKE_TRAIN = (
  '--config.model.features=8',
  '--config.model.multipliers=(1,)',
  '--config.model.attention_resolutions=()',
  '--config.train.num_steps=2',
  '--config.optimizer.warmup_steps=1',
  '--config.eval.every_steps=2',
  '--config.eval.batches=1',
)
SMOKE_CAS = (
  '--config.model.features=8',
  '--config.model.blocks=(1,)',
  '--config.train.num_steps=2',
  '--config.optimizer.warmup_steps=1',
  '--config.optimizer.decay_at=(1,)',
  '--config.method.statistics_batches=1',
)


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the pieces of one seed find and leave their files.

  Attributes:
    claim: name of the claim, 'cifar10', 'imagenette', 'faces' or 'prsr'.
    data: folder of the unpacked images.
    work: folder for what the pieces write.
    network: the weights of the network that judges.
    seed: of trainings; samples have 1000 + seed, so that what chose a level
      and what judges it are different images.
    num: images that are drawn for each figure.
    smoke: whether this is the short test of the script.
    comparisons: comparison.json of `cdm compare`s of the faces.
  """

  claim: str
  data: pathlib.Path
  work: pathlib.Path
  network: pathlib.Path
  seed: int
  num: int
  smoke: bool = False
  comparisons: tuple[pathlib.Path, ...] = ()

  @property
  def drawing(self):
    few = ['--few'] if self.smoke else []
    return [f'--num={self.num}', f'--seed={1000 + self.seed}', *few]

  @property
  def judging(self):
    return ['--metrics=fd', f'--weights={self.network}']


@dataclasses.dataclass(frozen=True)
class Piece:
  """One step of a claim.

  Attributes:
    name: its name within the claim.
    commands: `(Place) -> [words of a command of cdm, ...]`; they may depend on
      what earlier pieces have written.
    figures: `(Place) -> [{'setting': name, metric: number}, ...]`.
  """

  name: str
  commands: Callable[[Place], list[list[str]]]
  figures: Callable[[Place], list[dict[str, Any]]]


def of_cascade() -> list[Piece]:
  """[CDM]: augmentation, truncation, blur, and one model beside the cascade."""
  return [
    *of_augmentation(),
    _training('sr_blur', CIFAR.format('8to32'), SECOND_STAGES['sr_blur']),
    _training('model32', CIFAR.format('32'), ()),
    _judged('blur', lambda p: _of_stage(p, 'sr_blur', 0.0)),
    _judged('single', lambda p: (CIFAR.format('32'), p.work / 'model32', [])),
    Piece('real', _real_commands, lambda p: [_real_figures(p)]),
  ]


def of_augmentation() -> list[Piece]:
  """[CDM] tab. 4 and 5: levels of augmentation, none, and truncated."""
  return [
    Piece('reference', _reference_commands, _reference_figures),
    _training('base', CIFAR.format('8'), ()),
    *(
      _training(name, CIFAR.format('8to32'), SECOND_STAGES[name])
      for name in ('sr', 'sr_plain')
    ),
    _sweep('levels', f'0.0,{LEVELS}', 'False'),
    _judged('cascade', lambda p: _of_stage(p, 'sr', best_level(p))),
    _judged('plain', lambda p: _of_stage(p, 'sr_plain', 0.0)),
    _sweep('truncated', LEVELS, 'True'),
  ]


def _reference_commands(place):
  return [
    [
      'evaluate',
      '--make_reference',
      f'--reference={CIFAR.format("32")}:{half}',
      f'--config.{half}_data.path={place.data / stored / "images.npz"}',
      f'--weights={place.network}',
      *([f'--num={place.num}'] if place.smoke else ()),
      f'--out={_reference(place, half)}',
      '--overwrite',
    ]
    for half, stored in HALVES.items()
  ]


def _reference(place, half):
  """Returns the statistics of a half, which all seeds share."""
  kind = 'smoke_reference' if place.smoke else 'reference'
  return place.work.parent / f'{kind}_{half}.npz'


def _reference_figures(place):
  """Returns how far our statistics are from those that came with the network.

  The published ones are of all 50,000 training images and all 10,000 test
  images of CIFAR-10, so those of the test images should be ours.
  """
  if place.claim != 'cifar10':
    return []
  from cdm.evaluation.metrics import fid

  found = {'setting': 'reference'}
  published = np.load(place.network.with_name(claim_data.STATISTICS))
  for half, stored in HALVES.items():
    ours = np.load(_reference(place, half))
    distance = fid.fid(
      *(ours['mu'], ours['sigma']),
      *(published[f'{name}_{stored}'] for name in ('mu', 'sigma')),
    )
    found[f'fd_{stored}_to_published'] = float(distance)
  return [found]


def _data_words(place):
  """Names the images of the training and test halves."""
  return [
    f'--config.{half}_data.path={place.data / stored / "images.npz"}'
    for half, stored in HALVES.items()
  ]


def _training(name, config, words):
  """Returns the training of one stage, into the folder of its name."""

  def commands(place):
    return [
      [
        'train',
        f'--config={config}',
        f'--workdir={place.work / name}',
        f'--config.seed={place.seed}',
        *_data_words(place),
        *words,
        *(SMOKE_TRAIN if place.smoke else ()),
      ]
    ]

  return Piece(name, commands, lambda p: [_trained(p.work / name, name)])


def _trained(workdir, name):
  """Returns the figures of a training: its cost and last held-out loss."""
  from cdm.config import loader, stage
  from cdm.models import flops
  from cdm.reporting import jsonl

  text = (workdir / 'config.json').read_text(encoding='utf-8')
  config = loader.from_json(text, str(workdir / 'config.json'))
  parameters, forward = stage.stage(config).trace()
  images = config.train.num_steps * config.train.batch_size
  found = {
    'setting': name,
    'parameters': flops.count_parameters(parameters),
    'steps': config.train.num_steps,
    'images': images,
    'training_flops': 3 * forward * images,
  }
  held_out = [
    row
    for row in jsonl.read(workdir / 'scalars.jsonl')
    if any(key.startswith('held_out/') for key in row)
  ]
  for key in ('held_out/ema_loss', 'held_out/ema_bits_per_dim'):
    if held_out and key in held_out[-1]:
      found[key] = held_out[-1][key]
  return found


def _sweep(name, levels, truncated):
  """Returns the distance of the cascade's samples over the level."""

  def commands(place):
    return [
      [
        'sweep',
        f'--samples={CASCADE}@{place.work}',
        f'--reference={_reference(place, "train")}',
        f'--num={place.num}',
        f'--seed={place.seed}',
        *(['--few'] if place.smoke else []),
        *place.judging,
        f'--try=stages.sr.level={levels}',
        f'--try=stages.sr.truncated={truncated}',
        f'--out={place.work / name}',
      ]
    ]

  def figures(place):
    return [
      {
        'setting': name,
        'level': float(dict(row['setting'])['stages.sr.level']),
        'fd_train': row['fd'],
      }
      for row in swept_rows(place.work / name)
    ]

  return Piece(name, commands, figures)


def swept_rows(folder):
  """Returns the rows of a `cdm sweep`."""
  from cdm.reporting import jsonl

  return jsonl.read(folder / 'rows.jsonl')


def best_level(place):
  """Returns the level with the least distance to the training images."""
  rows = swept_rows(place.work / 'levels')
  best = min(rows, key=lambda row: row['fd'])
  return float(dict(best['setting'])['stages.sr.level'])


def _of_stage(place, stage, level):
  """Returns (config, work directory, overrides) of the cascade with a stage."""
  words = [
    f'--config.stages.1.name={stage}',
    f'--config.stages.1.level={level}',
  ]
  return CASCADE, place.work, words


def _judged(name, model):
  """Returns the drawing and the judging of one setting.

  Args:
    name: of the setting.
    model: `(Place) -> (config, work directory, overrides)`.
  """

  def commands(place):
    config, workdir, words = model(place)
    out = place.work / 'samples' / name
    draw = ['sample', f'--config={config}', f'--workdir={workdir}', *words]
    number = [word for word in place.drawing if word != '--few']
    return [
      [*draw, *number, f'--out={out}'],
      *_distances(place, name, out / 'samples.npz'),
      _cas(place, name, [f'--samples={out / "samples.npz"}']),
    ]

  def figures(place):
    found = {'setting': name, **_scores(place, name)}
    if name == 'cascade':
      found['level'] = best_level(place)
    return [found]

  return Piece(name, commands, figures)


def _distances(place, name, samples):
  return [
    [
      'evaluate',
      f'--samples={samples}',
      f'--reference={_reference(place, half)}',
      *place.judging,
      *([f'--num={place.num}', '--few'] if place.smoke else []),
      f'--out={_row(place, name, half)}',
      '--overwrite',  # what an attempt that was killed has left
    ]
    for half in ('train', 'eval')
  ]


def _row(place, name, half):
  return place.work / f'fd_{name}_{half}.json'


def _cas(place, name, words):
  return [
    'cas',
    '--config=configs/cas_cifar.py',
    f'--workdir={place.work / "cas" / name}',
    f'--config.seed={place.seed}',
    *_data_words(place),
    *(SMOKE_CAS if place.smoke else ()),
    *words,
  ]


def _scores(place, name):
  """Returns the distances and the accuracy of a setting."""
  row = _read(place.work / 'cas' / name / 'row.json')
  return {
    'fd_train': _read(_row(place, name, 'train'))['fd'],
    'fd_test': _read(_row(place, name, 'eval'))['fd'],
    'cas_top1': row['cas_top1'],
  }


def _real_commands(place):
  """The test images beside the training images, and a classifier of these."""
  images = place.data / 'test' / 'images.npz'
  return [*_distances(place, 'real', images)[:1], _cas(place, 'real', [])]


def _real_figures(place):
  row = _read(place.work / 'cas' / 'real' / 'row.json')
  return {
    'setting': 'real',
    'fd_train': _read(_row(place, 'real', 'train'))['fd'],
    'cas_top1': row['cas_top1'],
  }


def _read(path):
  return json.loads(path.read_text(encoding='utf-8'))
