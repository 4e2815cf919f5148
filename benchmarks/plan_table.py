"""Plans every CDM and SR3 stage on its paper's hardware and on a current slice.

  python benchmarks/plan_table.py --out=plans.jsonl
  python benchmarks/plan_table.py --out=plans.jsonl --table
  python benchmarks/plan_table.py --out=plans.jsonl --reestimate

The first runs `cdm plan`, one plan in a process of its own at a time, for hours
in all, and appends a line to plans.jsonl for each; what is there is not planned
again, so it can be stopped and started. Where a config does not fit as it is,
the settings of LADDER are tried in turn until one does. The second prints the
Markdown table of what is there, and plans nothing. The third does so too, after
it has made the estimates anew from the facts that the rows hold (FLOPs, bytes,
steps), as it must when a number of `cdm/distributed/device_specs.py` changes;
what the compiler said stays. A row of REPLICATED, without
the split of the state inside a host, stands where the config as it is has not
been planned, and beside it where it has.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the cdm of this checkout

from cdm.data.files import atomic_files  # noqa: E402
from cdm.planning import roofline  # noqa: E402

# (config, a current slice, the paper's hardware), from small to large. Cores
# are the paper's where it is known to state them (all UNVERIFIED, see the
# configs); elsewhere a slice of TPU v3 that the batch divides over, marked '*'.
STAGES = (
  ('sr3_faces64', 'v6e:8x8', 'v3:8x8*'),
  ('cdm_imagenet16', 'v6e:16x16', 'v3:8x16*'),
  ('sr3_faces256to1024', 'v6e:8x8', 'v3:8x8*'),
  ('cdm_imagenet16to64', 'v6e:16x16', 'v3:8x16*'),
  ('cdm_imagenet64', 'v6e:16x16', 'v3:8x16*'),
  ('sr3_imagenet64', 'v6e:16x16', 'v3:8x16*'),
  ('sr3_faces16to128', 'v6e:8x8', 'v3:8x8*'),
  ('cdm_imagenet64to128', 'v6e:16x16', 'v3:4x8'),
  ('sr3_faces64to256', 'v6e:8x8', 'v3:8x8*'),
  ('sr3_imagenet64to256', 'v6e:8x8', 'v3:8x8*'),
  ('sr3_imagenet64to256_blur', 'v6e:8x8', 'v3:8x8*'),
  ('sr3_faces64to512', 'v6e:8x8', 'v3:8x8*'),
  ('cdm_imagenet64to256', 'v6e:16x16', 'v3:8x8'),
  ('cdm_imagenet32to64', 'v6e:16x16', 'v3:8x16'),
  ('cdm_imagenet32', 'v6e:16x16', 'v3:8x16'),
)
# The largest ones, on the newest chip too.
NEWEST = (
  ('sr3_faces64to512', 'tpu7x:4x4x4'),
  ('cdm_imagenet64to256', 'tpu7x:4x4x8'),
  ('cdm_imagenet32', 'tpu7x:4x4x8'),
)
# From what costs least time to what costs most.
LADDER = (
  (),
  ('model.remat=convolutions',),
  ('model.remat=full',),
  ('model.remat=full', 'train.accumulation=2'),
  ('model.remat=full', 'train.accumulation=4'),
  ('model.remat=full', 'train.accumulation=8'),
)
REPLICATED = ('mesh.fsdp=1',)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--table', action='store_true')
  parser.add_argument('--reestimate', action='store_true')
  parser.add_argument(
    '--quick', action='store_true', help='compile with least effort'
  )
  parser.add_argument(
    '--only', default='', metavar='NAME', help='configs with this in the name'
  )
  args = parser.parse_args()
  if args.reestimate:
    reestimate(args.out)
  elif not args.table:
    for config, topology in places():
      if args.only in config:
        climb(config, topology, args.out, quick=args.quick)
  print(table(read(args.out)))


def places():
  """-> [(config, topology), ...]: the papers' hardware, then current slices."""
  papers = [(config, then.rstrip('*')) for config, _, then in STAGES]
  return papers + [(config, now) for config, now, _ in STAGES] + [*NEWEST]


