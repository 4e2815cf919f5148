"""Compares samplers and students by quality against network evaluations.

  python benchmarks/few_steps.py --teacher=WORKDIR [--student=WORKDIR ...] \
      --weights=NETWORK --work=FOLDER --out=ROWS.jsonl [--num=410] [--smoke]
  python benchmarks/few_steps.py --out=ROWS.jsonl --table [--page=PAGE.html]

The teacher is a trained super-resolution stage. It draws its held-out images
with every sampler, in 1 to 100 network evaluations and more; the students,
which `cdm distill` made of it, draw in their own steps. Each setting appends a
row with the Fréchet distance in the features of NETWORK, PSNR, SSIM and
consistency, and a setting whose row is there is not run again. FOLDER, outside
the repository, takes the images.
"""

import argparse
import functools
import json
import pathlib
import shutil
import sys
from typing import NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import claim_runner  # noqa: E402
from cdm.config import sampler_section  # noqa: E402
from cdm.diffusion import sampler_steps  # noqa: E402
from cdm.reporting import html_page, jsonl, line_chart, output_files  # noqa: E402

# Network evaluations of an image, for every sampler of the teacher.
EVALUATIONS = (1, 2, 4, 8, 16, 32, 100)
# Heun's steps begin where those of [EDM] do, see docs/samplers.md.
RHO = ('kind=rho', 'sigma_max=80')
# The samplers by the name of their line: kind, options, keys of the grid.
SAMPLERS = {
  'ancestral': ('ancestral', (), ('kind=trailing',)),
  'ddim': ('ddim', (), ('kind=trailing',)),
  '2M': ('dpm_solver_pp_2m', (), ('kind=trailing',)),
  '2M, log-SNR': ('dpm_solver_pp_2m', (), ('kind=uniform_logsnr',)),
  '2M, noise': ('dpm_solver_pp_2m', ('eta=1.0',), ('kind=trailing',)),
  '3M, log-SNR': ('dpm_solver_pp_3m', (), ('kind=uniform_logsnr',)),
  '2S, log-SNR': ('dpm_solver_pp_2s', (), ('kind=uniform_logsnr',)),
  'heun, rho': ('heun', (), RHO),
  'dpm_2': ('dpm_2', (), ('kind=trailing',)),
}
MORE = {'ancestral': (1000,)}  # further evaluations of one sampler
METRICS = ('psnr', 'ssim', 'consistency')


class Setting(NamedTuple):
  """What a row is about.

  Attributes:
    line: name of the sampler in `SAMPLERS`, or of the student.
    model: work directory.
    words: that `cdm upscale` is given besides.
    evaluations: of the network, for one image.
  """

  line: str
  model: pathlib.Path
  words: tuple[str, ...]
  evaluations: int


def main(argv=None):
  args = parse(argv)
  if args.table:
    rows = jsonl.read(args.out)
    print(table(rows), end='')
    if args.page is not None:
      output_files.write_text(args.page, page(rows))
    return
  runner = claim_runner.Runner(
    args.work, {args.work: 'WORK', args.teacher: 'TEACHER'}
  )
  done = {(row['line'], row['evaluations']) for row in jsonl.read(args.out)}
  for setting in settings(args):
    if (setting.line, setting.evaluations) not in done:
      row = measured(args, setting, runner)
      jsonl.append(args.out, [row], allow_nan=False)
      print(row, flush=True)


def parse(argv):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--teacher', type=pathlib.Path)
  add('--student', type=pathlib.Path, action='append', default=[])
  add('--weights', type=pathlib.Path, help='of the Fréchet distance')
  add('--work', type=pathlib.Path, help='folder outside the repository')
  add('--out', type=pathlib.Path, required=True, help='the rows, JSON lines')
  add('--num', type=int, default=410, help='held-out images of a setting')
  add('--table', action='store_true', help='print the table of --out')
  add('--page', type=pathlib.Path, help='with --table: write the plot too')
  add('--smoke', action='store_true', help='two settings of 64 images')
  args = parser.parse_args(argv)
  if args.table:
    return args
  for name in ('teacher', 'weights', 'work'):
    if getattr(args, name) is None:
      parser.error(f'--{name} is missing; only --table goes without it.')
  args.work, args.teacher = args.work.resolve(), args.teacher.resolve()
  if args.work.is_relative_to(ROOT):
    parser.error(
      f'--work={args.work} is inside the repository; give a folder outside it.'
    )
  args.work.mkdir(parents=True, exist_ok=True)
  if args.smoke:
    args.num = 64
  return args


