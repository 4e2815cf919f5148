"""`cdm describe` prints parameters, FLOPs and sizes of a config's stages."""

import argparse

DESCRIPTION = """\
Print for every stage of a config: the number of parameters (in total and by
block), the forward FLOPs per image, image sizes, the schedule, and the numbers
that the paper reports. No accelerator is needed and no parameters are
allocated.
"""
EPILOG = """\
examples:
  cdm describe --config=configs/sr3_faces16to128.py
  cdm describe --config=configs/cdm_cascade256.py --json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='config of a stage or a cascade, configs/NAME.py',
  )
  parser.add_argument(
    '--json', action='store_true', help='print one JSON object'
  )
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
  """Prints the description of every stage."""
  import json
  import sys

  from cdm.config import (
    cascade_stages,
    instantiate,
    loader,
    stage_warnings,
  )
  from cdm.planning import all_stages, describe

  loaded = loader.load(args.config, args.overrides)
  instantiate.require(loaded, 'paper')
  stages, warnings = [], []
  for name, section, sampler, built in all_stages.build(loaded, args.config):
    instantiate.require(section, 'paper')
    stages.append(
      describe.describe_stage(
        name=name,
        built=built,
        paper=section.paper.to_dict(),
      )
    )
    key = 'sampler' if sampler is None else f'stages.{name}.sampler'
    found = stage_warnings.stage_warnings(built, sampler, sampler_key=key)
    warnings += [f'warning: {name}: {text}' for text in found]
  for line in warnings:
    print(line, file=sys.stderr)
  if args.json:
    print(json.dumps({'config': str(args.config), 'stages': stages}))
    return
  print(describe.format_stages(stages, title=str(args.config)))
  if cascade_stages.is_cascade(loaded):
    lines = describe.section('paper', loaded.paper.to_dict())
    print('\n'.join(['', 'the cascade', *lines]))
