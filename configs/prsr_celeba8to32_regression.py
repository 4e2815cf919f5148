"""The regression that [PRSR] compares with, faces, 8 -> 32: CelebA.

  cdm train --config=configs/prsr_celeba8to32_regression.py --workdir=DIR

Data: CelebA through TFDS (celeb_a), 162,770 training and 19,962 test images.
[PRSR] is Dahl, Norouzi and Shlens, arXiv 1702.00783; its numbers were not read
in the paper itself, and each says so.
Hardware: not known of the paper; one GPU holds it.
Parameters: 353,955 (the paper states none).
Paper: SSIM 0.90 and 4.0 % fooled (UNVERIFIED).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'prsr_celeba8to32_regression'
  c.seed = 0

  c.train_data = dict(
    kind='tfds',
    name='celeb_a',
    split='train',
    data_dir=None,
    exif_rotation=False,  # TFDS applies none
  )
  c.eval_data = dict(
    kind='tfds',
    name='celeb_a',
    split='test',
    data_dir=None,
    exif_rotation=False,
  )

  c.pipeline = dict(
    image_size=32,
    crop='center',  # largest central square: ours
    filter='bicubic',  # [PRSR] (UNVERIFIED)
    min_side=None,  # images under image_size are left out
    flip=False,  # not mentioned in [PRSR]
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(
    # 8x8 by bicubic: [PRSR]. Antialiased, as its filter is not stated: ours.
    size=8,
    downsample='bicubic',
    augment='none',
  )

  c.model = dict(
    kind='resnet',  # [PRSR]'s, of its conditioning network's kind, no U-Net
    # [PRSR] tab. of hyper-parameters (UNVERIFIED: read in a re-implementation).
    features=32,
    num_blocks=6,
    # Ours: the paper normalises by the batch, see models/enlarging_resnet.py.
    norm_groups=8,
    norm_eps=1e-5,
    dtype='float32',
  )

  c.method = dict(
    kind='regression',
    norm=2,  # L2: [PRSR] (UNVERIFIED)
    residual_scale=None,  # the image itself
  )

  c.optimizer = dict(
    # RMSProp, its three numbers, the rate and its halving every 500,000 steps:
    # [PRSR] (UNVERIFIED: read in a re-implementation).
    kind='rmsprop',
    learning_rate=4e-4,
    b2=0.95,
    momentum=0.9,
    eps=1e-8,
    initial_scale=1.0,  # TensorFlow's
    # The run ends before the first halving, at 500,000 steps.
    decay='constant',
    decay_at=(),
    decay_factor=0.5,
    warmup_steps=0,
    clip_norm=None,
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # Polyak averaging is the paper's; its decay is not known. Decay: ours.
  c.ema = dict(decay=0.9999, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=32,  # [PRSR] (UNVERIFIED: read in a re-implementation)
    # 200,000 are those of a re-implementation; the paper's are not known.
    num_steps=200_000,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=10_000,
    num_samples=16,
    sample_steps=None,  # nothing is sampled
    # Saving, recovery and the watchdog: ours.
    save_every_steps=5_000,
    keep_checkpoints=2,  # the newest ones
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
    batches=16,  # 512 held-out images, the same every time
    num_pairs=64,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # nothing is sampled
    best='held_out/psnr',  # the checkpoint of peak PSNR is kept
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    # Its PSNR is 28 to 29 dB for every method, so that a usual PSNR cannot be
    # compared with it.
    psnr=29.16,
    ssim=0.9,
    ms_ssim=0.9,
    consistency=0.004,
    fool_rate=4.0,
    source='[PRSR] tab. of results (UNVERIFIED)',
  )

  # Ours.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
