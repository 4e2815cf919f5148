"""CDM ImageNet cascade to 256x256: 32 -> 64 -> 256. [CDM] tab. 1.

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/cdm_imagenet32.py --workdir=DIR/base32
  cdm train --config=configs/cdm_imagenet32to64.py --workdir=DIR/sr64
  cdm train --config=configs/cdm_imagenet64to256.py --workdir=DIR/sr256
  cdm sample --config=configs/cdm_cascade256.py \\
    --workdir=DIR --num=50000 --out=SAMPLES

Hardware: that of the stages to train them.
Parameters: 2,194,826,767 over the stages, 8.78 GB in float32 to sample.
Paper: FID 4.88 to training, 4.63 to validation images, IS 158.71 +/- 2.26;
classification accuracy score 63.02% top-1, 84.06% top-5 ([CDM] tab. 1).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cdm_cascade256'
  c.seed = 0

  # Level of the noise on the 32x32 image, s = 500 of 4000: ours. The paper
  # picks s after training; sweep it. Non-truncated: [CDM] sec. 4.3 finds both
  # alike.
  c.stages = (
    dict(
      name='base32',
      config='cdm_imagenet32',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr64',
      config='cdm_imagenet32to64',
      level=0.125,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr256',
      config='cdm_imagenet64to256',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
  )

  c.paper = dict(
    fid_train=4.88,
    fid_val=4.63,
    inception_score=158.71,
    inception_score_std=2.26,
    cas_top1=63.02,
    cas_top5=84.06,
    source='[CDM] tab. 1',
  )

  # For sampling: the images are divided over the axes data and fsdp.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
