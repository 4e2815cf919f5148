"""Faces, 16 -> 64, small: the model of the study of few steps.

  cdm train --config=configs/faces_small_study16to64.py --workdir=DIR \\
      --config.train_data.path=TRAIN --config.eval_data.path=HELD_OUT

Data: two folders of aligned faces of 64 pixels or more. The network draws what
the upsampled low-res image lacks.
Hardware: two cores of a CPU, 2 hours.
Parameters: 2,650,211.
Paper: none; the method is [SR3]'s, the network and every number without a
source are ours.
Ours: Fréchet distance 1.19 with 100 ancestral steps, 0.69 with 8 of 2M, in the
features of a ResNet-56 on 410 held-out faces; see docs/distillation.md.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'faces_small_study16to64'
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

  c.schedule = dict(kind='cosine', num_steps=1000, offset=0.008, max_beta=0.999)

  c.lowres = dict(
    # Bicubic with antialiasing down, bicubic up: [SR3].
    size=16,
    downsample='bicubic',
    upsample='bicubic',
    augment='none',
  )

  c.model = dict(
    # 16 channels at 64x64: as fast as 48 on 2x2 squares of pixels, without the
    # weave that squares leave.
    features=32,
    multipliers=(0.5, 1, 2, 4),
    num_blocks=1,
    attention_resolutions=(8,),
    num_heads=4,
    head_features=None,
    dropout=0.0,
    resample='plain',
    embedding='film',
    skip_rescale=False,
    num_classes=None,
    null_class=False,
    condition_on='logsnr',
    condition_scale=1000.0,
    lowres_level=False,
    learned_variance=False,
    patch_size=1,
    norm_groups=8,
    norm_eps=1e-5,
    dtype='float32',  # faster than bfloat16 on CPUs
    remat='none',
  )

  c.method = dict(
    kind='diffusion',
    prediction='v',
    target=None,
    levels='discrete',
    loss='simple',
    norm=2,
    weighting='none',
    vb_weight=0.001,
    vb_rescale=False,
    # The standard deviation of the residual of 216 aligned faces is 0.159.
    residual_scale=0.16,
    label_dropout=0.0,
  )

  c.sampler = dict(
    kind='ddim',
    eta=0.0,
    grid=dict(kind='respaced', spacing='32'),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=1e-3,
    warmup_steps=200,
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

  c.ema = dict(decay=0.999, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=16,
    num_steps=16_000,
    accumulation=1,
    log_every_steps=50,
    sample_every_steps=4_000,
    num_samples=16,
    sample_steps=None,  # of the grids; None takes all
    # Saving, recovery and the watchdog: ours.
    save_every_steps=500,
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
    every_steps=1_000,  # that of the checkpoints; 0 is off
    batches=4,  # 64 held-out images, the same every time
    num_pairs=32,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # of pairs and FID; None takes all
    best='held_out/ema_loss',  # the best checkpoint by it is kept
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    source='none: ours',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
