"""Classification accuracy score of CIFAR-10 at 32x32, small.

  cdm cas --config=configs/cas_cifar.py --workdir=DIR \\
      --config.train_data.path=TRAIN.npz --config.eval_data.path=TEST.npz
  cdm cas --config=configs/cas_cifar.py --workdir=DIR \\
      --config.eval_data.path=TEST.npz --samples=SAMPLES/samples.npz

The first trains on real images, the second on samples; both test on the test
images. Chance is 10%. `benchmarks/claims.py` runs it.
Hardware: one core of a CPU, minutes.
Parameters: 503,850.
Paper: none; every number is ours.
Ours: see docs/reproduction.md.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cas_cifar'
  c.seed = 0

  # Images of 32 pixels and their labels; classes.json is beside each file.
  c.train_data = dict(
    kind='archive', path='data/cifar10/train/images.npz', class_names=None
  )
  c.eval_data = dict(
    kind='archive', path='data/cifar10/test/images.npz', class_names=None
  )

  c.pipeline = dict(
    image_size=32,
    crop='center',
    filter='area',
    min_side=0,
    flip=False,  # The method flips, on the device.
    worker_count=0,
    max_skip_fraction=0.01,  # a larger share of unreadable images stops the run
  )

  c.model = dict(
    num_classes=10,
    variant='v1.5',
    blocks=(1, 1, 1),
    features=32,
    dtype='float32',
  )

  c.method = dict(
    kind='classifier',
    size=28,
    crop_scale=(0.5, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    flip=True,
    label_smoothing=0.0,
    statistics_batches=20,
  )

  c.optimizer = dict(
    kind='sgd',
    learning_rate=0.1,
    warmup_steps=40,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    clip_norm=None,
    decay='step',
    decay_at=(500, 700),
    decay_factor=0.1,
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.0, warmup=False, half_life_images=None)  # none

  c.train = dict(
    batch_size=64,
    num_steps=800,
    accumulation=1,
    log_every_steps=50,
    sample_every_steps=0,
    num_samples=0,
    sample_steps=None,  # a classifier draws nothing
    # Saving, recovery and the watchdog: ours.
    save_every_steps=200,
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
    source='none: ours',
  )

  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
