"""Renders the table of models in docs/reproduction.md from `cdm describe`.

  python benchmarks/model_table.py           # prints the table
  python benchmarks/model_table.py --write   # puts it into the document

A test compares the document with what this script renders. Nothing is
compiled or allocated; all networks together take ten seconds.
"""

import argparse
import contextlib
import io
import json
import pathlib
import re

from cdm.cli import main as cli
from cdm.reporting.text_table import format_si

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / 'docs' / 'reproduction.md'
# The diffusion networks of the two papers, in the order of the cascades.
CONFIGS = (
  'cdm_imagenet32',
  'cdm_imagenet32to64',
  'cdm_imagenet64to128',
  'cdm_imagenet64to256',
  'cdm_imagenet64',
  'cdm_imagenet16',
  'cdm_imagenet16to64',
  'sr3_faces16to128',
  'sr3_faces16to128_regression',
  'sr3_faces64to256',
  'sr3_faces64to512',
  'sr3_faces256to1024',
  'sr3_faces64',
  'sr3_imagenet64to256',
  'sr3_imagenet64to256_regression',
  'sr3_imagenet64to256_blur',
  'sr3_imagenet64',
)
HEAD = (
  '| config | parameters | the paper states | forward pass, one image |\n'
  '|---|---|---|---|\n'
)
TABLE = re.compile(re.escape(HEAD) + r'(?:\|.*\n)+')


def describe(name):
  """Returns the stage that `cdm describe --json` prints for a config."""
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    path = ROOT / 'configs' / f'{name}.py'
    code = cli.main(['describe', f'--config={path}', '--json'])
  if code:
    raise SystemExit(f'cdm describe of {name} ended with exit code {code}.')
  (stage,) = json.loads(printed.getvalue())['stages']
  return stage


def row(name):
  """Returns the line of the table for one config."""
  stage = describe(name)
  stated = ''
  if 'parameters' in stage['paper']:
    stated = f' {stage["paper"]["parameters"] / 1e6:.0f}M'
    if 'Improved DDPM' in stage['paper']['source']:
      stated += ', by Improved DDPM'
  flops = format_si(stage['flops_per_image'], 'FLOP')
  return f'| `{name}` | {stage["parameters"]:,} |{stated} | {flops} |\n'


def table():
  """Returns the whole table as Markdown."""
  return HEAD + ''.join(row(name) for name in CONFIGS)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--write', action='store_true')
  args = parser.parse_args()
  if not args.write:
    print(table(), end='')
    return
  text, found = TABLE.subn(
    lambda _: table(), DOCUMENT.read_text(encoding='utf-8')
  )
  if found != 1:
    raise SystemExit(f'{DOCUMENT} has {found} tables of models, not one.')
  DOCUMENT.write_text(text, encoding='utf-8')


if __name__ == '__main__':
  main()