def climb(config, topology, out, *, quick):
  """Plans a config with one setting after the other until it fits.

  A row that took full effort also stands where the least is asked for.
  """
  for settings in LADDER:
    known = read(out)
    key = (config, topology, settings)
    if key not in known or (known[key].get('quick') and not quick):
      row = plan(*key, quick=quick)
      if row is None:
        return
      with out.open('a', encoding='utf-8') as file:
        file.write(json.dumps({'key': key, **row}) + '\n')
      known = read(out)
    if known[key]['fits']:
      return


def plan(config, topology, settings, *, quick):
  """-> what `cdm plan --json` says, or None where it fails."""
  words = [f'--config.{setting}' for setting in settings]
  words += ['--quick'] if quick else []
  print(f'{config} {topology} {" ".join(settings)}', file=sys.stderr)
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'cdm', 'plan', '--json'),
      f'--config=configs/{config}.py',
      f'--topology={topology}',
      *words,
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    encoding='utf-8',
  )
  if done.returncode:
    print(f'  failed with code {done.returncode}', file=sys.stderr)
    return None
  return json.loads(done.stdout)


def reestimate(out):
  """Makes the estimate of every row anew, and says how many differ."""
  rows = list(read(out).values())
  made = [estimated(row) for row in rows]
  changed = sum(row != before for row, before in zip(made, rows, strict=True))
  text = ''.join(json.dumps(row) + '\n' for row in made)
  atomic_files.write_text_atomically(out, text)
  print(f'{changed} of {len(rows)} rows have changed.', file=sys.stderr)


def estimated(row):
  """-> a row with the estimate that follows from its facts today.

  Rows of before evaluations were counted have none.
  """
  facts = {'evaluation_steps': 0, **row}
  return {**row, 'estimate': roofline.row(facts, {})['estimate']}


def read(path):
  """-> {(config, topology, settings): row}."""
  if not path.exists():
    return {}
  rows = [
    json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()
  ]
  return {(c, t, tuple(s)): row for row in rows for c, t, s in [row['key']]}


def table(rows):
  """-> Markdown: a line per config and slice."""
  heads = (
    'config',
    'slice',
    'images per device',
    'fits',
    'peak per device',
    'repeated',
    'model / compiled FLOPs',
    'est. step',
    'est. days',
    'est. chip-hours',
    'est. cost',
    'compile',
  )
  lines = ['| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
  guessed = {(c, then[:-1]) for c, _, then in STAGES if then.endswith('*')}
  for config, topology in places():
    tried = [
      rows[config, topology, settings]
      for settings in LADDER
      if (config, topology, settings) in rows
    ]
    replicated = rows.get((config, topology, REPLICATED))
    if tried or replicated:
      mark = '*' if (config, topology) in guessed else ''
      cells = line(config, topology + mark, tried or [replicated], replicated)
      lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def line(config, topology, tried, replicated):
  """-> cells of one config on one slice."""
  first, last = tried[0], tried[-1]
  found = last['estimate']
  with_ = ', '.join(f'`{setting}`' for setting in last['key'][2])
  fits = f'with {with_}' if with_ else 'as it is'
  if not last['fits']:
    fits = f'not {fits}'
  elif not first['fits']:
    fits += f'; as it is {gib(first["peak_bytes_per_device"])} are needed'
  if replicated not in (None, last):
    fits += f'; {gib(replicated["peak_bytes_per_device"])} with `mesh.fsdp=1`'
  peak, limit = last['peak_bytes_per_device'], last['device_bytes']
  cells = ('-',) * 5
  if found:
    cells = (
      f'{last["model_to_compiled_flops"]:.2f}',
      f'{found["step_seconds"]:.3g} s',
      f'{found["days"]:,.3g}',
      f'{found["chip_hours"]:,.0f}',
      '-' if found['dollars'] is None else f'${found["dollars"]:,.0f}',
    )
  return (
    config,
    topology,
    f'{last["batch_per_device"]:g}',
    fits,
    f'{gib(peak)} of {gib(limit)}',
    '-' if not last['fits'] else f'{last["compiler_rematerialized"]:,}',
    *cells,
    f'{last["compile_seconds"]:.0f} s'
    + (' (quick)' if last.get('quick') else ''),
  )


def gib(size):
  """-> '12.3 GiB'."""
  return f'{size / 2**30:.1f} GiB'


if __name__ == '__main__':
  main()
