"""SR3's face cascade, 64x64 base: unconditional DDPM on FFHQ.

  cdm train --config=configs/sr3_faces64.py --workdir=DIR

Data: train on FFHQ, 70,000 images of 1024 px in one folder, given with
--config.train_data.path=DIR; judge on CelebA-HQ, 30,000 images of 1024 px, in
a folder given with --config.eval_data.path=DIR. The cascade starts from an
unconditional DDPM at 64x64 ([SR3]); its sizes were not read. These are DDPM's
of CIFAR-10 (UNVERIFIED), a level added.
Hardware: not stated in the paper. Parameters, EMA and Adam take 16 bytes per
parameter, 1.1 GB; the training step fits v3:8x8 even without a split of the
state, 1.3 of 15.5 GiB on each core (`cdm plan`).
Parameters: 68,793,091 (the paper states none).
Paper: images only, no numbers.
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'sr3_faces64'
  c.seed = 0

  # order: 0.jpg, 1.jpg, ..., 10.jpg, as lists of splits count them.
  c.train_data = dict(
    kind='folder', path='data/ffhq', class_names=(), order='numbers'
  )
  # CelebA-HQ-img of CelebAMask-HQ, or another folder of the 30,000 pictures.
  # The other way, where it was built: kind='tfds', name='celeb_a_hq/256',
  # split='train'; docs/data.md says why it can hardly be built today.
  c.eval_data = dict(
    kind='folder', path='data/celeba_hq', class_names=(), order='numbers'
  )

  c.pipeline = dict(
    image_size=64,
    crop='center',  # largest central square: ours
    # Ours: as the next stage shrinks its images, so that its low-res input in
    # training is what this stage draws.
    filter='bicubic',
    min_side=None,  # images under image_size are left out
    flip=True,  # [DDPM] (UNVERIFIED)
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.schedule = dict(  # [DDPM]
    kind='linear', num_steps=1000, beta_min=1e-4, beta_max=0.02
  )

  c.lowres = None

  c.model = dict(
    # DDPM's of CIFAR-10 (UNVERIFIED); the last multiplier is 4: ours.
    features=128,
    multipliers=(1, 2, 2, 4),
    num_blocks=2,
    attention_resolutions=(16,),
    num_heads=1,
    head_features=None,
    # DDPM's of CIFAR-10 (UNVERIFIED).
    dropout=0.1,
    resample='conv',
    embedding='additive',
    skip_rescale=False,
    num_classes=None,
    null_class=False,
    condition_on='t',
    condition_scale=1.0,
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
    levels='discrete',
    loss='simple',
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
    grid=dict(kind='full'),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    # Rate, warm-up and clipping: DDPM's of CIFAR-10 (UNVERIFIED).
    kind='adam',
    learning_rate=2e-4,
    warmup_steps=5_000,
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

  # Decay: [DDPM] (UNVERIFIED). Warm-up: ours.
  c.ema = dict(decay=0.9999, warmup=True, half_life_images=None)

  c.train = dict(
    # Batch and steps: DDPM's of CIFAR-10 (UNVERIFIED).
    batch_size=128,
    num_steps=800_000,
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
    batches=16,  # 2,048 held-out images, the same every time
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
    source='[SR3], images only',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
