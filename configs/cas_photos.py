"""Classification accuracy score of the demo's photographs at 32x32.

  cdm cas --config=configs/cas_photos.py --workdir=DIR
  cdm cas --config=configs/cas_photos.py --workdir=DIR \\
    --samples=configs/photos_cascade32.py@RUNS --num=3072

The first trains on the photographs' training crops, the second on samples of
the demo's cascade; both test on the held-out crops. Chance is 8.3%.
Hardware: 2 CPU cores, a minute or two, and the drawing.
Parameters: 130,076.
Paper: none; every number is ours.
Ours: 92.71% of real crops; 85.03% of 3,072 samples of an earlier cascade,
whose second stage worked on 2x2 squares of pixels and had 144 steps.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cas_photos'
  c.seed = 0

  # Each photograph is shrunk to a third and cut into crops of 32 pixels. Its
  # left or upper part is for training, and the rest is held out.
  c.train_data = dict(
    kind='photographs',
    split='train',
    image_size=32,
    shrink=3,
    crops_per_class=4096,
    names=(
      'astronaut',
      'brick',
      'chelsea',
      'coffee',
      'coins',
      'grass',
      'gravel',
      'hubble_deep_field',
      'ihc',
      'moon',
      'retina',
      'rocket',
    ),
    seed=0,
  )
  c.eval_data = dict(
    kind='photographs',
    split='held_out',
    image_size=32,
    shrink=3,
    crops_per_class=64,
    names=(
      'astronaut',
      'brick',
      'chelsea',
      'coffee',
      'coins',
      'grass',
      'gravel',
      'hubble_deep_field',
      'ihc',
      'moon',
      'retina',
      'rocket',
    ),
    seed=0,
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
    num_classes=12,
    variant='v1.5',
    blocks=(1, 1, 1),
    features=16,
    dtype='float32',
  )

  c.method = dict(
    kind='classifier',
    size=28,
    crop_scale=(0.3, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    flip=True,
    label_smoothing=0.0,
    statistics_batches=20,
  )

  c.optimizer = dict(
    kind='sgd',
    learning_rate=0.1,
    warmup_steps=20,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    clip_norm=None,
    decay='step',
    decay_at=(200, 260),
    decay_factor=0.1,
    group_rates=(),  # ((regex, factor of the rate), ...)
    skip_nonfinite=0,  # this many steps in a row at most; 0 skips none
  )

  c.ema = dict(decay=0.0, warmup=False, half_life_images=None)  # none

  c.train = dict(
    batch_size=64,
    num_steps=300,
    accumulation=1,
    log_every_steps=25,
    sample_every_steps=0,
    num_samples=0,
    sample_steps=None,  # a classifier draws nothing
    # Saving, recovery and the watchdog: ours.
    save_every_steps=100,
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
