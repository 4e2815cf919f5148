"""`cdm describe`: what a config builds and costs, without building it."""

DESCRIPTION = """\
Print, for every stage of a config: parameters (in all and by block), forward
FLOPs per image, sizes, schedule, and the numbers that the paper reports.
Needs no accelerator and allocates no parameters.
"""
EPILOG = """\
examples:
  cdm describe --config=configs/sr3_faces16to128.py
  cdm describe --config=configs/cdm_cascade256.py --json
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--config', required=True, metavar='FILE', help='configs/NAME.py'
  )
  parser.add_argument(
    '--json', action='store_true', help='print one JSON object'
  )
  parser.set_defaults(overrides=[])


def run(args):
  """Prints the description."""
  import json

  from cdm.config import cascade_stages, loader, stage
  from cdm.planning import describe

  loaded = loader.load(args.config, args.overrides)
  stages = []
  for name, section, sampler in cascade_stages.stage_configs(
    loaded, args.config
  ):
    built = stage.stage(section, sampler)
    stages.append(
      describe.describe_stage(
        name=name,
        net=built.net,
        image_size=built.input_size,
        lowres_size=built.lowres.size if built.lowres else None,
        schedule=describe.schedule_summary(section, built, sampler),
        paper=section.paper.to_dict(),
      )
    )
  if args.json:
    print(json.dumps({'config': str(args.config), 'stages': stages}))
    return
  print(describe.format_stages(stages, title=str(args.config)))
  if cascade_stages.is_cascade(loaded):
    lines = describe.section('paper', loaded.paper.to_dict())
    print('\n'.join(['', 'the cascade', *lines]))
