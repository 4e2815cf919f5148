"""SR3 faces, 16 -> 128: train on FFHQ, test on CelebA-HQ. [SR3] tab. A.1.

  cdm train --config=configs/sr3_faces16to128.py --workdir=DIR

Data: train on FFHQ, 70,000 images of 1024 px in one folder, given with
--config.train_data.path=DIR; judge on CelebA-HQ, 30,000 images of 1024 px, in
a folder given with --config.eval_data.path=DIR.
Hardware: not stated in the paper. Parameters, EMA and Adam take 16 bytes per
parameter, 8.97 GB; the training step fits v3:8x8 even without a split of the
state, 10.1 of 15.5 GiB on each core (`cdm plan`).
Parameters: 560,719,107 (the paper states 550M, [SR3] tab. A.1).
Paper: PSNR 23.04, SSIM 0.65, consistency 2.68e-5 ([SR3] tab. 1); fool rate
47.4% (project page).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'sr3_faces16to128'
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
    image_size=128,
    crop='center',  # largest central square: ours
    filter='area',  # ours
    min_side=None,  # images under image_size are left out
    flip=False,
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  # T is the paper's ([SR3]); it gives no betas: the unofficial port's.
  c.schedule = dict(kind='linear', num_steps=2000, beta_min=1e-6, beta_max=1e-2)

  # Bicubic with antialiasing down, bicubic up: [SR3].
  c.lowres = dict(
    size=16, downsample='bicubic', upsample='bicubic', augment='none'
  )

  c.model = dict(
    # [SR3] tab. A.1. Blocks of the encoder; the decoder has one more.
    features=128,
    multipliers=(1, 2, 4, 8, 8),
    num_blocks=3,
    # Not in the paper's text; the unofficial port's.
    attention_resolutions=(16,),
    num_heads=1,
    head_features=None,
    # Only 16 -> 128 has dropout ([SR3]).
    dropout=0.2,
    # [SR3]: BigGAN blocks, skips over sqrt(2).
    # Additive embedding: ours, nearest to the parameters that the paper states.
    resample='biggan',
    embedding='additive',
    skip_rescale=True,
    num_classes=None,
    null_class=False,
    # The paper conditions on the noise level; its square root: unofficial port.
    condition_on='sqrt_alpha_bar',
    # The embedded sqrt(alpha_bar) lies in [0, 1]; unscaled its sinusoids would
    # hardly differ between noise levels. Ours: 1000 (WaveGrad: 5000).
    condition_scale=1000.0,
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
    levels='piecewise',
    loss='simple',
    # p of the loss: 1 wins in [SR3] tab. 5; per task the paper does not say.
    norm=1,
    weighting='none',
    vb_weight=0.001,
    vb_rescale=False,
    residual_scale=None,
    label_dropout=0.0,
  )

  c.sampler = dict(
    kind='ancestral',
    variance='beta',
    # At most 100 steps ([SR3]); the paper's search over grids is not
    # published. Ours: linear betas that end at the noise that training ends at.
    grid=dict(kind='linear', num_steps=100, beta_min=1e-4, beta_max=0.185),
    clip='static',
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    # Rate and warm-up: [SR3]. Betas and eps: ours (the defaults).
    kind='adam',
    learning_rate=1e-4,
    warmup_steps=10_000,
    decay='constant',
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,  # ours
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # Decay: not in the text that was read (UNVERIFIED). Warm-up: ours.
  c.ema = dict(decay=0.9999, warmup=True, half_life_images=None)

  c.train = dict(
    # Batch and steps: [SR3].
    batch_size=256,
    num_steps=1_000_000,
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
    batches=8,  # 2,048 held-out images, the same every time
    num_pairs=64,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # of pairs and FID; None takes all
    best='held_out/ema_loss',  # the best checkpoint by it is kept
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    psnr=23.04,
    ssim=0.65,
    consistency=2.68e-05,
    fool_rate=47.4,
    parameters=550_000_000,
    source='[SR3] tab. 1, tab. A.1; fool rate: project page',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
