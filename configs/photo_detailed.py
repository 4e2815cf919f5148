"""The detailed stage of the photo model: any photograph, 1x to 4x.

  cdm train --config=configs/photo_detailed.py --workdir=DIR \\
      --config.train.init_from=runs/faithful

It draws what photo_faithful, whose run it starts from, leaves out: the mean
stays as it is, and a diffusion model of four steps draws the residual over it.
One set of weights thus gives the mean, a draw, and all between (`--detail`).
Data: as photo_faithful.
Hardware: two cores of a CPU.
Parameters: 2,633,564, of which 584,368 are those of the mean.
Paper: none; that a residual over a mean takes few steps and a small network is
known from SRDiff, ResDiff and CorrDiff.
Ours: not yet trained.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'photo_detailed'
  c.seed = 0

  # Everything in this config is ours. The data are those of photo_faithful.
  c.train_data = dict(
    kind='photo_crops',
    path='data/train',
    image_size=128,  # 32 x 32 squares; on 16 x 16, CPUs take twice the time
    num_images=1_000_000,  # more than the run reads, so that none comes twice
    seed=0,
    # Tried: without shrinking first, the network learns to copy softness.
    shrinks=(1.5, 2.0, 3.0, 4.0),
    # 4x is the hardest, and what the gate measures: three of seven.
    factors=(4.0, 4.0, 4.0, 3.0, 2.0, 1.5, 1.0),
    drawn=0.1,  # lettering, line art and gradients, which photographs lack
    degraded=0.5,  # half stays clean: else clean input is softened
  )
  c.eval_data = dict(
    kind='photo_crops',
    path='data/held_out',
    image_size=128,
    num_images=256,  # the same 256 squares every time
    seed=1,
    shrinks=(1.5, 2.0, 3.0, 4.0),
    factors=(4.0, 4.0, 4.0, 3.0, 2.0, 1.5, 1.0),
    drawn=0.0,
    degraded=0.5,
  )

  c.pipeline = dict(
    image_size=128,
    crop='none',  # the source cuts
    filter='area',  # of no use without a crop
    min_side=None,
    flip=False,  # the source flips and turns
    worker_count=0,  # 2 ms an image
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.schedule = dict(kind='cosine', num_steps=1000, offset=0.008, max_beta=0.999)

  # Of evaluation and of `cdm upscale`; the training data bring their own.
  c.lowres = dict(
    size=32, downsample='bicubic', upsample='bicubic', augment='none'
  )

  c.model = dict(
    kind='detail_network',
    mean=dict(  # the model section of photo_faithful
      features=48,
      num_blocks=12,
      patch_size=4,
      embedding_features=32,
      dtype='float32',
      quiet_level=1.5,
    ),
    # On squares of 2, 4 and 8 pixels: 2 MB in float16, and 0.14 MFLOP a pixel.
    widths=(32, 64, 96),
    blocks=(1, 8, 4),
    embedding_features=64,
    dtype='float32',
  )

  c.method = dict(
    kind='diffusion',
    prediction='v',  # also without signal, at the first step of few
    target=None,
    levels='discrete',
    loss='simple',
    norm=2,
    weighting='none',
    vb_weight=0.001,
    vb_rescale=False,
    # The standard deviation of what the mean leaves out, on held-out squares.
    residual_scale=0.09,
    label_dropout=0.0,
  )

  c.sampler = dict(
    kind='dpm_solver_pp_2m',
    eta=0.0,
    grid=dict(kind='trailing', num_steps=4),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    kind='adam',
    learning_rate=3e-4,
    warmup_steps=500,
    decay='cosine',
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
    moment_dtype='float32',
    group_rates=(('^mean/', 0.0),),  # the mean stays as it is
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.999, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=16,
    num_steps=30_000,  # eight hours of two cores at 0.95 s a step
    accumulation=1,
    log_every_steps=50,
    sample_every_steps=1_000,
    num_samples=16,
    sample_steps=None,  # of the grids; None takes all
    # Saving, recovery and the watchdog: ours.
    save_every_steps=500,
    keep_checkpoints=2,  # the newest ones
    keep_every_steps=5_000,  # multiples are kept for good; 0 keeps none
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
    every_steps=500,  # that of the checkpoints; 0 is off
    batches=16,  # all 256 held-out squares, as they are degraded
    num_pairs=64,  # clean at 4x, scored beside bicubic
    fid_every_steps=0,  # off; photo_gate.py has the distance of crops
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
