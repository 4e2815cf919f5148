"""PULSE: faces, 16 -> 1024, by the latents of FFHQ's StyleGAN. [PULSE].

  cdm import --config=configs/pulse_faces1024.py --workdir=DIR \
      --synthesis=synthesis.pt --mapping=mapping.pt
  cdm upscale --workdir=DIR face.png --out=OUT

The files are those that the authors' program downloads. A search holds 1.8 GB
for each image at once; on a CPU give --batch_per_device=1. The same config
trains such a generator at its full size (differs: [StyleGAN] grows it block by
block):

  cdm train --config=configs/pulse_faces1024.py --workdir=DIR

Data: for training, FFHQ, 70,000 images of 1024 px in one folder.
Hardware: not stated in [PULSE]; [StyleGAN]: eight V100 for about a week.
Parameters: 43,952,276, of which the generator has 26,212,019.
Paper: on 16 -> 128 PSNR 16.88, SSIM 0.44, consistency 161.1e-5 ([SR3] tab. 1,
of images that the authors made).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'pulse_faces1024'
  c.seed = 0

  # order: 0.jpg, 1.jpg, ..., 10.jpg, as lists of splits count them.
  c.train_data = dict(
    kind='folder', path='data/ffhq', class_names=(), order='numbers'
  )
  c.eval_data = dict(
    kind='folder', path='data/celeba_hq', class_names=(), order='numbers'
  )

  c.pipeline = dict(
    image_size=1024,
    crop='center',
    filter='area',  # ours
    min_side=None,  # images under image_size are left out
    flip=True,  # [StyleGAN]
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.lowres = dict(
    # Only the search has a low-res image; any size that divides 1024 will do.
    size=16,
    downsample='bicubic',  # antialiased: [PULSE], whose borders reflect
    upsample='bicubic',  # of the pictures to compare with
    augment='none',
  )

  c.model = dict(
    # [StyleGAN]'s generator of FFHQ.
    latent_size=512,
    feature_base=8192,
    most_features=512,
    mapping_layers=8,
    # differs: convolutions of 4x4 halve the images; there is no minibatch
    # standard deviation. None if the generator is only searched.
    discriminator=dict(
      features=32,
      max_features=512,
      spectral_norm=False,
      dtype='bfloat16',
    ),
  )

  c.method = dict(
    kind='pulse',
    r1_weight=10.0,  # [StyleGAN]
    style_mixing=0.9,  # [StyleGAN]
    # [PULSE]. `cdm import --gaussian_fit` sets it to None.
    fit_samples=1_000_000,
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
    learning_rate=3e-3,  # [StyleGAN] at 1024 pixels, eight GPUs
    warmup_steps=0,
    decay='constant',
    b1=0.0,  # [StyleGAN]
    b2=0.99,  # [StyleGAN]
    eps=1e-8,  # [StyleGAN]
    weight_decay=0.0,
    clip_norm=None,  # [StyleGAN] clips nothing
    moment_dtype='float32',
    # ((regex, factor of the rate), ...). The discriminator's rates are not
    # equalised, so that its weights are 10 to 30 times smaller: ours.
    group_rates=(('^discriminator', 0.1),),
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # The average over 10,000 images is [StyleGAN]'s.
  c.ema = dict(decay=None, warmup=True, half_life_images=10_000)

  c.train = dict(
    batch_size=32,  # [StyleGAN] at 1024 pixels, eight GPUs
    num_steps=781_250,  # 25 million images: [StyleGAN]
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=10_000,
    num_samples=8,  # each is a search
    sample_steps=None,  # there is no sampler
    # Saving, recovery and the watchdog: ours.
    save_every_steps=1_000,
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
    every_steps=10_000,  # 0 is off
    batches=1,  # 32 held-out images, the same every time
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
    source='[SR3] tab. 1, column PULSE: 16 to 128',
    psnr=16.88,
    ssim=0.44,
    consistency=161.1e-5,
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
