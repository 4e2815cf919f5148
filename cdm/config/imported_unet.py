"""Makes the complete config of a diffusion model whose weights are published.

The network, the noise schedule and how images are drawn are those of the
weights. Data, optimizer and the rest of training are for fine-tuning: ours,
with [ADM]'s rate, and no file says them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from cdm.models.unet import UNet

# Fields of the network that a config states only where they differ.
_RARE = {'max_period': UNet.max_period, 'mid_norm': UNet.mid_norm}
_CHANNELS = 3


def make(
  name: str,
  *,
  image_size: int,
  network: Mapping[str, Any],
  schedule: Mapping[str, Any],
  sampler: Mapping[str, Any],
  objective: Mapping[str, Any],
  lowres: Mapping[str, Any] | None,
  paper: Mapping[str, Any],
) -> ConfigDict:
  """Returns a config as a file in configs/ states one.

  Args:
    name: of the stage.
    image_size: side of its images.
    network: fields of `UNet`.
    schedule: the section.
    sampler: keys of the section that differ from those of plain sampling.
    objective: keys of the section `method` that differ.
    lowres: the section; None for a base model.
    paper: the section.

  Raises:
    ValueError: the network is for other images than RGB.
  """
  network = dict(network)
  channels = network.pop('out_channels', _CHANNELS)
  if channels != _CHANNELS:
    raise ValueError(
      f'The network is for images of {channels} channels; a stage has images '
      f'of {_CHANNELS}, red, green and blue.'
    )
  c = ConfigDict()
  c.name, c.seed = name, 0
  c.train_data, c.eval_data = _data(network.get('num_classes'))
  c.pipeline = dict(
    image_size=image_size,
    crop='center',
    filter='area',
    min_side=0,
    flip=True,
    worker_count=16,
    max_skip_fraction=0.01,
    allow_enlarging=False,
  )
  c.schedule = dict(schedule)
  c.lowres = None if lowres is None else dict(lowres)
  c.model = _model(network)
  c.method = dict(
    kind='diffusion',
    prediction='eps',
    target=None,
    levels='discrete',
    loss='hybrid' if c.model.learned_variance else 'simple',
    norm=2,
    weighting='none',
    vb_weight=0.001,
    vb_rescale=False,
    residual_scale=None,
    label_dropout=0.0,
  )
  c.method.update(dict(objective))
  c.sampler = dict(
    dict(sampler),
    clip=sampler.get('clip', 'static'),
    clip_percentile=99.5,
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )
  _add_training(c)
  c.paper = dict(paper)
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c.lock()


def _add_training(c: ConfigDict) -> None:
  """Adds the sections of further training, which is ours."""
  c.optimizer = dict(
    kind='adam',
    learning_rate=1e-4,
    warmup_steps=1_000,
    decay='constant',
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
    moment_dtype='float32',
    group_rates=(),
    skip_nonfinite=0,
  )
  c.ema = dict(decay=0.9999, warmup=True, half_life_images=None)
  c.train = dict(
    batch_size=256,
    num_steps=100_000,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=10_000,
    num_samples=16,
    sample_steps=50,
    save_every_steps=5_000,
    keep_checkpoints=3,
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
    every_steps=5_000,
    batches=1,
    num_pairs=0 if c.lowres is None else 16,
    fid_every_steps=0,
    fid_num=5000,
    fid_reference='',
    fid_weights='',
    sampler_steps=50,
    best='held_out/ema_loss',
    level=0.0,
  )


def _data(num_classes: int | None) -> Sequence[dict[str, Any]]:
  """Returns the sections of the data; a folder is named by its user."""
  if num_classes == 1000:
    own = {'data_dir': None, 'exif_rotation': False}
    return [
      {'kind': 'tfds', 'name': 'imagenet2012', 'split': split, **own}
      for split in ('train', 'validation')
    ]
  names = () if num_classes is None else None
  return [
    {'kind': 'folder', 'path': f'data/{split}', 'class_names': names}
    for split in ('train', 'eval')
  ]


def _model(network: Mapping[str, Any]) -> dict[str, Any]:
  section = dict(
    features=None,
    multipliers=(),
    num_blocks=1,
    attention_resolutions=(),
    num_heads=1,
    head_features=None,
    dropout=0.0,
    resample='conv',
    embedding='film',
    skip_rescale=False,
    num_classes=None,
    null_class=False,
    condition_on='t',
    condition_scale=None,
    lowres_level=False,
    learned_variance=False,
    patch_size=1,
    norm_groups=32,
    norm_eps=1e-5,
    # Equal to the network's own program in all digits.
    dtype='float32',
    remat='none',
  )
  section.update(network)
  for field, value in _RARE.items():
    if section.get(field) == value:
      del section[field]
  return section
