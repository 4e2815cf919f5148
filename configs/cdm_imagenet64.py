"""CDM, 64x64 without a cascade: the paper's own baseline. [CDM] sec. 4.2.

  cdm train --config=configs/cdm_imagenet64.py --workdir=DIR

Data: ImageNet as tensorflow-datasets' `imagenet2012` (README, "ImageNet"):
largest central square, area resize; labels 0 to 999. The baseline is a
re-implementation of Improved DDPM with 4000 steps, dropout and longer training
(UNVERIFIED); no sizes are known. This is Improved DDPM's class-conditional
ImageNet-64 model, with dropout.
Hardware: not stated. Parameters, EMA and Adam take 16 bytes per parameter, 4.37
GB; the training step fits v3:8x16 even without a split of the state, 5.5 of
15.5 GiB on each core (`cdm plan`).
Parameters: 273,049,350 (Improved DDPM states 270M).
Paper: FID 2.44 to training, 2.91 to validation images, IS 49.81 (UNVERIFIED,
[CDM] sec. 4.2).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cdm_imagenet64'
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
    image_size=64,
    crop='center',  # largest central square: ours
    filter='area',  # ours
    min_side=0,  # all images, the smaller ones enlarged: ours
    flip=False,
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  # Improved DDPM's flags for this model.
  c.schedule = dict(kind='cosine', num_steps=4000, offset=0.008, max_beta=0.999)

  c.lowres = None

  c.model = dict(
    # Improved DDPM's flags for class-conditional ImageNet-64 (its README).
    features=192,
    multipliers=(1, 2, 3, 4),
    num_blocks=3,
    attention_resolutions=(16, 8),
    num_heads=4,
    head_features=None,
    # The rate is ours: that of the 32x32 base.
    dropout=0.1,
    resample='conv',
    embedding='film',
    skip_rescale=False,
    num_classes=1000,
    null_class=False,
    condition_on='t',
    # t itself, 0 to 3999: rescale_timesteps False.
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
    # L_simple + 0.001 L_vlb, [IDDPM] eq. 16.
    loss='hybrid',
    norm=2,
    weighting='none',
    vb_weight=0.001,
    # rescale_learned_sigmas False: the bound is added unscaled.
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
    # Rate and no warm-up: Improved DDPM's code. Betas and eps: the defaults.
    kind='adam',
    learning_rate=3e-4,
    warmup_steps=0,
    decay='constant',
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=None,  # none in that code
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # Decay: Improved DDPM's code. Warm-up: ours.
  c.ema = dict(decay=0.9999, warmup=True, half_life_images=None)

  c.train = dict(
    # Batch: Improved DDPM's. Steps: ours, twice its 250k.
    batch_size=2048,
    num_steps=500_000,
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
    fid_train=2.44,
    fid_val=2.91,
    inception_score=49.81,
    parameters=270_000_000,
    source='[CDM] sec. 4.2 (UNVERIFIED); parameters: Improved DDPM',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
