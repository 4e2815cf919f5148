"""CDM ImageNet cascade to 64x64: 32, then 32 -> 64. [CDM] tab. 1.

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/cdm_imagenet32.py --workdir=DIR/base32
  cdm train --config=configs/cdm_imagenet32to64.py --workdir=DIR/sr64
  cdm sample --config=configs/cdm_cascade64.py \\
    --workdir=DIR --num=50000 --out=SAMPLES

Hardware: that of the stages to train them.
Parameters: 1,577,196,300 over the stages, 6.31 GB in float32 to sample.
Paper: FID 1.48 to training, 2.48 to validation images, IS 67.95 +/- 1.97
([CDM] tab. 1).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cdm_cascade64'
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
  )

  c.paper = dict(
    fid_train=1.48,
    fid_val=2.48,
    inception_score=67.95,
    inception_score_std=1.97,
    source='[CDM] tab. 1',
  )

  # For sampling: the images are divided over the axes data and fsdp.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
