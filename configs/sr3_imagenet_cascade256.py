"""SR3 class-conditional cascade to 256x256: ImageNet 64 -> 256. [SR3] tab. 4.

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/sr3_imagenet64.py --workdir=DIR/base64
  cdm train --config=configs/sr3_imagenet64to256_blur.py --workdir=DIR/sr256
  cdm sample --config=configs/sr3_imagenet_cascade256.py \\
    --workdir=DIR --num=50000 --out=SAMPLES

The base takes the class label, the super-resolution stage takes none.
Hardware: that of the stages to train them.
Parameters: 890,167,817 over the stages, 3.56 GB in float32 to sample.
Paper: FID-50k 11.3 ([SR3] tab. 4).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'sr3_imagenet_cascade256'
  c.seed = 0
  c.stages = (
    dict(
      name='base64',
      config='sr3_imagenet64',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr256',
      config='sr3_imagenet64to256_blur',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
  )

  c.paper = dict(
    fid=11.3,
    source='[SR3] tab. 4',
  )

  # For sampling: the images are divided over the axes data and fsdp.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
