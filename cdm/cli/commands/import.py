"""`cdm import` writes a work directory from published weights."""

import argparse
from typing import Any

DESCRIPTION = """\
Write a work directory from published weights, so that the other commands use
them as if they had been trained here: `cdm sample`, `cdm upscale`, `cdm
evaluate`, `cdm plan` and config.train.init_from. FAMILY is cdm (a file that
`cdm export` wrote), adm, which is guided-diffusion of OpenAI,
improved-diffusion, diffusers (the folder of a UNet2DModel or its pipeline), sr3
(Janspiry's) or stylegan (the folder of the files that PULSE downloads). What
the shapes in the file tell of its network is read from them; what they do not
tell is asked for by name. --from=FAMILY:NAME names a published network, of
which all is known, and downloads it if no FILE is given.
docs/public_weights.md lists them.

PyTorch's files and safetensors are read, of 16 or 32 bits. A file must hold
exactly the parameters of its network. Pickles in it are interpreted and never
run.

With --config in the place of --from, the files of StyleGAN are named one by
one, for configs with method.kind='pulse'. With a gaussian_fit in the place of
the mapping network, the generator can be searched by `cdm upscale`, but not
trained further.
"""
EPILOG = """\
examples:
  cdm import --from=adm:imagenet64 --out=runs/adm64
  cdm import --from=adm:upsample64to256 64_256_upsampler.pt --out=runs/up256
  cdm import --from=adm ema_0.9999_100000.pt --out=runs/ours --image_size=64 \\
      --head_features=64 --attention_order=new --schedule=cosine \\
      --timesteps=1000
  cdm import --from=cdm sr3.safetensors --out=runs/sr3
  cdm import --from=diffusers ddpm-cifar10-32/ --out=runs/ddpm32
  cdm import --from=sr3:faces16to128 I640000_E37_gen.pth --out=runs/sr3
  cdm import --from=stylegan pulse/cache --out=runs/pulse --lowres_size=16
  cdm import --config=configs/pulse_faces1024.py --workdir=runs/pulse \\
      --synthesis=synthesis.pt --mapping=mapping.pt
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    'file',
    nargs='?',
    metavar='FILE',
    help='file with the weights; of diffusers and stylegan, the folder',
  )
  parser.add_argument(
    '--from',
    dest='source',
    metavar='FAMILY[:NAME]',
    help='kind of the file, and which published network it is',
  )
  parser.add_argument('--out', metavar='DIR', help='a new work directory')
  parser.add_argument(
    '--name', metavar='NAME', help="name of the stage (default: FAMILY's)"
  )
  parser.add_argument(
    '--image_size', type=int, metavar='N', help='side of the images in pixels'
  )
  parser.add_argument(
    '--lowres_size',
    type=int,
    metavar='N',
    help='side of the low-res images of a super-resolution network',
  )
  parser.add_argument(
    '--num_heads',
    metavar='N[,N]',
    help='heads of attention; a second number is for the way up',
  )
  parser.add_argument(
    '--head_features', type=int, metavar='N', help='width of a head instead'
  )
  parser.add_argument(
    '--attention_order',
    choices=('legacy', 'new'),
    help='order of the channels of attention (use_new_attention_order)',
  )
  parser.add_argument(
    '--schedule',
    choices=('linear', 'cosine'),
    help='noise schedule that the network was trained with',
  )
  parser.add_argument(
    '--timesteps', type=int, metavar='T', help='steps of that schedule'
  )
  parser.add_argument(
    '--rescale_timesteps',
    choices=('true', 'false'),
    help='whether t was scaled to 0..1000 for every T (improved-diffusion)',
  )
  parser.add_argument(
    '--norm_groups', type=int, metavar='N', help='groups of GroupNorm (sr3)'
  )
  parser.add_argument(
    '--dropout',
    type=float,
    metavar='RATE',
    help='dropout for further training (default: 0)',
  )
  pulse = parser.add_argument_group('files of StyleGAN, for PULSE')
  pulse.add_argument(
    '--config', metavar='FILE', help='config of the stage, configs/NAME.py'
  )
  pulse.add_argument('--workdir', metavar='DIR', help='a new work directory')
  pulse.add_argument(
    '--synthesis', metavar='FILE', help="StyleGAN's synthesis network"
  )
  pulse.add_argument(
    '--mapping', metavar='FILE', help="StyleGAN's mapping network"
  )
  pulse.add_argument(
    '--gaussian_fit',
    metavar='FILE',
    help='mean and standard deviation of its outputs, in its place',
  )
  parser.set_defaults(overrides=[])


_PULSE = ('config', 'workdir', 'synthesis', 'mapping', 'gaussian_fit')
_ASKED = (
  *('image_size', 'lowres_size', 'num_heads', 'head_features'),
  *('attention_order', 'schedule', 'timesteps', 'rescale_timesteps'),
  *('norm_groups', 'dropout'),
)


def run(args: argparse.Namespace) -> None:
  """Reads the files and writes the work directory."""
  if args.source is None:
    _refuse(args, ('file', 'out', 'name', *_ASKED), 'belongs to --from=FAMILY')
    _needed(args, ('config', 'workdir', 'synthesis'), ' or --from=FAMILY')
    _run_pulse(args)
    return
  _refuse(args, _PULSE, 'belongs to files of StyleGAN, without --from')
  _needed(args, ('out',))
  if args.source == 'cdm':
    _refuse(args, _ASKED, 'is in the file')
    _run_packed(args)
  elif args.source == 'stylegan':
    _refuse(args, [a for a in _ASKED if a != 'lowres_size'], 'is for U-Nets')
    _run_stylegan(args)
  else:
    _run_unet(args)


def _run_packed(args: argparse.Namespace) -> None:
  import pathlib

  from cdm.training import imported_stage

  if args.file is None:
    raise ValueError(
      '--from=cdm needs the file that `cdm export` wrote: cdm import '
      '--from=cdm FILE.safetensors --out=DIR.'
    )
  workdir = pathlib.Path(args.out)
  made = imported_stage.read(
    args.file, workdir, name=args.name, overrides=args.overrides
  )
  print('\n'.join(imported_stage.write_workdir(made, workdir)))


def _run_stylegan(args: argparse.Namespace) -> None:
  import pathlib

  from cdm.config import loader
  from cdm.training import imported_stylegan, imported_weights

  if args.file is None:
    raise ValueError(
      '--from=stylegan needs the folder with the files: cdm import '
      '--from=stylegan FOLDER --out=DIR --lowres_size=16.'
    )
  workdir = pathlib.Path(args.out)
  imported_weights.check_new(workdir)
  made = imported_stylegan.read(
    pathlib.Path(args.file),
    name=args.name or args.source,
    lowres_size=args.lowres_size,
  )
  loader.override_all(made.config, args.overrides)
  lines = imported_weights.write_workdir(made.config, workdir, made.params)
  print('\n'.join(lines))
  print(f'Enlarge with: cdm upscale --workdir={workdir} IMAGE...')


def _run_unet(args: argparse.Namespace) -> None:
  import pathlib

  from cdm.config import loader
  from cdm.data import class_names
  from cdm.models.pretrained import (
    download,
    imagenet_classes,
    published_files,
  )
  from cdm.models.pretrained.published_unets import Asked
  from cdm.training import imported_unet, imported_weights

  family, name, preset = _source(args.source)
  said: dict[str, Any] = {key: getattr(args, key) for key in _ASKED}
  said['num_heads'] = _heads(args.num_heads)
  if args.rescale_timesteps is not None:
    said['rescale_timesteps'] = args.rescale_timesteps == 'true'
  asked = Asked(**said)
  if args.file is None and preset is None:
    raise ValueError(
      f'--from={args.source} needs the file with the weights: cdm import '
      f'--from={args.source} FILE --out=DIR. A published network is named as '
      f'--from={family}:NAME; docs/public_weights.md lists them.'
    )
  path = args.file
  if path is None:
    assert preset is not None
    path = published_files.fetch(name, preset)
  path = pathlib.Path(path)
  if preset is not None and path.is_file():
    download.verify(path, preset.sha256)
  workdir = pathlib.Path(args.out)
  imported_weights.check_new(workdir)
  made = imported_unet.read(
    family,
    path,
    name=args.name or name.replace(':', '_').replace('-', '_'),
    asked=asked,
    preset=preset,
  )
  loader.override_all(made.config, args.overrides)
  lines = imported_weights.write_workdir(made.config, workdir, made.params)
  if preset is not None and preset.fields.get('num_classes'):
    class_names.write(workdir, imagenet_classes.WORDNET_IDS)
  print('\n'.join(lines))
  if path.is_file():
    print(f'{path}: SHA-256 {download.digest(path)}')
  if preset is not None:
    print(f'{name}: {preset.where}, licence {preset.licence}')
  config = workdir / 'config.json'
  if made.config.lowres is None:
    print(f'Draw with: cdm sample --config={config} --workdir={workdir}')
  else:
    print(f'Enlarge with: cdm upscale --workdir={workdir} IMAGE...')


def _source(text: str):
  """Returns (family, name, preset or None) of --from."""
  from cdm.config import key_hints
  from cdm.models.pretrained import published_unets
  from cdm.training import imported_unet

  if text in imported_unet.FAMILIES:
    return text, text, None
  name = published_unets.ALIASES.get(text, text)
  preset = published_unets.PRESETS.get(name)
  if preset is None:
    near = key_hints.nearest(name, list(published_unets.PRESETS))
    hint = f' Did you mean {near}?' if near else ''
    raise ValueError(
      f'--from={text}: known are cdm, {", ".join(imported_unet.FAMILIES)}, '
      'stylegan, and the published networks '
      f'{", ".join(published_unets.PRESETS)}.{hint}'
    )
  return preset.family, name, preset


def _heads(text: str | None):
  """Returns the number of heads, or two; None if none were given."""
  if text is None:
    return None
  try:
    numbers = tuple(int(word) for word in text.split(','))
  except ValueError:
    numbers = ()
  if not 1 <= len(numbers) <= 2:
    raise ValueError(
      f'--num_heads={text}: give one whole number, or two: --num_heads=4,2.'
    )
  return numbers[0] if len(numbers) == 1 else numbers


def _refuse(args: argparse.Namespace, names, why: str) -> None:
  for name in names:
    if getattr(args, name) is not None:
      shown = getattr(args, name) if name == 'file' else f'--{name}'
      raise ValueError(f'{shown} {why}; leave it out.')


def _needed(args: argparse.Namespace, names, other: str = '') -> None:
  missing = [f'--{name}' for name in names if getattr(args, name) is None]
  if missing:
    raise ValueError(
      f'the following arguments are required: {", ".join(missing)}{other}.'
    )


def _run_pulse(args: argparse.Namespace) -> None:
  import pathlib

  from cdm.config import cascade_stages, instantiate, loader, stage
  from cdm.training import imported_weights

  c = loader.load(args.config, args.overrides)
  cascade_stages.refuse_cascade(c, 'imported')
  instantiate.require(c, 'method')
  if c.method.get('kind') != 'pulse':
    raise ValueError(
      f'{args.config} has method.kind={c.method.get("kind")!r}; published '
      "weights can be imported for method.kind='pulse', such as "
      'configs/pulse_faces1024.py.'
    )
  if (args.mapping is None) == (args.gaussian_fit is None):
    raise ValueError(
      'cdm import takes either --mapping or --gaussian_fit beside --synthesis; '
      'give one of the two.'
    )
  if args.gaussian_fit is not None:
    loader.override_all(c, imported_weights.SEARCHED_ONLY)
  built = stage.stage(c)
  params = imported_weights.read_stylegan(
    built,
    synthesis=args.synthesis,
    mapping=args.mapping,
    gaussian_fit=args.gaussian_fit,
  )
  lines = imported_weights.write_workdir(c, pathlib.Path(args.workdir), params)
  print('\n'.join(lines))
