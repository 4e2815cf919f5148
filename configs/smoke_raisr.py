"""Smoke test of RAISR, 8 -> 16: filters of 5 pixels, fitted in 8 steps.

  cdm train --config=configs/smoke_raisr.py --workdir=DIR

Hardware: any CPU, seconds. Every number is ours and chosen for speed; the
images are noise.
Parameters: 3,200.
Paper: none.
Ours: not a result.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'smoke_raisr'
  c.seed = 0

  c.train_data = dict(
    kind='synthetic', image_size=16, num_images=256, num_classes=4, seed=0
  )
  c.eval_data = dict(
    kind='synthetic', image_size=16, num_images=64, num_classes=4, seed=1
  )

  c.pipeline = dict(
    image_size=16,
    crop='center',
    filter='area',
    min_side=0,
    flip=False,
    worker_count=0,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(
    size=8, downsample='area', upsample='bilinear', augment='none'
  )

  c.method = dict(
    kind='raisr',
    patch=5,
    window=3,
    window_sigma=1.0,
    angles=8,
    strength_edges=(0.1,),
    coherence_edges=(0.5,),
    ridge=0.1,
    blending='none',
    sharpen=0.0,
  )

  c.train = dict(
    batch_size=8,
    num_steps=8,
    accumulation=1,
    log_every_steps=2,
    sample_every_steps=8,
    num_samples=4,
    sample_steps=None,  # nothing is sampled
    # Saving, recovery and the watchdog: ours.
    save_every_steps=4,
    keep_checkpoints=2,  # the newest ones
    keep_every_steps=0,  # multiples are kept for good; 0 keeps none
    on_divergence='stop',  # or 'rollback'
    max_rollbacks=3,  # in the whole run; one more divergence stops it
    grad_norm_spike_factor=0.0,  # there are no gradients
    # A phase that takes this many times its median is reported; 0 is off.
    watchdog_factor=10.0,
    watchdog_seconds=60.0,  # a shorter phase is never reported
    profile_steps='',  # 'FIRST:LAST' writes a trace of these steps
    wandb='',  # a project of Weights & Biases
  )

  c.eval = dict(
    # Evaluation in training: ours.
    every_steps=4,  # that of the checkpoints; 0 is off
    batches=0,  # the fit has no loss of single images
    num_pairs=4,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=8,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # nothing is sampled
    best='held_out/psnr',  # the best checkpoint by it is kept
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    source='none: for tests',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
