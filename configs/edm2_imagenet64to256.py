"""64 -> 256 with EDM2's network and recipe: ours, past CDM's. [EDM2], [CDM].

  cdm train --config=configs/edm2_imagenet64to256.py --workdir=DIR

Data: ImageNet as tensorflow-datasets' `imagenet2012` (README, "ImageNet"):
largest central square, area resize; labels 0 to 999. The low-res input is the
same image, area downsampled, with noise of a drawn level in training.
[EDM2] has no super-resolution. Ours are: the enlarged low-res image as further
channels of unit magnitude, and its noise level as a part of the embedding; the
widths and blocks, of which the maps of 256 and 128 pixels have the fewest; and
the noise levels, whose mean is that of 64 pixels plus ln 2, half of what [SiD]
shifts by, because the low-res image tells what the noisiest levels would.
Hardware: not stated.
Parameters: 213,749,348.
Paper: none. To be passed: FID 4.88 to training, 4.63 to validation images, of
CDM's cascade ([CDM] tab. 1); below 2 in pixel space is the aim of others
(docs/recipes.md).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'edm2_imagenet64to256'
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
    image_size=256,
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
    noise_size=256,  # that of the images: no shift
    logsnr_min=-12.0,
    logsnr_max=15.0,
  )

  # Noise of the low-res image up to 0.5, with room for a sweep. All ours.
  c.lowres = dict(
    size=64,
    downsample='area',
    upsample='bicubic',
    augment='noise',
    max_level=0.5,
    noise_schedule='cosine',
    num_levels=None,
  )

  c.model = dict(
    # Config G of [EDM2]. Sizes, dropout and the level's balance: ours.
    kind='edm2_unet',
    features=96,
    multipliers=(1, 2, 4, 6, 8),
    num_blocks=2,
    attention_resolutions=(16,),
    head_features=64,
    dropout=0.1,
    num_classes=1000,
    null_class=False,
    lowres_level=True,
    lowres_scale=2.0,  # 1 / sigma_data
    label_balance=0.5,
    level_balance=0.5,
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
    levels=dict(kind='log_normal', mean=-0.1, std=1.6),  # ours
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
    # Rate, and the images from which it falls: those of EDM2-S.
    kind='adam',
    learning_rate=0.01,
    warmup_steps=9_766,  # 10 million images, EDM2's code
    decay='inverse_sqrt',
    decay_from=70_000,
    b1=0.9,
    b2=0.99,
    # Of EDM2's 1e-8: a sum over 256 * 256 * 3 values, where ours is the mean.
    eps=5.09e-14,
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
    snapshot_every_steps=8_192,
  )

  c.train = dict(
    # Batch: CDM's (UNVERIFIED). Steps: 512 Mi images, as many as CDM's. Ours.
    batch_size=1024,
    num_steps=524_288,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=20_000,
    num_samples=8,
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
    batches=2,  # 2,048 held-out images, the same every time
    num_pairs=64,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # of pairs and FID; None takes all
    best='held_out/ema_loss',  # the best checkpoint by it is kept
    level=0.1,  # that of edm2_cascade256
  )

  c.paper = dict(
    of='cascade 32 -> 64 -> 256',
    fid_train=4.88,
    fid_val=4.63,
    source='[CDM] tab. 1, which is to be passed',
  )

  # Ours. fsdp=0: on several hosts, the devices of one share Adam and the EMA.
  c.mesh = dict(data=-1, fsdp=0, tensor=1, split='all', rules=())
  return c
