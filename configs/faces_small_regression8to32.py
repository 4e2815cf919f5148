"""Faces, 8 -> 32, PRSR's regression, small: for half an hour on two CPU cores.

  cdm train --config=configs/faces_small_regression8to32.py --workdir=DIR \
      --config.train_data.path=TRAIN --config.eval_data.path=HELD_OUT

Data: two folders of aligned faces of 32 pixels or more.
Hardware: two cores of a CPU, half an hour.
Parameters: 353,955.
Paper: none; the method is the regression that [PRSR] (arXiv 1702.00783)
compares with; every number without a source is ours.
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'faces_small_regression8to32'
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
    image_size=32,
    crop='center',
    filter='bicubic',  # [PRSR] (UNVERIFIED)
    min_side=None,  # images under image_size are left out
    flip=True,
    worker_count=2,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(
    # 8x8 by bicubic: [PRSR]. Antialiased, as its filter is not stated: ours.
    size=8,
    downsample='bicubic',
    augment='none',
  )

  c.model = dict(
    kind='resnet',  # [PRSR]'s, of its conditioning network's kind, no U-Net
    features=32,  # [PRSR] (UNVERIFIED)
    num_blocks=6,  # [PRSR] (UNVERIFIED)
    norm_groups=8,
    norm_eps=1e-5,
    dtype='float32',  # faster than bfloat16 on CPUs
  )

  c.method = dict(
    kind='regression',
    norm=2,  # L2: [PRSR] (UNVERIFIED)
    residual_scale=None,  # the image itself
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=2e-3,
    warmup_steps=100,
    decay='cosine',
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.998, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=16,
    # 1.6 seconds of a core for each, measured: about half an hour of two.
    num_steps=2_000,
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
    num_pairs=16,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # nothing is sampled
    best='held_out/psnr',  # the checkpoint of peak PSNR is kept
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    source='none: ours',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
