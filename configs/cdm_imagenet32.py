"""CDM, 32x32 base: class-conditional ImageNet. [CDM] app. B.1.

  cdm train --config=configs/cdm_imagenet32.py --workdir=DIR

Data: ImageNet as tensorflow-datasets' `imagenet2012` (README, "ImageNet"):
largest central square, area resize; labels 0 to 999.
Hardware: 256 TPU-v3 cores in the paper (UNVERIFIED). Parameters, EMA and Adam
take 16 bytes per parameter, 13.2 GB; the training step fits v3:8x16 as it is,
4.0 of 15.5 GiB on each core (`cdm plan`).
Parameters: 825,505,542 (the paper states none).
Paper: FID 1.11 to training, 1.99 to validation images, IS 26.01 +/- 0.59
([CDM] tab. 1).
Ours: not yet run.

Values marked UNVERIFIED are the commonly known ones of [CDM] appendix B, which
has not been checked against them; values marked "ours" are our choice.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cdm_imagenet32'
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
    image_size=32,
    crop='center',  # largest central square: ours
    filter='area',  # ours
    min_side=0,  # all images, the smaller ones enlarged: ours
    flip=False,
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  # T = 4000, cosine: UNVERIFIED.
  c.schedule = dict(kind='cosine', num_steps=4000, offset=0.008, max_beta=0.999)

  c.lowres = None

  c.model = dict(
    # Sizes: UNVERIFIED.
    features=256,
    multipliers=(1, 2, 3, 4),
    num_blocks=6,
    attention_resolutions=(16, 8),
    num_heads=4,
    head_features=None,
    dropout=0.1,
    # Ours: blocks and embedding are not given; FiLM as Improved DDPM has it,
    # BigGAN resampling as [ADM] and [SR3] have it.
    resample='biggan',
    embedding='film',
    skip_rescale=False,
    num_classes=1000,
    null_class=False,
    condition_on='t',
    # t itself, 0 to 3999: Improved DDPM's rescale_timesteps False.
    condition_scale=1.0,
    lowres_level=False,
    learned_variance=True,
    patch_size=1,
    norm_groups=32,
    norm_eps=1e-5,
    # Ours; parameters, EMA and Adam stay float32.
    dtype='bfloat16',
    remat='none',
  )

  c.method = dict(
    kind='diffusion',
    prediction='eps',
    target=None,
    levels='discrete',
    # L_simple + 0.001 L_vlb, [IDDPM] eq. 16 (UNVERIFIED for CDM).
    loss='hybrid',
    norm=2,
    weighting='none',
    vb_weight=0.001,
    # Improved DDPM's flag for ImageNet-64: the bound is added unscaled.
    vb_rescale=False,
    residual_scale=None,
    label_dropout=0.0,
  )

  c.sampler = dict(
    kind='ancestral',
    variance='learned',
    # All 4000 steps (UNVERIFIED).
    grid=dict(kind='full'),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    # Adam and its rate: UNVERIFIED. Warm-up, betas and eps: ours.
    kind='adam',
    learning_rate=1e-4,
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

  # Decay: UNVERIFIED. Warm-up: ours.
  c.ema = dict(decay=0.9999, warmup=True, half_life_images=None)

  c.train = dict(
    # Batch and steps: UNVERIFIED.
    batch_size=2048,
    num_steps=700_000,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=20_000,
    num_samples=16,
    sample_steps=50,  # of the grids: ours, for a look; None takes all
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
    batches=1,  # 2,048 held-out images, the same every time
    num_pairs=0,  # a base model has no pairs
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=250,  # of pairs and FID; None takes all
    best='held_out/ema_loss',  # the best checkpoint by it is kept
    level=0.0,  # a base model has none
  )

  c.paper = dict(
    fid_train=1.11,
    fid_val=1.99,
    inception_score=26.01,
    inception_score_std=0.59,
    source='[CDM] tab. 1',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
