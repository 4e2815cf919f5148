"""Faces, 16 -> 64, RAISR: filters fitted by least squares, in minutes.

  cdm train --config=configs/faces_small_raisr16to64.py --workdir=DIR \
      --config.train_data.path=TRAIN --config.eval_data.path=HELD_OUT

Data: two folders of aligned faces of 64 pixels or more.
Hardware: two cores of a CPU, 3 minutes.
Parameters: 418,176, fitted without gradients.
Paper: [RAISR] fits one set of filters to general photographs; faces are ours.
Ours: on 410 faces of docs/reproduction.md PSNR 24.19, SSIM 0.776, consistency
7.9e-5; bicubic 23.33, 0.738, 43.5e-5.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'faces_small_raisr16to64'
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
    flip=False,  # the filters are fitted to all 8 positions of an image
    worker_count=4,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(
    # Shrunk as in [SR3]; enlarged by bilinear before the filters, [RAISR].
    size=16,
    downsample='bicubic',
    upsample='bilinear',
    augment='none',
  )

  c.method = dict(
    kind='raisr',
    # [RAISR] sec. II, UNVERIFIED: not checked against the paper's own text.
    patch=11,
    window=9,
    angles=24,
    # Three strengths and three coherences, [RAISR] sec. II, UNVERIFIED. The
    # bounds of the coherences are those of public programs; those of the
    # strengths are ours: 0.006 and 0.02 were 0.02 dB worse on Set5 at 2x.
    strength_edges=(0.02, 0.05),
    coherence_edges=(0.25, 0.5),
    window_sigma=2.0,  # public programs'
    # Ours: on Set5 at 2x, 12 million patches, 0.03 to 0.3 give the same
    # within 0.01 dB.
    ridge=0.1,
    # Nothing is sharpened. 'structure' has the same PSNR within 0.05 dB.
    blending='none',
    sharpen=0.0,
  )

  c.train = dict(
    batch_size=256,
    num_steps=68,  # every face of the 8,635 of our runs twice; ours
    accumulation=1,
    log_every_steps=4,
    sample_every_steps=34,
    num_samples=16,
    sample_steps=None,  # nothing is sampled
    # Saving, recovery and the watchdog: ours.
    save_every_steps=34,
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
    every_steps=34,  # that of the checkpoints; 0 is off
    batches=0,  # the fit has no loss of single images
    num_pairs=32,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # nothing is sampled
    best='',  # the last one has seen the most patches
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    source='none: ours',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
