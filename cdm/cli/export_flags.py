"""Adds and checks the flags of `cdm export` that belong to some forms only."""

import argparse
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cdm.data.printable_name import printable

# Flags that every form takes.
_ALWAYS = ('command', 'workdir', 'out', 'to', 'at', 'ema', 'overrides')


def program_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of a program."""
  group = parser.add_argument_group('programs (--to=stablehlo)')
  group.add_argument(
    '--program',
    metavar='KIND',
    help='denoiser, sampler or upscaler (default: the upscaler of a '
    'super-resolution stage, the sampler of another)',
  )
  group.add_argument(
    '--sampler', metavar='KIND', help="the sampler (default: the config's)"
  )
  group.add_argument(
    '--steps', metavar='N', help="steps of the sampler (default: the config's)"
  )
  group.add_argument(
    '--level',
    type=float,
    metavar='LEVEL',
    help='augmentation level in [0, 1] of the low-res input (default: 0)',
  )
  group.add_argument(
    '--tile',
    type=int,
    metavar='N',
    help='side of the low-res input, of a network that takes any',
  )
  group.add_argument(
    '--batch_size',
    type=int,
    metavar='N',
    help='number of images (default: any)',
  )
  group.add_argument(
    '--platforms',
    metavar='A,B',
    help='some of cpu, cuda and tpu (default: all)',
  )


def card_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags of a model card."""
  group = parser.add_argument_group('model cards (--to=huggingface)')
  group.add_argument(
    '--license',
    metavar='ID',
    help='licence of the weights, as Hugging Face abbreviates it, such as '
    'apache-2.0 or cc-by-nc-4.0',
  )
  group.add_argument(
    '--figures',
    action='append',
    metavar='FILE',
    help='a row that `cdm evaluate --out=FILE` wrote; may be given again',
  )


def licence(text: str | None) -> str:
  """Checks --license.

  Raises:
    ValueError: it is missing, or no abbreviation.
  """
  if text is None:
    raise ValueError(
      '--license is missing: a model card says under which licence weights are '
      'passed on; give it, such as --license=apache-2.0.'
    )
  if not re.fullmatch(r'[a-z0-9][a-z0-9.-]*', text):
    raise ValueError(
      f'--license={text}: give an abbreviation of small letters, digits, dots '
      'and dashes, such as apache-2.0.'
    )
  return text


def figures(paths: Sequence[str]) -> list[Any]:
  """Reads --figures, a list of `model_card.Figure`.

  Raises:
    ValueError: a file is no row of `cdm evaluate`.
  """
  from cdm.data.files import json_file
  from cdm.evaluation import metrics_table, result_line
  from cdm.sampling import model_card

  found = []
  for path in paths:
    try:
      row = json_file.read(
        path, dict[str, Any], remedy='Give a row of `cdm evaluate --out`.'
      )
    except OSError as error:
      raise ValueError(f'--figures={path}: {error}.') from None
    named = {'n', 'samples'} <= row.keys()
    data = '; '.join(result_line.describe_sets(row)) if named else ''
    known = [
      model_card.Figure(name, shown.heading, shown.text(row[name]), data)
      for name, shown in metrics_table.numbers().items()
      if named and isinstance(row.get(name), int | float)
    ]
    if not known:
      raise ValueError(
        f'--figures={path} holds no number of a metric; give a row that `cdm '
        'evaluate --out` wrote.'
      )
    found += known
  return found


def refuse_others(
  args: argparse.Namespace, taken: Mapping[str, Sequence[str]]
) -> None:
  """Raises ValueError for a flag that the form does not take.

  Args:
    args: the parsed arguments.
    taken: {form: its flags}.
  """
  for name, value in vars(args).items():
    if name in (*_ALWAYS, *taken[args.to]) or value is None:
      continue
    forms = [form for form in taken if name in taken[form]]
    if forms:
      raise ValueError(
        f'--{name} is for --to={" and --to=".join(forms)}, and this is '
        f'--to={args.to}; leave it out.'
      )
  for name in ('tile', 'batch_size'):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise ValueError(f'--{name}={value}: it must be at least 1.')


def check_suffix(out: pathlib.Path, suffix: str) -> None:
  """Raises ValueError unless a file has the ending of its form."""
  if out.suffix != suffix:
    raise ValueError(
      f'--out={printable(out)} is to be a {suffix} file; give it this ending.'
    )


def check_folder(out: pathlib.Path) -> None:
  """Raises ValueError if there is a file in the place of a folder."""
  if out.exists() and not out.is_dir():
    raise ValueError(
      f'--out={printable(out)} is a file, and a folder is written; give '
      'another name.'
    )


def platforms(text: str | None) -> tuple[str, ...]:
  """Parses --platforms.

  Raises:
    ValueError: a platform is not known.
  """
  from cdm.sampling import exported_program

  known = exported_program.PLATFORMS
  if text is None:
    return known
  found = tuple(text.split(','))
  if not set(found) <= set(known) or len(set(found)) != len(found):
    raise ValueError(
      f'--platforms={text}: give some of {", ".join(known)}, with commas '
      'between them.'
    )
  return found


def asked_program(args: argparse.Namespace) -> Any:
  """Returns the `exported_program.Asked` that the flags say.

  Raises:
    ValueError: a flag has no such value.
  """
  from cdm.cli import drawing_flags
  from cdm.config import redrawn_sampler
  from cdm.sampling import exported_program

  if args.program not in (None, *exported_program.KINDS):
    raise ValueError(
      f'--program={args.program}: known are '
      f'{", ".join(exported_program.KINDS)}.'
    )
  if args.program == 'denoiser':
    for name in ('sampler', 'steps', 'level', 'tile'):
      if getattr(args, name) is not None:
        raise ValueError(
          f'--{name} is for a program that draws, and --program=denoiser '
          'evaluates the network once; leave it out.'
        )
  redraw = redrawn_sampler.of_single(drawing_flags.redraws(args))
  return exported_program.Asked(
    args.program, redraw, args.level or 0.0, args.tile
  )
