"""EDM at 64x64: ADM's network with EDM's preconditioning, [EDM] sec. 5.

  cdm train --config=configs/edm_imagenet64.py --workdir=DIR

Data: ImageNet as tensorflow-datasets' `imagenet2012` (README, "ImageNet"):
largest central square, area resize; labels 0 to 999. EDM's own set is made with
ADM's box filter, and its FIDs are against statistics of that set.
The network is ADM's for ImageNet-64, without learned variances. EDM embeds the
noise level s = sigma / alpha as ln(s) / 4, and here it is 1000 * 2/pi
arctan(s); no image is mirrored or changed otherwise, as in EDM's run.
Hardware: 32 A100, about 13 days ([EDM]).
Parameters: 295,899,267 (ADM's is 296M with learned variances).
Paper: FID 2.44 with 79 network evaluations, deterministic; 1.36 with 511 and
churn 40, churn_min 0.05, churn_max 50, churn_noise 1.003 on 256 steps ([EDM]
and its code).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'edm_imagenet64'
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

  # Only the ends matter: the levels are log_normal. The noisiest is EDM's s =
  # 80, 2 ln(80) = 8.7641; the cleanest of the table is below EDM's s = 0.002.
  # The kind, T and the other end: ours.
  c.schedule = dict(
    kind='shifted_cosine',
    num_steps=2000,
    noise_size=64,  # that of the images: no shift
    logsnr_min=-8.7641,
    logsnr_max=15.0,
  )

  c.lowres = None

  c.model = dict(
    # ADM's flags for ImageNet-64 (its README), and those of a public
    # re-training of EDM (openai/consistency_models, its launch script).
    features=192,
    multipliers=(1, 2, 3, 4),
    num_blocks=3,
    attention_resolutions=(32, 16, 8),
    num_heads=1,
    head_features=64,
    dropout=0.1,
    resample='biggan',
    embedding='film',
    skip_rescale=False,
    num_classes=1000,
    null_class=False,
    condition_on='logsnr',  # the information of EDM's c_noise
    condition_scale=None,  # 1000: ours
    lowres_level=False,
    learned_variance=False,
    patch_size=1,
    norm_groups=32,
    norm_eps=1e-5,
    # Ours, EDM's is float16; parameters, EMA and Adam stay float32.
    dtype='bfloat16',
    remat='none',
  )

  c.method = dict(
    kind='diffusion',
    prediction=dict(kind='edm', sigma_data=0.5),  # [EDM] tab. 1
    # The output of the network itself: that is EDM's weight, see
    # docs/objectives.md.
    target=None,
    levels=dict(kind='log_normal', mean=-1.2, std=1.2),  # [EDM] tab. 1
    loss='simple',
    norm=2,
    weighting='none',
    vb_weight=0.001,  # of a hybrid loss
    vb_rescale=False,
    residual_scale=None,
    label_dropout=0.0,
  )

  c.sampler = dict(
    # [EDM] alg. 2 without churn, 79 evaluations. Its best FID has 256 steps and
    # the churn of the docstring.
    kind='heun',
    churn=0.0,
    churn_min=0.05,
    churn_max=50.0,
    churn_noise=1.003,
    # Eq. 5 of [EDM], from s = 80 to 0.002; rho is 7.
    grid=dict(
      kind='rho', num_steps=40, power=7.0, sigma_min=0.002, sigma_max=80.0
    ),
    clip='none',  # EDM clips nothing
    clip_percentile=99.5,  # for clip='dynamic'
    guidance_weight=0.0,
    guidance_interval=None,
    guidance_rescale=0.0,
  )

  c.optimizer = dict(
    # Rate: [EDM]. Betas and eps: the defaults, which its code takes.
    kind='adam',
    learning_rate=1e-4,
    warmup_steps=2_441,  # 10 million images, EDM's code
    decay='constant',
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=None,  # none in that code
    moment_dtype='float32',
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # Half-life of 50 million images, [EDM]. Warm-up: ours.
  c.ema = dict(decay=None, warmup=True, half_life_images=50_000_000)

  c.train = dict(
    # Batch: [EDM]. Steps: 2500 million images.
    batch_size=4096,
    num_steps=610_352,
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
    batches=1,  # 4,096 held-out images, the same every time
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
    fid_train=2.44,
    parameters=296_000_000,
    source='[EDM], 79 evaluations; parameters: ADM with learned variances',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
