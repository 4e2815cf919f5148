"""Photographs, cascade to 32x32: 8, then 8 -> 32, for the demo.

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/photos8.py --workdir=DIR/base
  cdm train --config=configs/photos8to32.py --workdir=DIR/sr
  cdm sample --config=configs/photos_cascade32.py \\
    --workdir=DIR --num=64 --out=SAMPLES

Hardware: 2 CPU cores, minutes.
Parameters: 5,301,926 over the stages, 21.2 MB in float32 to sample.
Paper: none; every number is ours.
Ours: see the README.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'photos_cascade32'
  c.seed = 0
  c.stages = (
    dict(
      name='base',
      config='photos8',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr',
      config='photos8to32',
      level=0.03,
      truncated=False,
      sampler=None,
    ),
  )

  c.paper = dict(
    source='none: ours',
  )

  # For sampling: the images are divided over the axes data and fsdp.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
