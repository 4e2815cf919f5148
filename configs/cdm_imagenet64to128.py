"""CDM, 64 -> 128: class-conditional super-resolution, ImageNet. [CDM] app. B.1.

  cdm train --config=configs/cdm_imagenet64to128.py --workdir=DIR

Data: ImageNet as tensorflow-datasets' `imagenet2012` (README, "ImageNet"):
largest central square, area resize; labels 0 to 999. The low-res input is the
same image, area downsampled, blurred in half of the training examples and in
no sample.
Hardware: 64 TPU-v3 cores in the paper (UNVERIFIED). Parameters, EMA and Adam
take 16 bytes per parameter, 8.98 GB; the training step fits v3:4x8 even without
a split of the state, 12.6 of 15.5 GiB on each core (`cdm plan`).
Parameters: 561,231,107 (the paper states none; [SR3] tab. A.1 has the same
sizes and states 550M, without a class label).
Paper, of the cascade to 128: FID 3.52 to training, 3.76 to validation images,
IS 128.80 +/- 2.51 ([CDM] tab. 1).
Ours: not yet run.

Values marked UNVERIFIED are the commonly known ones of [CDM] appendix B, which
has not been checked against them; values marked "ours" are our choice.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cdm_imagenet64to128'
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
    image_size=128,
    crop='center',  # largest central square: ours
    filter='area',  # ours
    min_side=0,  # all images, the smaller ones enlarged: ours
    flip=False,
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  # T: UNVERIFIED. Betas: not known; those of the unofficial SR3 port.
  c.schedule = dict(kind='linear', num_steps=2000, beta_min=1e-6, beta_max=1e-2)

  # Blur of half of the examples: [CDM] sec. 3.1. Range of sigma: that of
  # 64 -> 256, UNVERIFIED. Filters: ours (the stage before is trained on
  # area-resized images; the paper upsamples bilinearly or bicubically).
  c.lowres = dict(
    size=64,
    downsample='area',
    upsample='bicubic',
    augment='blur',
    blur_sigma=(0.4, 0.6),
    blur_fraction=0.5,
  )

  c.model = dict(
    # Channels, multipliers and blocks: UNVERIFIED; they coincide with [SR3]
    # tab. A.1, which states neither attention nor heads: those are ours.
    features=128,
    multipliers=(1, 2, 4, 8, 8),
    num_blocks=3,
    attention_resolutions=(16,),
    num_heads=1,
    head_features=None,
    dropout=0.0,
    # As [SR3] has it.
    resample='biggan',
    embedding='additive',
    skip_rescale=True,
    num_classes=1000,
    null_class=False,
    # On the continuous noise level, as SR3 (UNVERIFIED).
    condition_on='sqrt_alpha_bar',
    # The embedded sqrt(alpha_bar) lies in [0, 1]; unscaled its sinusoids would
    # hardly differ between noise levels. Ours: 1000 (WaveGrad: 5000).
    condition_scale=1000.0,
    lowres_level=False,
    learned_variance=False,
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
    levels='piecewise',
    loss='simple',
    # L2: UNVERIFIED.
    norm=2,
    weighting='none',
    vb_weight=0.001,
    vb_rescale=False,
    residual_scale=None,
    label_dropout=0.0,
  )

  c.sampler = dict(
    kind='ancestral',
    variance='beta',
    # 100 steps: UNVERIFIED; the paper's tuned grid is not known. Ours: linear
    # betas that end at the noise that training ends at. Variance: [SR3]'s.
    grid=dict(kind='linear', num_steps=100, beta_min=1e-4, beta_max=0.185),
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
    batch_size=1024,
    num_steps=500_000,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=20_000,
    num_samples=8,
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
    batches=2,  # 2,048 held-out images, the same every time
    num_pairs=64,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # of pairs and FID; None takes all
    best='held_out/ema_loss',  # the best checkpoint by it is kept
    level=0.0,  # that of cdm_cascade128
  )

  c.paper = dict(
    of='cascade 32 -> 64 -> 128',
    fid_train=3.52,
    fid_val=3.76,
    inception_score=128.8,
    inception_score_std=2.51,
    source='[CDM] tab. 1',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
