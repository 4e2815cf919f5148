"""EDM2-L at 64x64, in pixels and without guidance. [EDM2] tab. 3.

  cdm train --config=configs/edm2_imagenet64_l.py --workdir=DIR

Data: ImageNet as tensorflow-datasets' `imagenet2012` (README, "ImageNet"):
largest central square, area resize; labels 0 to 999. EDM2's own set is made
with ADM's box filter, and its FIDs are against statistics of that set.
The main average is for held-out losses and grids. Images are drawn with a width
of the power-function averages: --ema=std=0.040 ([EDM2]).
EDM2-XL: features=384, learning_rate=0.007, num_steps=327680, the same FID.
Hardware: at least 32 A100 (README of EDM2's code); hours are not stated.
Parameters: 777,492,325.
Paper: FID 1.33 with 63 network evaluations ([EDM2] tab. 3, as its code repeats
it).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'edm2_imagenet64_l'
  c.seed = 0

  c.train_data = dict(
    kind='tfds',
    name='imagenet2012',
    split='train',
    data_dir=None,
    exif_rotation=False,  # TFDS and [ADM]'s loader apply none
  )
  c.eval_data = dict(
    kind='tfds',
    name='imagenet2012',
    split='validation',
    data_dir=None,
    exif_rotation=False,
  )

  c.pipeline = dict(
    image_size=64,
    crop='center',  # largest central square: ours
    filter='area',  # ADM's box filter, [ADM]
    min_side=0,  # all images, the smaller ones enlarged: ours
    flip=False,
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  # Only the ends matter: the levels are log_normal, and 1 in 20,000 lies beyond
  # them. The sampler begins and ends between them. All ours.
  c.schedule = dict(
    kind='shifted_cosine',
    num_steps=2000,
    noise_size=64,  # that of the images: no shift
    logsnr_min=-12.0,
    logsnr_max=15.0,
  )

  c.lowres = None

  c.model = dict(
    # Config G of [EDM2]; channels, dropout: the preset of its code. The others:
    # defaults of that code.
    kind='edm2_unet',
    features=320,
    multipliers=(1, 2, 3, 4),
    num_blocks=3,
    attention_resolutions=(16, 8),
    head_features=64,
    dropout=0.1,
    num_classes=1000,
    null_class=False,
    lowres_level=False,
    label_balance=0.5,
    concat_balance=0.5,
    residual_balance=0.3,
    attention_balance=0.3,
    clip=256.0,
    # Ours, EDM2's is float16; parameters, EMA and Adam stay float32.
    dtype='bfloat16',
    remat='none',
  )

  c.method = dict(
    kind='diffusion',
    prediction=dict(kind='edm', sigma_data=0.5),  # [EDM] tab. 1
    # The output of the network itself: that is EDM's weight, see
    # docs/objectives.md.
    target=None,
    # The preset of EDM2's code.
    levels=dict(kind='log_normal', mean=-0.8, std=1.6),
    loss='simple',
    norm=2,
    # [EDM2] sec. 2.2; 128 features: its code.
    weighting=dict(
      kind='uncertainty', base='none', features=128, normalized=True
    ),
    vb_weight=0.001,  # of a hybrid loss
    vb_rescale=False,
    residual_scale=None,
    label_dropout=0.0,
  )

  c.sampler = dict(
    # [EDM] alg. 2 without churn, 63 evaluations.
    kind='heun',
    churn=0.0,
    churn_min=0.05,
    churn_max=50.0,
    churn_noise=1.003,
    # Eq. 5 of [EDM], from s = 80 to 0.002; rho is 7.
    grid=dict(
      kind='rho', num_steps=32, power=7.0, sigma_min=0.002, sigma_max=80.0
    ),
    clip='none',  # EDM clips nothing
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    # Rate and the step from which it falls: the preset of EDM2's code.
    kind='adam',
    learning_rate=0.008,
    warmup_steps=4_883,  # 10 million images, EDM2's code
    decay='inverse_sqrt',
    decay_from=35_000,
    b1=0.9,
    b2=0.99,
    # Of EDM2's 1e-8: its loss is a sum over 64 * 64 * 3 values, ours the mean.
    eps=8.14e-13,
    weight_decay=0.0,
    clip_norm=None,  # none in that code
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # The main average: that of [EDM]; its warm-up: ours. The widths that are
  # kept, and 8 Mi images between snapshots of them: EDM2's code.
  c.ema = dict(
    decay=None,
    warmup=True,
    half_life_images=50_000_000,
    power_stds=(0.05, 0.1),
    snapshot_every_steps=4_096,
  )

  c.train = dict(
    # The preset of EDM2's code: 1024 Mi images.
    batch_size=2048,
    num_steps=524_288,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=20_000,
    num_samples=16,
    sample_steps=None,  # of the grids; None takes all
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
    batches=2,  # 4,096 held-out images, the same every time
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
    fid_train=1.33,
    parameters=778_000_000,
    source='[EDM2] tab. 3; parameters: its tab. 2, of latents of ImageNet-512',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
