"""`cdm plan` predicts whether a config fits a TPU slice and what it costs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from cdm.planning import plan_types

DESCRIPTION = """\
Compile the step that a config will run, for one or more slices of TPUs, GPUs or
this CPU, and print for each whether the step fits, its FLOPs and memory
traffic, and an estimate of time and cost. No accelerator is needed. To compile
for TPUs you need Linux on x86-64 and libtpu, of the extra cdm[plan]; without it
the command says how to install it. Compiling a large network takes minutes; the
results are cached.
"""
EPILOG = """\
examples:
  cdm plan --config=configs/cdm_imagenet64.py --topology=v5e:16x16
  cdm plan --config=configs/cdm_imagenet64.py --topology=v5e:16x16 \\
      --config.mesh.fsdp=8 --config.model.remat=convolutions --json
  cdm plan --config=configs/sr3_faces64.py --topology=v5e:4x4 \\
      --topology=v6e:4x4 --search --deadline=7 --price=v6e=2.70
  cdm plan --config=configs/sr3_faces64.py --topology=v6e:2x2 --step=sample
  cdm plan --config=configs/faces_small_64.py --topology=l4:1 --topology=cpu:1
  cdm plan --config=configs/cdm_imagenet64.py --topology=v5e:16x16 \\
      --num_slices=2

topologies:
  KIND:AxB or KIND:AxBxC states the chips along each axis of a TPU slice, such
  as v3:8x16 (256 devices: two per chip), v4:4x4x8, v5e:16x16, v5p:4x4x8,
  v6e:16x16, tpu7x:4x4x8. l4:1, a100:8, a100-80gb:8, h100:8, h200:8, b200:8,
  l40s:1, t4:1 and v100:1 are GPUs of one machine; the step is then compiled for
  CPUs, so that memory and time are rough. cpu:N is N simulated devices of this
  CPU. With --num_slices=S, or ':S' at the end (v5e:16x16:2, h100:8:4), it is S
  slices of TPUs or S machines of GPUs, which the data center network joins.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--config', required=True, metavar='FILE', help='config of one stage'
  )
  parser.add_argument(
    '--topology',
    action='append',
    required=True,
    metavar='SLICE',
    help='for example v5e:16x16; may be repeated',
  )
  parser.add_argument(
    '--num_slices',
    type=int,
    metavar='S',
    help='number of such slices, or of machines with GPUs (default: 1)',
  )
  parser.add_argument(
    '--step',
    choices=('train', 'sample'),
    default='train',
    help='program to plan: a training step, or sampling (default: train)',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images per batch of --step=sample (default: 64)',
  )
  parser.add_argument(
    '--search',
    action='store_true',
    help='find the largest batch that fits, accurate to 1/8; with '
    '--step=sample, what --batch_per_device of cdm sample may be',
  )
  parser.add_argument(
    '--deadline',
    type=float,
    metavar='DAYS',
    help='name the cheapest slice that finishes within DAYS',
  )
  parser.add_argument(
    '--price',
    action='append',
    default=[],
    metavar='X',
    help='dollars per chip-hour, or KIND=X; may be repeated',
  )
  parser.add_argument(
    '--quick',
    action='store_true',
    help='compile with the least effort, in about a third of the time; memory '
    'and bytes moved are then approximate',
  )
  parser.add_argument(
    '--fresh',
    action='store_true',
    help='compile again instead of using cached results',
  )
  parser.add_argument(
    '--json', action='store_true', help='print one JSON object per topology'
  )
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
  """Plans one slice after the other and prints each plan when it is done."""
  import json
  import sys

  from cdm.config import cascade_stages, loader, stage_warnings
  from cdm.distributed import device_specs
  from cdm.planning import (
    all_stages,
    compile_process,
    plan_text,
    roofline,
    search,
  )

  check(args)
  prices = device_specs.parse_prices(args.price)
  pieces = compile_process.check(
    [device_specs.with_slices(t, args.num_slices) for t in args.topology]
  )
  # Errors appear before anything is compiled.
  loaded = loader.load(args.config, args.overrides)
  stages = all_stages.build(loaded, args.config)
  cascade_stages.refuse_cascade(loaded, 'planned')
  for text in stage_warnings.stage_warnings(stages[0].built):
    print(f'warning: {text}', file=sys.stderr)
  rows = []
  for piece in pieces:
    facts = measure(args, piece.topology)
    row = roofline.row(facts, prices)
    if args.search:
      row['search'] = find_largest(args, facts)
    rows.append(row)
    if args.json:
      print(json.dumps(row), flush=True)
      continue
    if len(rows) == 1:
      print(plan_text.head(row))
    print(f'\n{plan_text.plan(row)}')
    if args.search:
      line = largest_line(row['search'], args.step)
      print(f'  {line}', flush=True)
  if not args.json and len(rows) > 1:
    print(f'\n{plan_text.comparison(rows)}')
  if args.deadline is not None:
    best = search.cheapest(rows, deadline_days=args.deadline)
    stream = sys.stderr if args.json else sys.stdout
    print(f'\n{plan_text.choice(best, args.deadline)}', file=stream)


