"""The models of `train_step.py`: a config each, with what differs from it.

A network follows its config in configs/, so that what is measured is what is
trained. Where a published network has no config of its own, the overrides
state it.
"""

import pathlib
from typing import NamedTuple

from cdm.config import loader

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / 'configs'


class Model(NamedTuple):
  """A model that can be measured.

  Attributes:
    config: file in configs/.
    batch: images of a step, unless --batch says otherwise. All of them are
      ours: what a CPU, or one GPU with 80 GB, can hold beside a peer.
    overrides: (dotted key, text) pairs.
  """

  config: str
  batch: int
  overrides: tuple[tuple[str, str], ...] = ()


MODELS = {
  # Everything that a stage can have, at 16 x 16 pixels: a smoke test.
  'small': Model('smoke_sr.py', 4),
  # 22.3M parameters at 32 x 32: what two cores train in about a second.
  'cpu22m': Model(
    'cdm_imagenet32.py',
    16,
    (
      ('model.features', '64'),
      ('model.multipliers', '(1, 2, 3, 4)'),
      ('model.num_blocks', '2'),
      ('model.attention_resolutions', '(16, 8)'),
      ('model.num_heads', '4'),
      ('model.resample', 'conv'),
      ('model.dropout', '0.0'),
      ('model.learned_variance', 'False'),
      ('model.dtype', 'float32'),
      ('method.loss', 'simple'),
      ('sampler.variance', 'beta'),
    ),
  ),
  # [ADM]'s flags for ImageNet 64, as the README of its code has them: 295.9M.
  # cdm_imagenet64 is [IDDPM]'s network, from which these differ.
  'adm64': Model(
    'cdm_imagenet64.py',
    32,
    (
      ('schedule.num_steps', '1000'),
      ('model.attention_resolutions', '(32, 16, 8)'),
      ('model.num_heads', '1'),
      ('model.head_features', '64'),
      ('model.resample', 'biggan'),
      ('model.dropout', '0.1'),
    ),
  ),
  'cdm64to256': Model('cdm_imagenet64to256.py', 4),
  'sr3_16to128': Model('sr3_faces16to128.py', 8),
}


def load(
  config: pathlib.Path,
  overrides: tuple[tuple[str, str], ...],
  *,
  batch: int | None,
  dtype: str | None,
) -> loader.ConfigDict:
  """Loads a config as one device is to train it.

  Args:
    config: path of the file.
    overrides: (dotted key, text) pairs.
    batch: images of a step; None for the batch of the config.
    dtype: 'float32' or 'bfloat16', the dtype of computation; None for that of
      the config.

  Raises:
    ValueError: the config is not that of a diffusion model, or an override
      does not fit.
  """
  own = [('train.accumulation', '1')]
  if batch is not None:
    own.append(('train.batch_size', str(batch)))
  if dtype is not None:
    own.append(('model.dtype', dtype))
  c = loader.load(config, (*own, *overrides))
  kind = c.get('method', {}).get('kind')
  if kind != 'diffusion':
    raise ValueError(
      f'--config={config} is not the config of a diffusion model: its '
      f'method.kind is {kind!r}. Give a config such as '
      'configs/cdm_imagenet64.py.'
    )
  return c
