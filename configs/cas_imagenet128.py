"""Classification accuracy score at 128x128: ResNet-50. [CDM] tab. 1b.

  cdm cas --config=configs/cas_imagenet128.py --workdir=DIR
  cdm cas --config=configs/cas_imagenet128.py --workdir=DIR \\
    --samples=configs/cdm_cascade128.py@RUNS --num=1281167

The first trains on ImageNet itself ("real images"), the second on as many
samples of a cascade; both test on the 50,000 validation images. Data: ImageNet
as tensorflow-datasets' `imagenet2012` (README, "ImageNet"): largest central
square, area resize to 128 pixels, as the cascade's own data.
Hardware: 2.16 GFLOP forward for an image; memory and time on a slice:
`cdm plan`.
Parameters: 25,557,032 (torchvision's ResNet-50 has as many).
Paper, real images: 68.82% top-1, 88.79% top-5 ([CDM] tab. 1b).
Ours: not yet run.

[CDM] says no more of the classifier than "ResNet-50", and its source (Ravuri
and Vinyals 2019) could not be read: values marked [Goyal] are of "Accurate,
Large Minibatch SGD", arXiv 1706.02677, the usual training of ResNet-50, and
UNVERIFIED for this score; values marked "ours" are our choice.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cas_imagenet128'
  c.seed = 0

  # --samples replaces the training data, and --test the test data.
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

  # Samples and real images are prepared alike: ours.
  c.pipeline = dict(
    image_size=128,
    crop='center',
    filter='area',
    min_side=0,  # all images, the smaller ones enlarged: ours
    flip=False,  # The method flips, on the device.
    worker_count=16,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.model = dict(
    num_classes=1000,
    variant='v1.5',  # halves in the 3x3 convolution, as torchvision: ours
    blocks=(3, 4, 6, 3),  # ResNet-50: [CDM]
    features=64,
    dtype='bfloat16',  # ours
  )

  # Scale and aspect: [Goyal] sec. 5.1, as torchvision's. The middle
  # 224 of 256 pixels are what networks of ImageNet are tested on; 112 of 128
  # are the same share: ours.
  c.method = dict(
    kind='classifier',
    size=112,
    crop_scale=(0.08, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    flip=True,  # [Goyal]
    label_smoothing=0.0,  # [Goyal]
    statistics_batches=200,  # ours
  )

  # 0.1 per 256 images, 5 epochs of warm-up, a tenth after 30, 60 and 80 of 90
  # epochs: [Goyal] sec. 5.1. An epoch: 1,281,167 / 1,024 = 1,251.1 steps.
  c.optimizer = dict(
    kind='sgd',
    learning_rate=0.4,
    warmup_steps=6_256,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,  # [Goyal]; of kernels alone: ours
    clip_norm=None,
    decay='step',
    decay_at=(37_534, 75_068, 100_091),
    decay_factor=0.1,
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.0, warmup=False, half_life_images=None)  # none

  c.train = dict(
    batch_size=1024,  # ours, with the rate that belongs to it
    num_steps=112_603,  # 90 epochs: [Goyal]
    accumulation=1,
    # What follows is ours.
    log_every_steps=100,
    sample_every_steps=0,
    num_samples=0,
    sample_steps=None,  # a classifier draws nothing
    # Saving, recovery and the watchdog: ours.
    save_every_steps=5_000,
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

  c.paper = dict(
    cas_top1=68.82,
    cas_top5=88.79,
    source='[CDM] tab. 1b, real images',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
