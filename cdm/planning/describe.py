"""Summarises the stages of a config: parameters, FLOPs, noise levels."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from cdm.config import built_stage
from cdm.models.flops import count_parameters
from cdm.reporting.text_table import columns, format_si, format_value


class StageDescription(TypedDict):
  """One stage of a cascade, as `describe_stage` returns it.

  Attributes:
    name: name of the stage.
    image_size: H = W of the network's input.
    lowres_size: h = w of the low-res input; None for a base model.
    parameters: number of scalars in the network's parameters.
    parameters_by_block: {first part of the parameter's name: number}.
    flops_per_image: FLOPs of one forward pass on one image, which is one
      sampling step without guidance.
    schedule: {label: value} of what the method does.
    paper: {label: value} of what the paper reports.
  """

  name: str
  image_size: int
  lowres_size: int | None
  parameters: int
  parameters_by_block: dict[str, int]
  flops_per_image: int
  schedule: dict[str, Any]
  paper: dict[str, Any]


def describe_stage(
  *,
  name: str,
  built: built_stage.Stage,
  paper: Mapping[str, Any] | None = None,
) -> StageDescription:
  """Describes one stage of a cascade without allocating its parameters.

  Args:
    name: name of the stage.
    built: what its config describes.
    paper: dict of JSON values that the paper reports; it is copied into the
      result.

  Returns:
    The description, a dict of JSON values.
  """
  params, flops = built.trace()
  by_block = {block: count_parameters(tree) for block, tree in params.items()}
  return {
    'name': name,
    'image_size': built.input_size,
    'lowres_size': built.lowres.size if built.lowres else None,
    'parameters': sum(by_block.values()),
    'parameters_by_block': by_block,
    'flops_per_image': flops,
    'schedule': dict(built.summary),
    'paper': dict(paper or {}),
  }


def format_stages(
  stages: Sequence[StageDescription], *, title: str = ''
) -> str:
  """Formats descriptions: a table of the stages, then the details of each.

  Args:
    stages: what `describe_stage` returned, in the order of the cascade.
    title: first line of the text; '' for none.
  """
  rows = [('stage', 'image', 'low-res', 'parameters', 'FLOPs per image')]
  for stage in stages:
    rows.append(
      (
        stage['name'],
        f'{stage["image_size"]}',
        '-' if stage['lowres_size'] is None else f'{stage["lowres_size"]}',
        f'{stage["parameters"]:,}',
        format_si(stage['flops_per_image'], 'FLOP'),
      )
    )
  lines = [title, ''] if title else []
  lines += columns(rows)
  for stage in stages:
    lines += ['', stage['name']]
    lines += section('schedule', stage['schedule'])
    blocks = {
      block: f'{n:>13,}  {n / max(stage["parameters"], 1):6.1%}'
      for block, n in by_level(stage['parameters_by_block']).items()
    }
    lines += section('parameters by block (--json: one by one)', blocks)
    lines += section('paper', stage['paper'])
  return '\n'.join(lines)


def by_level(blocks: Mapping[str, int]) -> dict[str, int]:
  """Adds up the parameters of the blocks of each level of the U-Net.

  'down_64_block_0', 'down_64_attention_0', 'down_64_to_32' become 'down_64'.

  Args:
    blocks: {name of a block: number of parameters}.
  """
  levels = {}
  for block, n in blocks.items():
    match = re.match(r'(mid|(?:down|up)_[0-9x]+)_', block)
    level = match[1] if match else block
    levels[level] = levels.get(level, 0) + n
  return levels


def section(title: str, values: Mapping[str, Any]) -> list[str]:
  """Returns a title and lines 'key  value'; no lines if `values` is empty."""
  if not values:
    return []
  rows = [(f'    {key}', format_value(value)) for key, value in values.items()]
  return [f'  {title}', *columns(rows)]
