"""The regression that SR3 is compared with, ImageNet, 64 -> 256. [SR3] tab. 2.

  cdm train --config=configs/sr3_imagenet64to256_regression.py --workdir=DIR

Data: as sr3_imagenet64to256.
Hardware: not stated in the paper.
Parameters: 600,370,307.
Paper: FID 15.2, IS 121.1, PSNR 27.9, SSIM 0.801 ([SR3] tab. 2); top-1 error
0.383 ([SR3] tab. 3); fool rate 13.4% (project page). The same network as SR3's,
without its noise level.
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'sr3_imagenet64to256_regression'
  c.seed = 0

  c.train_data = dict(
    kind='tfds',
    name='imagenet2012',
    split='train',
    data_dir=None,
    exif_rotation=False,  # TFDS and [ADM]'s loader apply none
  )
  c.eval_data = dict(
    kind='tfds',
    name='imagenet2012',
    split='validation',
    data_dir=None,
    exif_rotation=False,
  )

  c.pipeline = dict(
    image_size=256,
    crop='center',  # largest central square: [SR3]
    filter='area',  # [SR3]
    min_side=256,
    flip=False,
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  # Bicubic with antialiasing down, bicubic up: [SR3].
  c.lowres = dict(
    size=64, downsample='bicubic', upsample='bicubic', augment='none'
  )

  c.model = dict(
    # [SR3] tab. A.1. Blocks of the encoder; the decoder has one more.
    features=128,
    multipliers=(1, 2, 4, 4, 8, 8),
    num_blocks=3,
    # Not in the paper's text; the unofficial port's.
    attention_resolutions=(16,),
    num_heads=1,
    head_features=None,
    # Only 16 -> 128 has dropout ([SR3]).
    dropout=0.0,
    # [SR3]: BigGAN blocks, skips over sqrt(2).
    resample='biggan',
    skip_rescale=True,
    num_classes=None,
    null_class=False,
    patch_size=1,
    norm_groups=32,
    norm_eps=1e-5,
    # Ours; parameters, EMA and Adam stay float32.
    dtype='bfloat16',
    remat='none',
  )

  c.method = dict(
    kind='regression',
    norm=2,  # MSE: [SR3]
    residual_scale=None,  # the image itself: ours, as the paper says nothing
  )

  c.optimizer = dict(
    # Rate and warm-up: [SR3]. Betas and eps: ours (the defaults).
    kind='adam',
    learning_rate=1e-5,  # [SR3]: 1e-4 for SR3, 1e-5 for regression
    warmup_steps=10_000,
    decay='constant',
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,  # ours
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # Decay: not in the text that was read (UNVERIFIED). Warm-up: ours.
  c.ema = dict(decay=0.9999, warmup=True, half_life_images=None)

  c.train = dict(
    # Batch and steps: [SR3].
    batch_size=256,
    num_steps=1_000_000,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=20_000,
    num_samples=8,
    sample_steps=None,  # nothing is sampled
    # Saving, recovery and the watchdog: ours.
    save_every_steps=5_000,
    keep_checkpoints=3,  # the newest ones
    keep_every_steps=100_000,  # multiples are kept for good; 0 keeps none
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
    every_steps=5_000,  # that of the checkpoints; 0 is off
    batches=4,  # 1,024 held-out images, the same every time
    num_pairs=64,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # nothing is sampled
    best='held_out/psnr',  # the checkpoint of peak PSNR: [SR3]
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    fid=15.2,
    inception_score=121.1,
    psnr=27.9,
    ssim=0.801,
    fool_rate=13.4,
    source='[SR3] tab. 2; fool rate: project page',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
