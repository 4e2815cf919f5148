"""The largest batch per device of every stage, with each policy of remat.

  python benchmarks/largest_batch.py --out=rows.jsonl [--only=NAME]
  python benchmarks/largest_batch.py --out=rows.jsonl --table

Runs `cdm plan --search --quick` for each CDM and SR3 stage on the TPUs of one
host, which share the moments and the EMA between them (mesh.fsdp), as the hosts
of a pod do. One plan runs at a time, for hours in all; each appends a line, and
what is there is not planned again. A batch is accurate to an eighth, and with
the least effort of the compiler.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import plan_table  # noqa: E402
from cdm.models import unet_plan  # noqa: E402
from cdm.reporting import jsonl  # noqa: E402

TOPOLOGY = 'v6e:2x4'  # one host
SPLIT = 'mesh.fsdp=8'
# A search begins with one image on each device.
FIRST = 'train.batch_size=8'


def main(argv=None):
  args = parse(argv)
  done = {(row['config'], row['remat']) for row in jsonl.read(args.out)}
  for config in names():
    for remat in unet_plan.REMAT:
      if args.table or args.only not in config or (config, remat) in done:
        continue
      found = searched(config, remat)
      if found is not None:
        jsonl.append(args.out, [found])
  print(table(jsonl.read(args.out)))


def parse(argv):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--only', default='', help='configs with this in a name')
  parser.add_argument('--table', action='store_true', help='plan nothing')
  return parser.parse_args(argv)


def names():
  return [config for config, _, _ in plan_table.STAGES]


def searched(config, remat):
  """Returns the row of one search, or None where `cdm plan` fails."""
  print(f'{config} remat={remat}', file=sys.stderr, flush=True)
  settings = (SPLIT, FIRST, 'train.accumulation=1', f'model.remat={remat}')
  ran = subprocess.run(
    [
      *(sys.executable, '-m', 'cdm', 'plan', '--search', '--quick', '--json'),
      f'--config=configs/{config}.py',
      f'--topology={TOPOLOGY}',
      *(f'--config.{setting}' for setting in settings),
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    check=False,
  )
  if ran.returncode:
    print(f'  failed with code {ran.returncode}', file=sys.stderr)
    return None
  row = json.loads(ran.stdout)
  return {
    'config': config,
    'remat': remat,
    'topology': TOPOLOGY,
    'settings': settings,
    'compiler': row['compiler'],
    'device_bytes': row['device_bytes'],
    **row['search'],
  }


def table(rows):
  """Returns Markdown: a line per stage, a column per policy."""
  found = {(row['config'], row['remat']): row for row in rows}
  policies = unet_plan.REMAT
  lines = [
    f'| images per device | {" | ".join(f"`{p}`" for p in policies)} |',
    '|---' * (len(policies) + 1) + '|',
  ]
  for config in names():
    cells = [found.get((config, policy)) for policy in policies]
    if any(cells):
      counts = ['' if c is None else f'{c["batch_per_device"]}' for c in cells]
      lines.append(f'| `{config}` | {" | ".join(counts)} |')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
