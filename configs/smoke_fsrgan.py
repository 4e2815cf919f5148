"""Smoke test of FSRGAN, 8 -> 16: two players in one step.

  cdm train --config=configs/smoke_fsrgan.py --workdir=DIR

Hardware: any CPU, seconds. Every number is ours and chosen for speed; the
images are noise.
Parameters: 16,671.
Paper: none.
Ours: not a result.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'smoke_fsrgan'
  c.seed = 0

  c.train_data = dict(
    kind='synthetic', image_size=16, num_images=256, num_classes=4, seed=0
  )
  c.eval_data = dict(
    kind='synthetic', image_size=16, num_images=64, num_classes=4, seed=1
  )

  c.pipeline = dict(
    image_size=16,
    crop='center',
    filter='area',
    min_side=0,
    flip=False,
    worker_count=0,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(size=8, downsample='area', upsample='bicubic', augment='none')

  c.model = dict(
    features=8,
    prior_features=8,
    coarse_blocks=1,
    encoder_blocks=1,
    decoder_blocks=1,
    hourglasses=1,
    hourglass_depth=1,
    num_maps=0,  # no landmarks or parts of faces
    norm_groups=4,
    dtype='float32',
    discriminator=dict(
      features=8, max_features=16, spectral_norm=True, dtype='float32'
    ),
  )

  c.method = dict(
    kind='fsrgan',
    adversarial_weight=0.01,
    r1_weight=0.1,
    perceptual_weight=0.0,  # no features
    feature_network='vgg',
    feature_weights='',
    feature_layer=5,
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=2e-3,
    warmup_steps=2,
    decay='constant',
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.9, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=8,
    num_steps=8,
    accumulation=1,
    log_every_steps=2,
    sample_every_steps=8,
    num_samples=4,
    sample_steps=None,  # nothing is sampled
    # Saving, recovery and the watchdog: ours.
    save_every_steps=4,
    keep_checkpoints=2,  # the newest ones
    keep_every_steps=0,  # multiples are kept for good; 0 keeps none
    on_divergence='stop',  # or 'rollback'
    max_rollbacks=3,  # in the whole run; one more divergence stops it
    # A gradient norm this many times its running median diverges; 0 is off.
    grad_norm_spike_factor=0.0,
    # A phase that takes this many times its median is reported; 0 is off.
    watchdog_factor=10.0,
    watchdog_seconds=60.0,  # a shorter phase is never reported
    profile_steps='',  # 'FIRST:LAST' writes a trace of these steps
    wandb='',  # a project of Weights & Biases
  )

  c.eval = dict(
    # Evaluation in training: ours.
    every_steps=4,  # that of the checkpoints; 0 is off
    batches=2,  # 16 held-out images, the same every time
    num_pairs=4,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=8,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # nothing is sampled
    best='held_out/psnr',  # the best checkpoint by it is kept
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    source='none: for tests',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
