"""A cascade of EDM2 networks to 256x256: 64 -> 256, ours. [EDM2], [CDM].

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/edm2_imagenet64_l.py --workdir=DIR/base64
  cdm train --config=configs/edm2_imagenet64to256.py --workdir=DIR/sr256
  cdm sample --config=configs/edm2_cascade256.py \\
    --workdir=DIR --num=50000 --out=SAMPLES

Sweep the width of the averages (--ema) and the level of the noise first. A
stage may be guided by a weaker one, --guide=base64:DIR/SMALL@STEP.
Hardware: that of the stages to train them.
Parameters: 991,241,673 over the stages.
Paper: none. To be passed: FID 1.48 at 64 and 4.88 at 256 pixels to training
images, of CDM's cascade ([CDM] tab. 1); the base stage has 1.33 in [EDM2].
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'edm2_cascade256'
  c.seed = 0

  # Level of the noise on the 64x64 image: ours, to be swept.
  c.stages = (
    dict(
      name='base64',
      config='edm2_imagenet64_l',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr256',
      config='edm2_imagenet64to256',
      level=0.1,
      truncated=False,
      sampler=None,
    ),
  )

  c.paper = dict(
    fid_train=4.88,
    fid_val=4.63,
    source='[CDM] tab. 1, which is to be passed',
  )

  # For sampling: the images are divided over the axes data and fsdp.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
