"""Faces, 16 -> 64, PULSE, small: for half an hour on two CPU cores.

  cdm train --config=configs/faces_small_pulse16to64.py --workdir=DIR \
      --config.train_data.path=TRAIN --config.eval_data.path=HELD_OUT

Data: two folders of aligned faces of 64 pixels or more. A small StyleGAN is
trained; `cdm upscale` searches its latents. It draws faces at random with
`cdm sample --config.lowres=None`.
Hardware: two cores of a CPU, half an hour.
Parameters: 1,470,964, of which the generator has 747,339.
Paper: none; the method is [PULSE]'s, with StyleGAN's losses. The networks and
every number without a source are ours.
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'faces_small_pulse16to64'
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
    flip=True,
    worker_count=4,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(
    # Only the search has a low-res image; the generator is trained without.
    size=16,
    downsample='bicubic',  # antialiased: [PULSE], whose borders reflect
    upsample='bicubic',  # of the pictures to compare with
    augment='none',
  )

  c.model = dict(
    latent_size=128,  # 512 in [StyleGAN]
    feature_base=768,  # 24 channels at 64 pixels; 8192 in [StyleGAN]
    most_features=96,  # 512 in [StyleGAN]
    mapping_layers=4,  # 8 in [StyleGAN]
    discriminator=dict(
      features=24,
      max_features=192,
      spectral_norm=False,  # R1 is enough: [StyleGAN]
      dtype='float32',  # faster than bfloat16 on CPUs
    ),
  )

  c.method = dict(
    kind='pulse',
    r1_weight=1.0,  # 10 in [StyleGAN], for images of 1024 pixels
    style_mixing=0.9,  # [StyleGAN]
    fit_samples=20_000,  # 1,000,000 in [PULSE], for 512 numbers
    search=dict(
      # All are the authors' (adamian98/pulse).
      steps=100,
      learning_rate=0.4,
      schedule='linear1cycledrop',
      restarts=1,
      eps=2e-3,
      l2_weight=100.0,
      geocross_weight=0.05,
      noise_maps=5,
    ),
  )

  c.optimizer = dict(
    kind='adam',
    # 1e-3 in [StyleGAN] at this size. A generator begins with images of three
    # times the contrast, and has few steps to lower it.
    learning_rate=5e-3,
    warmup_steps=50,
    decay='constant',
    b1=0.0,  # [StyleGAN]
    b2=0.99,  # [StyleGAN]
    eps=1e-8,  # [StyleGAN]
    weight_decay=0.0,
    clip_norm=None,  # [StyleGAN] clips nothing
    moment_dtype='float32',
    # ((regex, factor of the rate), ...). The discriminator's rates are not
    # equalised, so that its weights are 10 to 30 times smaller: ours.
    group_rates=(('^discriminator', 0.04),),
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # The average over 10,000 images is [StyleGAN]'s.
  c.ema = dict(decay=None, warmup=True, half_life_images=10_000)

  c.train = dict(
    batch_size=16,
    num_steps=3_000,
    accumulation=1,
    log_every_steps=50,
    sample_every_steps=1_000,
    num_samples=8,  # each is a search
    sample_steps=None,  # there is no sampler
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
    every_steps=1_000,  # 0 is off
    batches=2,  # 32 held-out images, the same every time
    num_pairs=8,  # searched and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # there is no sampler
    best='',  # the loss of a game tells no quality; the newest is used
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    source='none: ours',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
