"""CDM's ablation, ImageNet cascade to 64x64: 16, then 16 -> 64. [CDM] sec. 4.2.

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/cdm_imagenet16.py --workdir=DIR/base16
  cdm train --config=configs/cdm_imagenet16to64.py --workdir=DIR/sr64
  cdm sample --config=configs/cdm_cascade16to64.py \\
    --workdir=DIR --num=50000 --out=SAMPLES

Its rows, without and with augmentation:

  cdm sweep --samples=configs/cdm_cascade16to64.py@DIR --num=50000 \\
    --reference=imagenet64_train.npz --metrics=fid,is --out=DIR/levels \\
    --try=stages.sr64.level=0,0.02525,0.25025

Hardware: that of the stages to train them.
Parameters: 398,587,788 over the stages, 1.59 GB in float32 to sample.
Paper: FID to training images 2.13 ([CDM] sec. 4.2, quoted by others), to
validation images 2.79, IS 54.47 (both UNVERIFIED).
Ours: not yet run.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cdm_cascade16to64'
  c.seed = 0

  # Level of the noise on the 16x16 image: s = 1001 of 4000, the best of the
  # ablation; its other rows are s = 0 and 101. Whether it was truncated is not
  # known; [CDM] sec. 4.3 finds both alike.
  c.stages = (
    dict(
      name='base16',
      config='cdm_imagenet16',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr64',
      config='cdm_imagenet16to64',
      level=0.25025,
      truncated=False,
      sampler=None,
    ),
  )

  c.paper = dict(
    fid_train=2.13,
    fid_val=2.79,
    inception_score=54.47,
    source='[CDM] sec. 4.2: fid_train quoted by others, the rest UNVERIFIED',
  )

  # For sampling: the images are divided over the axes data and fsdp.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
