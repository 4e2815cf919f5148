"""FSRGAN, which SR3 is compared with, faces, 16 -> 128. [FSRNet], [SR3] tab. 1.

  cdm train --config=configs/fsrgan_faces16to128.py --workdir=DIR \
      --config.method.perceptual_weight=0.1 \
      --config.method.feature_weights=vgg16-397923af.pth

The last two lines are [FSRNet]'s perceptual loss; the file is torchvision's.
Data: as sr3_faces16to128, with the same two folders, so that the two can be
compared. [FSRNet] has 18,000 images of CelebA for training and 100 for testing
(second-hand), and maps of landmarks and facial parts. Training is without them
unless the data have some (docs/data.md), such as the five points of CelebA:
  --config.train_data.landmarks=list_landmarks_align_celeba.txt \
  --config.model.num_maps=5
Hardware: not stated; one GPU.
Parameters: 12,308,551.
Paper: PSNR 23.01, SSIM 0.62, consistency 33.8e-5 on CelebA-HQ ([SR3] tab. 1);
fool rate 8.5% (project page).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'fsrgan_faces16to128'
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
    filter='area',  # that of sr3_faces16to128
    min_side=None,  # images under image_size are left out
    flip=False,
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  # Enlarged bicubically before the network: [FSRNet] (UNVERIFIED-M). Bicubic
  # with antialiasing down: [SR3].
  c.lowres = dict(
    size=16, downsample='bicubic', upsample='bicubic', augment='none'
  )

  c.model = dict(
    # [FSRNet], all UNVERIFIED-M and equal in the unofficial port by cs-giung.
    features=64,
    prior_features=128,
    coarse_blocks=3,
    encoder_blocks=12,
    decoder_blocks=3,
    hourglasses=2,
    hourglass_depth=3,  # the port's
    num_maps=0,  # without landmarks and parts of faces; see above
    norm_groups=8,  # ours; the port normalises over the batch
    dtype='float32',
    # Widths as in the port, whose discriminator has eight convolutions of 3x3;
    # the halvings by 4x4 are [DCGAN]'s.
    discriminator=dict(
      features=64, max_features=512, spectral_norm=False, dtype='float32'
    ),
  )

  c.method = dict(
    kind='fsrgan',
    # Weights: [FSRNet] (UNVERIFIED-M), and the port's.
    adversarial_weight=1e-3,
    r1_weight=1.0,  # ours; the papers of 2018 had none
    # [FSRNet]: 1e-1 (UNVERIFIED-M), which needs the file; see above. The
    # features are VGG-16's after relu5_3: the port's.
    perceptual_weight=0.0,
    feature_network='vgg',
    feature_weights='',
    feature_layer=5,
  )

  c.optimizer = dict(
    # Kind and rate: [FSRNet] (UNVERIFIED-M). The others are Torch's defaults,
    # with which the port trains; Torch adds 1e-8 to the root, not inside it.
    kind='rmsprop',
    learning_rate=2.5e-4,
    b2=0.99,
    momentum=0.0,
    eps=1e-16,
    initial_scale=0.0,
    warmup_steps=500,  # ours: the first steps are ten times as long without
    decay='constant',
    clip_norm=None,
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  # Ours: [FSRNet] has no average.
  c.ema = dict(decay=0.999, warmup=True, half_life_images=None)

  c.train = dict(
    batch_size=14,  # [FSRNet] (UNVERIFIED-M)
    # 100 epochs of [FSRNet]'s 18,000 images: the port's.
    num_steps=128_600,
    accumulation=1,
    log_every_steps=100,
    sample_every_steps=5_000,
    num_samples=16,
    sample_steps=None,  # nothing is sampled
    # Saving, recovery and the watchdog: ours.
    save_every_steps=5_000,
    keep_checkpoints=3,  # the newest ones
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
    every_steps=5_000,  # that of the checkpoints; 0 is off
    batches=16,  # 224 held-out images, the same every time
    num_pairs=64,  # drawn and scored beside bicubic
    fid_every_steps=0,  # off; it needs the weights of Inception
    fid_num=5000,
    fid_reference='',  # the training data
    fid_weights='',  # where `cdm evaluate` looks
    sampler_steps=None,  # nothing is sampled
    best='held_out/psnr',  # the best checkpoint by it is kept
    level=0.0,  # no cascade uses this stage
  )

  c.paper = dict(
    psnr=23.01,
    ssim=0.62,
    consistency=33.8e-5,
    fool_rate=8.5,
    source='[SR3] tab. 1; fool rate: project page',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
