"""Smoke test of EDM2's network and recipe, 8x8. Trains in seconds.

  cdm train --config=configs/smoke_edm2.py --workdir=DIR

Hardware: any CPU, seconds. Every number is ours and chosen for speed; the
images are noise.
Parameters: 42,579.
Paper: none.
Ours: not a result.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'smoke_edm2'
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

  c.schedule = dict(
    kind='shifted_cosine',
    num_steps=2000,
    noise_size=8,
    logsnr_min=-12.0,
    logsnr_max=15.0,
  )

  c.lowres = None

  c.model = dict(
    kind='edm2_unet',
    features=8,
    multipliers=(1, 2),
    num_blocks=1,
    attention_resolutions=(),  # but in the middle
    head_features=8,
    dropout=0.1,
    num_classes=4,
    null_class=True,
    lowres_level=False,
    label_balance=0.5,
    concat_balance=0.5,
    residual_balance=0.3,
    attention_balance=0.3,
    clip=256.0,
    dtype='float32',
    remat='none',
  )

  c.method = dict(
    kind='diffusion',
    prediction=dict(kind='edm', sigma_data=0.5),
    target=None,
    levels=dict(kind='log_normal', mean=-0.8, std=1.6),
    loss='simple',
    norm=2,
    weighting=dict(
      kind='uncertainty', base='none', features=16, normalized=True
    ),
    vb_weight=0.001,
    vb_rescale=False,
    residual_scale=None,
    label_dropout=0.1,
  )

  c.sampler = dict(
    kind='heun',
    churn=0.0,
    churn_min=0.05,
    churn_max=50.0,
    churn_noise=1.003,
    grid=dict(
      kind='rho', num_steps=6, power=7.0, sigma_min=0.002, sigma_max=80.0
    ),
    clip='none',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=0.05,
    warmup_steps=2,
    decay='inverse_sqrt',
    decay_from=4,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=None,
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.9, warmup=True, half_life_images=None, power_stds=(0.1,))

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
