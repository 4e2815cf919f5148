"""Describes the stages of a config: parameters, FLOPs, noise levels."""

import re

from cdm.config.sampler_section import grid
from cdm.models.flops import count, trace
from cdm.reporting.text_table import columns, plain, si


def schedule_summary(c, built, sampler=None):
  """-> JSON-able dict of a stage's noise levels, for people to read."""
  if built.tester is not None:
    recipe = built.objective
    return {
      'method': 'classifier',
      'images': f'{c.pipeline.image_size} px',
      'random crops': f'area {recipe.crop_scale}, aspect {recipe.crop_ratio}',
      'flips': recipe.flip,
      'label smoothing': recipe.label_smoothing,
      'batches of the statistics': recipe.statistics_batches,
    }
  sampler = c.sampler if sampler is None else sampler
  lowres = {}
  if c.lowres is not None:
    lowres = {'lowres': f'{c.lowres.downsample} to {c.lowres.size}'}
    lowres['augmentation'] = c.lowres.augment
  return {
    'schedule': c.schedule.kind,
    'training steps T': c.schedule.num_steps,
    'noise levels': built.objective.levels,
    'prediction': built.objective.prediction,
    'loss': built.objective.loss,
    'logsnr range': [
      round(float(built.schedule.logsnr[-1]), 2),
      round(float(built.schedule.logsnr[0]), 2),
    ],
    'sampler': sampler['kind'],
    'sampling steps': len(grid(built.schedule, sampler['grid'])) - 1,
    **lowres,
  }


def describe_stage(
  *, name, net, image_size, lowres_size=None, schedule=None, paper=None
):
  """Describes one stage of a cascade; no parameter is allocated.

  Args:
    name: what the stage is called.
    net: a `models.unet.UNet` or a `models.resnet.ResNet50`.
    image_size: H = W of what the network is given.
    lowres_size: h = w of its low-res input, None for a base.
    schedule: JSON-able dict about noise levels, steps and sampler, passed on.
    paper: JSON-able dict of what the paper reports, passed on.

  Returns:
    JSON-able dict: 'name', 'image_size', 'lowres_size', 'parameters' (int),
    'parameters_by_block' ({first part of the parameter's name: int}),
    'flops_per_image' (int, one forward pass of one image: a sampling step
    without guidance), 'schedule', 'paper'.
  """
  params, flops = trace(net, image_size, lowres_size is not None)
  by_block = {block: count(tree) for block, tree in params.items()}
  return {
    'name': name,
    'image_size': image_size,
    'lowres_size': lowres_size,
    'parameters': sum(by_block.values()),
    'parameters_by_block': by_block,
    'flops_per_image': flops,
    'schedule': dict(schedule or {}),
    'paper': dict(paper or {}),
  }


def format_stages(stages, *, title=''):
  """-> text: a table of the stages, then the blocks and numbers of each.

  Args:
    stages: what `describe_stage` returned, in order.
    title: a line to put on top.
  """
  rows = [('stage', 'image', 'low-res', 'parameters', 'FLOPs per image')]
  for stage in stages:
    rows.append(
      (
        stage['name'],
        f'{stage["image_size"]}',
        '-' if stage['lowres_size'] is None else f'{stage["lowres_size"]}',
        f'{stage["parameters"]:,}',
        si(stage['flops_per_image'], 'FLOP'),
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


def by_level(blocks):
  """{block: n} -> the same with the blocks of one level added up.

  'down_64_block_0', 'down_64_attention_0', 'down_64_to_32' become 'down_64'.
  """
  levels = {}
  for block, n in blocks.items():
    found = re.match(r'(mid|(?:down|up)_[0-9x]+)_', block)
    level = found[1] if found else block
    levels[level] = levels.get(level, 0) + n
  return levels


def section(title, values):
  """-> indented lines 'key  value' under a title; none if there are none."""
  if not values:
    return []
  rows = [(f'    {key}', plain(value)) for key, value in values.items()]
  return [f'  {title}', *columns(rows)]
