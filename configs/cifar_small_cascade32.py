"""CIFAR-10, cascade to 32x32: 8, then 8 -> 32, for the claims on a CPU.

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/cifar_small_8.py --workdir=DIR/base
  cdm train --config=configs/cifar_small_8to32.py --workdir=DIR/sr
  cdm sample --config=configs/cifar_small_cascade32.py \\
    --workdir=DIR --num=100 --out=SAMPLES

--config.stages.1.name=OTHER takes the second stage from DIR/OTHER.

Hardware: one core of a CPU; `benchmarks/claims.py` runs it all.
Parameters: 4,050,623 over the stages, 16.2 MB in float32 to sample.
Paper: none; the method is [CDM]'s.
Ours: see docs/reproduction.md.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'cifar_small_cascade32'
  c.seed = 0
  c.stages = (
    dict(
      name='base',
      config='cifar_small_8',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr',
      config='cifar_small_8to32',
      level=0.1,
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
