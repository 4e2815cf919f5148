"""The rows of `train_step.py`, and the Markdown tables of them.

Programs took turns: in each round every one of them ran. A ratio is that of two
programs in the same round, so that a machine that slows down for a minute slows
both; printed are the median of the rounds, and the least and the most. MFU is
the model FLOPs over the device's peak with bfloat16 operands, for every dtype.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

OURS = 'cdm'
HEAD = (
  'network',
  'what',
  'framework',
  'dtype',
  'batch',
  'ms (least to most)',
  'images/s',
  'MFU',
  'first call',
  'peak memory',
  'cdm is faster by',
)


def row(
  *,
  run: Mapping[str, Any],
  about: Mapping[str, Any],
  framework: str,
  what: str,
  ready: Mapping[str, Any],
  prepared: Mapping[str, Any],
  rounds: Sequence[float],
  peak_bytes: int,
) -> dict[str, Any]:
  """Returns the row of one program.

  Args:
    run: what is the same for all programs that took turns: the time, the
      model, the options, and how the networks were compared.
    about: what `step_of_cdm.Bench.describe` returned.
    framework: 'cdm', 'torch' or 'torch.compile'.
    what: 'step' or 'forward'.
    ready: what the process said of itself.
    prepared: what it said of its first call.
    rounds: seconds of one step or forward pass, the mean of each round.
    peak_bytes: the most memory that it held.
  """
  median, batch = statistics.median(rounds), about['batch']
  passes = 3 if what == 'step' else 1
  flops = passes * batch * about['forward_flops_per_image']
  peak = about['peak_flops']
  return {
    **run,
    'framework': framework,
    'what': what,
    'dtype': about['dtype'],
    'batch': batch,
    'image_size': about['image_size'],
    'parameters': ready['parameters'],
    'step_seconds': median,
    'least_seconds': min(rounds),
    'most_seconds': max(rounds),
    'round_seconds': list(rounds),
    'images_per_second': batch / median,
    'first_seconds': prepared['first_seconds'],
    'compile_seconds': max(0.0, prepared['first_seconds'] - median),
    'peak_bytes': peak_bytes,
    'planned_bytes': prepared.get('planned_bytes'),
    'model_flops': flops,
    'compiled_flops': prepared.get('compiled_flops'),
    'compiled_bytes_accessed': prepared.get('compiled_bytes_accessed'),
    'flops_per_second': flops / median,
    'mfu': flops / median / peak if peak else None,
    'device': ready['device'],
    'threads': ready.get('threads'),
    'versions': ready['versions'],
    'commit': about['commit'],
  }


def ratios(
  ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[float, float, float]:
  """Returns (median, least, most) of their time over ours, round by round.

  Args:
    ours, theirs: rows whose programs took turns.

  Raises:
    ValueError: their numbers of rounds differ, so that they did not.
  """
  pairs = zip(ours['round_seconds'], theirs['round_seconds'], strict=True)
  found = [b / a for a, b in pairs]
  return statistics.median(found), min(found), max(found)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns a Markdown table of rows, with the ratios of those of one run."""
  lines = [_line(HEAD), _line(['---'] * len(HEAD))]
  for one in rows:
    ours = next(
      (r for r in rows if r['framework'] == OURS and _turns(r) == _turns(one)),
      None,
    )
    ratio = '–'
    if ours is not None and one is not ours:
      ratio = '{:.2f} ({:.2f} to {:.2f})'.format(*ratios(ours, one))
    mfu = '–' if one['mfu'] is None else f'{one["mfu"]:.1%}'
    seconds = [one[f'{k}_seconds'] for k in ('step', 'least', 'most')]
    lines.append(
      _line(
        [
          one['model'],
          one['what'],
          one['framework'],
          one['dtype'],
          f'{one["batch"]}',
          '{:.1f} ({:.1f} to {:.1f})'.format(*(1e3 * s for s in seconds)),
          f'{one["images_per_second"]:.1f}',
          mfu,
          f'{one["first_seconds"]:.1f} s',
          f'{one["peak_bytes"] / 2**30:.2f} GiB',
          ratio,
        ]
      )
    )
  return '\n'.join(lines) + '\n'


def _turns(one):
  """Returns what two rows share exactly if their programs took turns."""
  return one['time'], one['model'], one['what']


def _line(cells):
  return '| ' + ' | '.join(cells) + ' |'
