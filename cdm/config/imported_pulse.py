"""Makes the complete config of StyleGAN's generator, to be searched by [PULSE].

The values are those of `configs/pulse_faces1024.py`, which says where each
comes from; the generator is that of the files.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def make(
  name: str,
  *,
  image_size: int,
  lowres_size: int,
  generator: Mapping[str, Any],
) -> ConfigDict:
  """Returns a config as a file in configs/ states one.

  Args:
    name: of the stage.
    image_size: side of its images.
    lowres_size: side of the pictures that it enlarges.
    generator: fields of `stylegan.Generator`. Without a mapping network it is
      only searched, and has no discriminator.
  """
  trained = generator['mapping_layers'] > 0
  c = ConfigDict()
  c.name, c.seed = name, 0
  c.train_data, c.eval_data = (
    dict(kind='folder', path=f'data/{split}', class_names=())
    for split in ('train', 'eval')
  )
  c.pipeline = dict(
    image_size=image_size,
    crop='center',
    filter='area',
    min_side=None,
    flip=True,
    worker_count=16,
    max_skip_fraction=0.01,
    allow_enlarging=False,
  )
  c.lowres = dict(
    size=lowres_size, downsample='bicubic', upsample='bicubic', augment='none'
  )
  discriminator = dict(
    features=32, max_features=512, spectral_norm=False, dtype='bfloat16'
  )
  c.model = dict(
    dict(generator), discriminator=discriminator if trained else None
  )
  c.method = dict(
    kind='pulse',
    r1_weight=10.0,
    style_mixing=0.9,
    fit_samples=1_000_000 if trained else None,
    search=dict(
      steps=100,
      learning_rate=0.4,
      schedule='linear1cycledrop',
      restarts=1,
      eps=2e-3,
      l2_weight=100.0,
      geocross_weight=0.05,
      noise_maps=5,
    ),
  )
  c.optimizer = dict(
    kind='adam',
    learning_rate=3e-3,
    warmup_steps=0,
    decay='constant',
    b1=0.0,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=None,
    moment_dtype='float32',
    group_rates=(('^discriminator', 0.1),) if trained else (),
    skip_nonfinite=0,
  )
  c.ema = dict(decay=None, warmup=True, half_life_images=10_000)
  _add_training(c)
  c.paper = dict(source='[PULSE]')
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c.lock()


def _add_training(c: ConfigDict) -> None:
  """Adds the sections `train` and `eval`."""
  c.train = dict(
    batch_size=32,
    num_steps=781_250,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=10_000,
    num_samples=8,
    sample_steps=None,
    save_every_steps=1_000,
    keep_checkpoints=2,
    keep_every_steps=0,
    on_divergence='stop',
    max_rollbacks=3,
    grad_norm_spike_factor=0.0,
    watchdog_factor=10.0,
    watchdog_seconds=60.0,
    profile_steps='',
    wandb='',
  )
  c.eval = dict(
    every_steps=10_000,
    batches=1,
    num_pairs=8,
    fid_every_steps=0,
    fid_num=5000,
    fid_reference='',
    fid_weights='',
    sampler_steps=None,
    best='',
    level=0.0,
  )
