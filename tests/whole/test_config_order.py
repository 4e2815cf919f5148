"""Every config is written in one order, so that two can be compared."""

import ast
import pathlib
import re

import pytest

CONFIGS = sorted(
  (pathlib.Path(__file__).resolve().parents[2] / 'configs').glob('*.py')
)
# What distinguishes an experiment stands first, what is alike in all last.
SECTIONS = (
  'name seed train_data eval_data stages pipeline schedule lowres model '
  'method sampler optimizer ema train eval paper mesh'
).split()
TRAIN = (
  'batch_size num_steps accumulation log_every_steps sample_every_steps '
  'num_samples sample_steps save_every_steps keep_checkpoints keep_every_steps '
  'on_divergence max_rollbacks grad_norm_spike_factor watchdog_factor '
  'watchdog_seconds profile_steps wandb'
).split()
EVAL = (
  'every_steps batches num_pairs fid_every_steps fid_num fid_reference '
  'fid_weights sampler_steps best level'
).split()


def sections(path):
  """-> {section: keys} of a config, both in the order of the file."""
  found = {}
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Assign) and isinstance(
      node.targets[0], ast.Attribute
    ):
      keywords = getattr(node.value, 'keywords', [])
      found[node.targets[0].attr] = [keyword.arg for keyword in keywords]
  return found


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_sections_of_a_config_have_one_order(path):
  found = sections(path)
  assert list(found) == [name for name in SECTIONS if name in found]
  if 'train' in found:
    assert found['train'] == TRAIN
  if 'eval' in found:
    assert found['eval'] == EVAL


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_comment_beside_a_value_is_complete_on_its_line(path):
  for line in path.read_text(encoding='utf-8').splitlines():
    comment = re.search(r'\S.*  # (.*)', line)
    if comment:
      last = re.split(r'\W+', comment[1].rstrip('.'))[-1]
      assert last not in ('and', 'or', 'of', 'the', 'a', 'times'), line
