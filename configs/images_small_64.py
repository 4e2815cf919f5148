"""Images of several classes, 64 px, small: for one GPU of 16 GB.

  cdm train --config=configs/images_small_64.py --workdir=DIR \
      --config.train_data.path=TRAIN --config.eval_data.path=HELD_OUT \
      --config.model.num_classes=10

Data: two folders of images of 64 pixels or more, each with one sub-folder per
class, alike in both; here ten. The network works at 32x32, on 2x2 squares of
pixels as if they were pixels.
Hardware: one GPU; see docs/one_gpu.md.
Parameters: 46,019,532.
Paper: none; every number is ours.
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'images_small_64'
  c.seed = 0

  # Folders of your own images. Each sub-folder is a class; their number is
  # model.num_classes. Numbers as names are ordered as numbers.
  c.train_data = dict(
    kind='folder', path='data/train', class_names=None, order='numbers'
  )
  c.eval_data = dict(
    kind='folder', path='data/held_out', class_names=None, order='numbers'
  )

  c.pipeline = dict(
    image_size=64,
    crop='center',
    filter='bicubic',  # as the next stage shrinks its low-res input
    min_side=None,  # images under image_size are left out
    flip=True,
    worker_count=4,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.schedule = dict(kind='cosine', num_steps=1000, offset=0.008, max_beta=0.999)

  c.lowres = None

  c.model = dict(
    features=96,
    multipliers=(1, 2, 3, 4),
    num_blocks=2,
    attention_resolutions=(16, 8),
    num_heads=4,
    head_features=None,
    dropout=0.0,
    resample='plain',
    embedding='film',
    skip_rescale=False,
    # The number of your class folders. The null class is for guidance.
    num_classes=10,
    null_class=True,
    condition_on='logsnr',
    condition_scale=1000.0,
    lowres_level=False,
    learned_variance=False,
    patch_size=2,
    norm_groups=32,
    norm_eps=1e-5,
    # On a CPU set --config.model.dtype=float32, which is faster there.
    dtype='bfloat16',
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
    grid=dict(kind='respaced', spacing='64'),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=1.0,  # w of [CFG]; 0 is off and twice as fast
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=3e-4,
    warmup_steps=500,
    # Constant, so that a run that is complete can be lengthened.
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

  c.ema = dict(decay=0.9995, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=64,
    num_steps=100_000,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=5_000,
    num_samples=16,
    sample_steps=None,  # of the grids; None takes all
    # Saving, recovery and the watchdog: ours.
    save_every_steps=1_000,
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
    batches=4,  # 256 held-out images, the same every time
    num_pairs=0,  # a base model has no pairs
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
