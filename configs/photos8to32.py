"""Photographs, 8 -> 32: class-conditional super-resolution, for the demo.

  cdm train --config=configs/photos8to32.py --workdir=DIR

Data: 12 photographs inside scikit-image's wheel, a class each; nothing is
downloaded. The network draws what the upsampled low-res image lacks, and the
sampler keeps the means over blocks that the low-res image has.
Hardware: 2 CPU cores, minutes.
Parameters: 2,473,699.
Paper: none; every number is ours.
Ours: see the README.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'photos8to32'
  c.seed = 0

  # Each photograph is shrunk to a third and cut into crops of 32 pixels. Its
  # left or upper part is for training, and the rest is held out.
  c.train_data = dict(
    kind='photographs',
    split='train',
    image_size=32,
    shrink=3,
    crops_per_class=4096,
    names=(
      'astronaut',
      'brick',
      'chelsea',
      'coffee',
      'coins',
      'grass',
      'gravel',
      'hubble_deep_field',
      'ihc',
      'moon',
      'retina',
      'rocket',
    ),
    seed=0,
  )
  c.eval_data = dict(
    kind='photographs',
    split='held_out',
    image_size=32,
    shrink=3,
    crops_per_class=64,
    names=(
      'astronaut',
      'brick',
      'chelsea',
      'coffee',
      'coins',
      'grass',
      'gravel',
      'hubble_deep_field',
      'ihc',
      'moon',
      'retina',
      'rocket',
    ),
    seed=0,
  )

  c.pipeline = dict(
    image_size=32,
    crop='center',
    filter='area',
    min_side=0,
    flip=False,
    worker_count=0,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.schedule = dict(kind='cosine', num_steps=1000, offset=0.008, max_beta=0.999)

  c.lowres = dict(
    size=8,
    downsample='area',  # as the base's pipeline
    upsample='bicubic',
    augment='noise',
    max_level=0.1,
    noise_schedule='cosine',
    num_levels=None,
  )

  c.model = dict(
    features=32,
    multipliers=(0.5, 1, 2, 4),
    num_blocks=1,
    attention_resolutions=(),
    num_heads=4,
    head_features=None,
    dropout=0.0,
    resample='plain',
    embedding='film',
    skip_rescale=False,
    # One per photograph; the null class is for images of no known class.
    num_classes=12,
    null_class=True,
    condition_on='logsnr',
    condition_scale=1000.0,
    lowres_level=True,
    learned_variance=False,
    # Squares of 2x2 pixels take half of the time for a step, but leave a weave
    # on smooth areas.
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
    # On the training crops the residual's standard deviation is 0.146, and
    # 0.168 with the noise of the augmentation.
    residual_scale=0.15,
    label_dropout=0.1,
  )

  c.sampler = dict(
    kind='ddim',
    eta=0.0,
    # 4 are further from textures and nearer to the original, 16 the reverse.
    grid=dict(kind='respaced', spacing='8'),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
    project_lowres=True,  # keeps every colour where the input has it
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=3e-3,
    warmup_steps=50,
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

  c.ema = dict(decay=0.995, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=32,
    num_steps=1_000,
    accumulation=1,
    log_every_steps=25,
    sample_every_steps=500,
    num_samples=24,
    sample_steps=None,  # of the grids; None takes all
    # Saving, recovery and the watchdog: ours.
    save_every_steps=250,
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
    every_steps=250,  # that of the checkpoints; 0 is off
    batches=4,  # 128 held-out images, the same every time
    num_pairs=16,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # of pairs and FID; None takes all
    best='held_out/ema_loss',  # the best checkpoint by it is kept
    level=0.03,  # that of photos_cascade32
  )

  c.paper = dict(
    source='none: ours',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
