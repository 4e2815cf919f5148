"""Smoke test, 8x8 base: synthetic gratings. Trains in seconds, learns nothing.

  cdm train --config=configs/smoke.py --workdir=DIR

Hardware: any CPU, seconds. Every number is ours and chosen for speed; the
images are noise.
Parameters: 209,267.
Paper: none.
Ours: not a result.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'smoke'
  c.seed = 0

  c.train_data = dict(
    kind='synthetic', image_size=16, num_images=256, num_classes=4, seed=0
  )
  c.eval_data = dict(
    kind='synthetic', image_size=16, num_images=64, num_classes=4, seed=1
  )

  c.pipeline = dict(
    image_size=8,
    crop='center',
    filter='area',
    min_side=0,
    flip=False,
    worker_count=0,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.schedule = dict(kind='cosine', num_steps=64, offset=0.008, max_beta=0.999)

  c.lowres = None

  c.model = dict(
    features=16,
    multipliers=(1, 2),
    num_blocks=1,
    attention_resolutions=(4,),
    num_heads=2,
    head_features=None,
    dropout=0.0,
    resample='biggan',
    embedding='film',
    skip_rescale=False,
    num_classes=4,
    null_class=True,
    condition_on='logsnr',
    condition_scale=1000.0,
    lowres_level=False,
    learned_variance=False,
    patch_size=1,
    norm_groups=8,
    norm_eps=1e-5,
    dtype='float32',
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
    residual_scale=None,
    label_dropout=0.1,
  )

  c.sampler = dict(
    kind='ddim',
    eta=0.0,
    grid=dict(kind='respaced', spacing='4'),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
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
    sample_steps=None,  # of the grids; None takes all
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
    num_pairs=0,  # a base model has no pairs
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=8,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=2,  # of pairs and FID; None takes all
    best='held_out/ema_loss',  # the best checkpoint by it is kept
    level=0.0,  # a base model has none
  )

  c.paper = dict(
    source='none: for tests',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
