"""Faces, 16 -> 64, FSRGAN, small: for half an hour on two CPU cores.

  cdm train --config=configs/faces_small_fsrgan16to64.py --workdir=DIR \
      --config.train_data.path=TRAIN --config.eval_data.path=HELD_OUT

Data: two folders of aligned faces of 64 pixels or more.
Hardware: two cores of a CPU, half an hour.
Parameters: 477,775.
Paper: none; the method is [FSRNet]'s, without maps of facial parts; every
number without a source is ours.
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'faces_small_fsrgan16to64'
  c.seed = 0

  # Folders of your own images; sub-folders are not classes. Numbers as names
  # are ordered as numbers.
  c.train_data = dict(
    kind='folder', path='data/train', class_names=(), order='numbers'
  )
  c.eval_data = dict(
    kind='folder', path='data/held_out', class_names=(), order='numbers'
  )

  c.pipeline = dict(
    image_size=64,
    crop='center',
    filter='bicubic',  # as [SR3] shrinks its low-res input
    min_side=None,  # images under image_size are left out
    flip=True,
    worker_count=4,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(
    # Bicubic with antialiasing down, bicubic up: [SR3].
    size=16,
    downsample='bicubic',
    upsample='bicubic',
    augment='none',
  )

  c.model = dict(
    # A third of the channels and of the encoder's blocks of [FSRNet].
    features=24,
    prior_features=24,
    coarse_blocks=2,
    encoder_blocks=4,
    decoder_blocks=2,
    hourglasses=1,
    hourglass_depth=3,
    num_maps=0,  # without landmarks and parts of faces (docs/data.md)
    norm_groups=4,
    dtype='float32',  # faster than bfloat16 on CPUs
    discriminator=dict(
      features=24, max_features=96, spectral_norm=False, dtype='float32'
    ),
  )

  c.method = dict(
    kind='fsrgan',
    # [FSRNet] has 1e-3 (UNVERIFIED-M), with which so short a run shows no
    # difference from FSRNet.
    adversarial_weight=5e-3,
    r1_weight=1.0,
    # [FSRNet] has 1e-1 of VGG's features (UNVERIFIED-M). The weights of VGG are
    # large, and their features cost more than this network: off.
    perceptual_weight=0.0,
    feature_network='vgg',
    feature_weights='',
    feature_layer=5,
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=1e-3,
    warmup_steps=200,
    decay='cosine',
    b1=0.5,  # less momentum: two players move at once, [DCGAN]
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=None,  # one norm would tie the two players together
    moment_dtype='float32',
    # ((regex, factor of the rate), ...): a slower discriminator.
    group_rates=(('^discriminator', 0.3),),
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.998, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=16,
    num_steps=2_500,
    accumulation=1,
    log_every_steps=50,
    sample_every_steps=1_000,
    num_samples=16,
    sample_steps=None,  # nothing is sampled
    # Saving, recovery and the watchdog: ours.
    save_every_steps=250,
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
    every_steps=250,  # that of the checkpoints; 0 is off
    batches=4,  # 64 held-out images, the same every time
    num_pairs=32,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # nothing is sampled
    best='held_out/psnr',  # the best checkpoint by it is kept
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    source='none: ours',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
