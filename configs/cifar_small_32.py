"""CIFAR-10 at 32 pixels without a cascade, small: for the claims on a CPU.

  cdm train --config=configs/cifar_small_32.py --workdir=DIR \\
      --config.train_data.path=TRAIN.npz --config.eval_data.path=TEST.npz

The one model that the cascade of `cifar_small_cascade32` is compared with: the
network of its second stage without a low-res input, trained for as many FLOPs
as both stages together.

Data: CIFAR-10 as two .npz files, which `benchmarks/claims.py` writes; it also
trains and judges this model.
Hardware: one core of a CPU, a third of an hour.
Parameters: 2,432,684.
Paper: none; the method is [CDM]'s, the network and every number without a
source are ours.
Ours: see docs/reproduction.md.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cifar_small_32'
  c.seed = 0

  # Images of 32 pixels and their labels; classes.json is beside each file.
  c.train_data = dict(
    kind='archive', path='data/cifar10/train/images.npz', class_names=None
  )
  c.eval_data = dict(
    kind='archive', path='data/cifar10/test/images.npz', class_names=None
  )

  c.pipeline = dict(
    image_size=32,
    crop='center',
    filter='area',
    min_side=0,
    flip=True,
    worker_count=0,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.schedule = dict(kind='cosine', num_steps=1000, offset=0.008, max_beta=0.999)

  c.lowres = None

  c.model = dict(
    features=32,
    multipliers=(1, 2, 4),
    num_blocks=1,
    attention_resolutions=(),
    num_heads=4,
    head_features=None,
    dropout=0.0,
    resample='plain',
    embedding='film',
    skip_rescale=False,
    num_classes=10,
    null_class=False,  # there is no guidance
    condition_on='logsnr',
    condition_scale=1000.0,
    lowres_level=False,
    learned_variance=False,
    patch_size=2,
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
    label_dropout=0.0,
  )

  c.sampler = dict(
    kind='ddim',
    eta=0.0,
    # 16 steps in every stage and every setting: ours, for CPUs.
    grid=dict(kind='respaced', spacing='16'),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,  # as [CDM]
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=2e-3,
    warmup_steps=100,
    decay='cosine',
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.998, warmup=True, half_life_images=None)

  c.train = dict(
    # As many FLOPs as 3,000 steps of cifar_small_8 and of cifar_small_8to32.
    batch_size=32,
    num_steps=4_308,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=0,  # no grids: the claims are judged after training
    num_samples=20,
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
    batches=16,  # 512 held-out images, the same every time
    num_pairs=0,  # the claims are judged after training
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # of pairs and FID; None takes all
    best='held_out/ema_loss',  # the best checkpoint by it is kept
    level=0.0,  # a base model has none
  )

  c.paper = dict(
    source='none: ours',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
