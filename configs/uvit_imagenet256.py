"""simple diffusion's U-ViT at 256x256, one network and no cascade. [SiD].

  cdm train --config=configs/uvit_imagenet256.py --workdir=DIR

Data: ImageNet as tensorflow-datasets' `imagenet2012` (README, "ImageNet"):
largest central square, area resize; labels 0 to 999.
The schedule is shifted from 64 to 256 pixels; the network predicts v, while
its loss is one of eps and of several scales ([SiD] sec. 2 and 3).
Sizes of the network are UNVERIFIED: they are commonly quoted, give the 2
billion parameters that are quoted too, and were not held against the text.
At 512 pixels: patch_size=4, image_size=512; FID 4.53, IS 205.3 (second-hand).
Hardware: not stated.
Parameters: 2,003,760,396.
Paper: FID 3.75 to validation images without guidance, 2.44 with (second-hand).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'uvit_imagenet256'
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
    crop='center',  # largest central square: ours
    filter='area',  # ours
    min_side=0,  # all images, the smaller ones enlarged: ours
    flip=False,
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  # [SiD]: bounds and noise_size 64. T is the number of steps of its sampler,
  # because training draws continuous levels.
  c.schedule = dict(
    kind='shifted_cosine',
    num_steps=512,
    noise_size=64,
    logsnr_min=-15.0,
    logsnr_max=15.0,
  )

  c.lowres = None

  c.model = dict(
    # A transformer of 16 x 16 tokens ([SiD] sec. 3). Its widths and blocks, the
    # heads and the embedding: UNVERIFIED, see the docstring.
    kind='uvit',
    features=128,
    multipliers=(1, 2, 4, 16),
    num_blocks=2,
    num_transformers=36,
    head_features=128,
    mlp_ratio=4,
    # The paper drops out at low resolutions alone. Rate: UNVERIFIED.
    dropout=0.0,
    transformer_dropout=0.2,
    num_classes=1000,
    null_class=False,
    condition_on='logsnr',
    condition_scale=None,  # 1000: ours
    lowres_level=False,
    patch_size=2,
    norm_groups=32,
    norm_eps=1e-5,
    # Ours; parameters, EMA and Adam stay float32.
    dtype='bfloat16',
    remat='none',
  )

  c.method = dict(
    kind='diffusion',
    # The network predicts v and the error is one of eps, [SiD] sec. 2.
    prediction='v',
    target='eps',
    levels='continuous',
    loss='multiscale',
    norm=2,
    weighting='none',
    vb_weight=0.001,  # of a hybrid loss
    vb_rescale=False,
    residual_scale=None,
    label_dropout=0.0,
  )

  c.sampler = dict(
    kind='ancestral',
    variance='beta',  # ours
    grid=dict(kind='full'),  # 512 steps, [SiD]
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    # Ours.
    kind='adam',
    learning_rate=1e-4,
    warmup_steps=10_000,
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

  # Ours.
  c.ema = dict(decay=0.9999, warmup=True, half_life_images=None)

  c.train = dict(
    # Batch and steps: ours.
    batch_size=2048,
    num_steps=1_000_000,
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
    fid_val=3.75,
    parameters=2_000_000_000,
    source='[SiD], quoted by others',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