def settings(args):
  """Returns every `Setting`, the cheapest first."""
  found = []
  for line, (kind, options, grid) in SAMPLERS.items():
    for wanted in EVALUATIONS + MORE.get(line, ()):
      steps = next(n for n in range(1, wanted + 1) if cost(kind, n) >= wanted)
      words = (
        f'--config.sampler.kind={kind}',
        *(f'--config.sampler.{option}' for option in options),
        *(f'--config.sampler.grid.{option}' for option in grid),
        f'--config.sampler.grid.num_steps={steps}',
      )
      found.append(Setting(line, args.teacher, words, cost(kind, steps)))
  # A second evaluation of a step is one more: 2 evaluations are 3, as 4 are 5.
  found = list(dict.fromkeys(found))
  for model in args.student:
    path = model.resolve()
    config = json.loads((path / 'config.json').read_text(encoding='utf-8'))
    steps = config['sampler']['grid']['num_steps']
    kind = config['method']['kind'].removesuffix('_distillation')
    found.append(Setting(f'student, {kind}', path, (), steps))
  found.sort(key=lambda setting: setting.evaluations)
  return found[1:3] if args.smoke else found


def cost(kind, steps):
  """Returns the network evaluations of a sampler in so many steps."""
  grid = np.append(np.linspace(-9.0, 9.0, steps), np.inf)
  run = functools.partial(sampler_section.SAMPLERS[kind])
  return sampler_steps.evaluations(run, grid)


def measured(args, setting, runner):
  """Draws the images of a setting, and returns its row."""
  name = f'{setting.line.replace(", ", "_").replace(" ", "_")}'
  out = args.work / f'{name}_{setting.evaluations}'
  runner.run(
    [
      'upscale',
      f'--workdir={setting.model}',
      f'--held_out={args.num}',
      f'--out={out}',
      *setting.words,
    ],
    name,
  )
  scores = {}
  images = f'--samples={out / "upscaled"}', f'--reference={out / "original"}'
  for result, words in {
    'pairs.json': (
      f'--metrics={",".join(METRICS)}',
      f'--lowres={out / "lowres"}',
      f'--downsample={downsample(setting.model)}',
    ),
    'sets.json': ('--metrics=fd', f'--weights={args.weights}'),
  }.items():
    path = out / result
    runner.run(
      ['evaluate', *images, *words, f'--out={path}', '--overwrite'], name
    )
    scores |= json.loads(path.read_text(encoding='utf-8'))
  # The originals are the same every time.
  for folder in ('bicubic', 'lowres', 'original'):
    shutil.rmtree(out / folder, ignore_errors=True)
  return {
    'line': setting.line,
    'evaluations': setting.evaluations,
    'fd': scores['fd'],
    **{metric: scores[metric] for metric in METRICS},
    'bicubic': scores['bicubic'],
    'images': args.num,
    'command': runner.shown(
      ['upscale', f'--workdir={setting.model}', *setting.words]
    ),
    **claim_runner.circumstances(),
  }


def downsample(workdir):
  """Returns the filter that made the low-res images of a stage."""
  text = (workdir / 'config.json').read_text(encoding='utf-8')
  return json.loads(text)['lowres']['downsample']


def table(rows):
  """Returns the distances as Markdown: a line per sampler."""
  columns = sorted({row['evaluations'] for row in rows})
  text = f'| | {" | ".join(map(str, columns))} |\n'
  text += '|---' * (len(columns) + 1) + '|\n'
  for line in dict.fromkeys(row['line'] for row in rows):
    found = {r['evaluations']: r['fd'] for r in rows if r['line'] == line}
    cells = [f'{found[n]:.2f}' if n in found else '' for n in columns]
    text += f'| {line} | {" | ".join(cells)} |\n'
  return text


def page(rows):
  """Returns a page with the distance against the network evaluations."""
  lines = {}
  for row in rows:
    lines.setdefault(row['line'], []).append((row['evaluations'], row['fd']))
  chart = html_page.curve_svg(
    {line: sorted(points) for line, points in lines.items()},
    caption=(
      f'Fréchet distance of {rows[0]["images"]:,} held-out images against the '
      'network evaluations of one of them; lower is better.'
    ),
    axes=line_chart.Axes(
      x_label='network evaluations per image',
      y_label='Fréchet distance (lower is better)',
      log_x=True,
      log_y=True,
      dots=True,
    ),
    smoothing=0.0,
    size=(900, 420),
  )
  return html_page.build_page('Few steps', [('Quality against cost', [chart])])


if __name__ == '__main__':
  main()
