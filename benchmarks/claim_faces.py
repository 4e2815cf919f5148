"""Lists the pieces of `claims.py` that are about faces, [SR3] and [PRSR].

They train nothing: `cdm compare` has judged the trained methods, and its
comparison.json, given as --comparison, names their work directories.
"""

import json
import pathlib

import numpy as np

from benchmarks.claim_pieces import Piece, swept_rows

# The grid that the config ships with has 32 steps. The others are betas that
# rise linearly, as in [SR3]'s search, whose ranges are not stated: ours.
SPACINGS = ('4', '8', '16', '32')
LINEAR_STEPS = ('4', '8')
# With smaller ones, so few steps would begin far from noise alone.
LAST_BETAS = ('0.9', '0.95', '0.99', '0.999')
FIRST_BETA = '1e-4'
TEMPERATURES = ('0.9', '1.0', '1.1', '1.2', '1.3')
SCORES = ('psnr', 'ssim', 'consistency', 'lpips', 'fd')


def of_sr3() -> list[Piece]:
  """[SR3]: regression, a generative search and SR3; fewer steps by search."""
  return [
    Piece('compare', lambda p: [], lambda p: compared(rows_with(p, 'sr3'))),
    _sweep('steps', 'sr3', [f'sampler.grid.spacing={",".join(SPACINGS)}'], []),
    _sweep(
      'schedule',
      'sr3',
      [
        f'sampler.grid.num_steps={",".join(LINEAR_STEPS)}',
        f'sampler.grid.beta_max={",".join(LAST_BETAS)}',
      ],
      [
        '--config.sampler.grid.kind=linear',
        f'--config.sampler.grid.beta_min={FIRST_BETA}',
      ],
    ),
  ]


def of_prsr() -> list[Piece]:
  """[PRSR]: the temperature against distance and likelihood."""
  tried = f'method.temperature={",".join(TEMPERATURES)}'
  return [
    Piece('compare', lambda p: [], lambda p: compared(rows_with(p, 'prsr'))),
    _sweep('temperature', 'prsr', [tried], []),
    Piece('likelihood', lambda p: [], likelihood_figures),
  ]


def rows_with(place, method):
  """Returns the rows of the comparison that has a method."""
  return _rows(_comparison(place, method))


def images(place):
  """Returns the number of held-out images of the comparison of a claim."""
  method = {'faces': 'sr3', 'prsr': 'prsr'}[place.claim]
  text = _comparison(place, method).read_text(encoding='utf-8')
  return json.loads(text)['settings']['images']


def _rows(path):
  return json.loads(path.read_text(encoding='utf-8'))['rows']


def _comparison(place, method):
  for path in place.comparisons:
    if any(row['method'] == method for row in _rows(path)):
      return path
  given = ', '.join(map(str, place.comparisons)) or 'none is given'
  raise SystemExit(
    f'No comparison has the method {method!r} ({given}); give the '
    'comparison.json of a `cdm compare` that has it, with --comparison.'
  )


def workdir_of(place, method):
  """Returns the work directory of a method that was compared."""
  (row,) = (r for r in rows_with(place, method) if r['method'] == method)
  return pathlib.Path(row['path']).resolve()


def trained_in(path):
  """Returns the folders of the work directories that a comparison names."""
  return {
    pathlib.Path(row['path']).resolve().parent
    for row in _rows(path)
    if 'path' in row
  }


def originals(place, method):
  """Returns the folder of the held-out images of a method's comparison."""
  path = _comparison(place, method)
  return path.parent / 'images' / method / 'original'


def compared(rows):
  """Returns the figures of a comparison, one entry for each method."""
  return [
    {
      'setting': row['method'],
      **{
        m: row['scores'][m] for m in SCORES if row['scores'].get(m) is not None
      },
      'seconds_per_image': row.get('seconds_per_image'),
      'training_flops': (row.get('cost') or {}).get('flops'),
    }
    for row in rows
  ]


def _sweep(name, method, tries, words):
  """Returns a sweep over settings that a trained method draws with."""

  def commands(place):
    run = workdir_of(place, method)
    tried = [_short(keys) for keys in tries] if place.smoke else tries
    return [
      [
        'sweep',
        f'--samples={run}@eval',
        f'--reference={originals(place, method)}',
        *([f'--num={place.num}', '--few'] if place.smoke else ()),
        f'--seed={place.seed}',
        *place.judging,
        *words,
        *(f'--try={keys}' for keys in tried),
        f'--out={place.work / name}',
      ]
    ]

  def figures(place):
    return [
      {
        'setting': name,
        **{key: number(text) for key, text in row['setting']},
        'fd': row['fd'],
      }
      for row in swept_rows(place.work / name)
    ]

  return Piece(name, commands, figures)


def _short(keys):
  """Returns 'key=value,value' with two values at most, for a smoke test."""
  key, _, values = keys.partition('=')
  return f'{key}={",".join(values.split(",")[:2])}'


def number(text):
  """Returns what a value of a sweep says, as a number."""
  return float(text) if '.' in text else int(text)


def likelihood_figures(place):
  """Returns bits per dimension of the held-out images at each temperature."""
  found = bits_per_dim(workdir_of(place, 'prsr'), place.num, TEMPERATURES)
  return [
    {'setting': 'likelihood', 'method.temperature': float(tau), 'bits': bits}
    for tau, bits in found.items()
  ]


def bits_per_dim(workdir, count, temperatures, batch_size=16):
  """Returns {temperature: mean bits per sub-pixel of held-out images}.

  The model at temperature tau is softmax(tau * logits), that which [PRSR] draws
  from.

  Args:
    workdir: of a trained pixel recursive stage.
    count: at most so many held-out images.
    temperatures: values of tau, as text.
    batch_size: images at once.
  """
  from cdm.config import evaluated_images
  from cdm.config import stage as build
  from cdm.sampling import restore

  checkpoint = restore.Checkpoint(workdir)
  restored, saved, _ = restore.restored_stage(checkpoint, name='judged')
  built = build.stage(saved)
  judge = bits_function(
    built.net, built.lowres, [float(t) for t in temperatures]
  )
  held_out = evaluated_images.open_up_to(saved, count)
  sums, counted = np.zeros(len(temperatures)), 0
  for first in range(0, held_out.count, batch_size):
    image, _, there = held_out.read(range(first, first + batch_size))
    found = np.asarray(judge(restored.params, image))
    sums += found[:, there].sum(axis=1)
    counted += int(there.sum())
  return dict(zip(temperatures, (sums / counted).tolist(), strict=True))


def bits_function(net, lowres, temperatures):
  """Returns `(params, image uint8 [B, H, W, 3]) -> bits per dim [T, B]`."""
  import jax
  import jax.numpy as jnp

  from cdm.methods import lowres_conditioning
  from cdm.methods.pixel_recursive import log_p
  from cdm.ops import pixels

  @jax.jit
  def bits(params, image):
    z = lowres_conditioning.downsample(pixels.to_float(image), lowres)
    conditioning, prior = net.apply(
      {'params': params}, image, lowres=z, train=False
    )

    def at(tau):
      nats = -log_p(tau * (conditioning + prior), image)
      return nats.mean((1, 2, 3)) / jnp.log(2.0)

    return jax.lax.map(at, jnp.float32(temperatures))

  return bits