def check(args: argparse.Namespace) -> None:
  """Raises ValueError if options contradict each other or are out of range."""
  if args.batch_size is not None and args.step != 'sample':
    raise ValueError(
      '--batch_size is for --step=sample; for a training step set '
      '--config.train.batch_size.'
    )
  if args.batch_size is not None and args.batch_size < 1:
    raise ValueError(
      f'--batch_size is {args.batch_size}; it must be at least 1.'
    )
  if args.deadline is not None and not args.deadline > 0:
    raise ValueError(
      f'--deadline is {args.deadline}; give a number of days above 0.'
    )


def measure(
  args: argparse.Namespace,
  topology: str,
  *,
  batch_size: int | None = None,
  note: str = '',
) -> plan_types.Facts:
  """Compiles the program for one slice in a child process.

  Args:
    args: the parsed arguments.
    topology: the slice.
    batch_size: replaces the batch size of the config or the flag, if given.
    note: text to append to the line of progress.

  Returns:
    What `compilation.measure` returns.
  """
  from cdm.planning import compile_process

  overrides = [list(pair) for pair in args.overrides]
  if batch_size and args.step == 'train':
    overrides.append(['train.batch_size', str(batch_size)])
  request: plan_types.Request = {
    'config': args.config,
    'overrides': overrides,
    'topology': topology,
    'step': args.step,
    'batch_size': batch_size or args.batch_size or 64,
    'quick': args.quick,
    'keep': compile_process.cache_folder(),
    'fresh': args.fresh,
  }
  return compile_process.compile_in_process(
    request, label=f'compiling for {topology}{note}'
  )


def find_largest(
  args: argparse.Namespace, facts: plan_types.Facts
) -> plan_types.Largest:
  """Finds the largest batch that fits on a slice, accurate to 1/8.

  Args:
    args: the parsed arguments.
    facts: what `measure` returned for the batch size of the config.

  Returns:
    The largest batch, and every batch size that was compiled.
  """
  import sys

  from cdm.planning import plan_text, search

  parts = facts['mesh']['data'] * facts['mesh']['fsdp'] * facts['accumulation']
  tried = {}

  def share(n):
    if n * parts not in tried:
      measured = facts
      if n * parts != facts['batch_size']:
        images = n * facts['accumulation']
        measured = measure(
          args,
          facts['topology'],
          batch_size=n * parts,
          note=f', {images} images per part of the batch',
        )
        print(
          f'  {images} images: {plan_text.verdict(measured)}', file=sys.stderr
        )
      tried[n * parts] = measured
    found = tried[n * parts]
    needed = found['peak_bytes_per_device'] / found['device_bytes']
    # What decides is whether it fits; TPUs report a full memory as fitting.
    return min(needed, 1.0) if found['fits'] else max(needed, 1.001)

  n = search.largest(share, start=facts['batch_size'] // parts)
  return {
    'batch_per_device': n * facts['accumulation'],
    'batch_size': n * parts,
    'tried': [
      {
        'batch_size': size,
        'fits': measured['fits'],
        'peak_bytes_per_device': measured['peak_bytes_per_device'],
      }
      for size, measured in sorted(tried.items())
    ],
  }


def largest_line(largest: plan_types.Largest, step: str) -> str:
  """Returns a line of text about what `find_largest` returned.

  Args:
    largest: what it returned.
    step: 'train' or 'sample', the program that was planned.
  """
  if not largest['batch_size']:
    return 'largest batch: not even one image per part of the batch fits'
  return (
    f'largest batch that fits, to an eighth: {largest["batch_per_device"]:,} '
    f'images per part of the batch, {largest["batch_size"]:,} in all'
    + (
      f': cdm sample --batch_per_device={largest["batch_per_device"]} (of a '
      'cascade, the smallest of its stages)'
      if step == 'sample'
      else ''
    )
  )
