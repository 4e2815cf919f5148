"""Smoke test, cascade to 16x16: `smoke`, then `smoke_sr`.

Train the stages first, each into the folder of its name under DIR:

  cdm train --config=configs/smoke.py --workdir=DIR/base
  cdm train --config=configs/smoke_sr.py --workdir=DIR/sr
  cdm sample --config=configs/smoke_cascade.py \\
    --workdir=DIR --num=8 --out=SAMPLES

Hardware: any CPU, seconds. Every number is ours and chosen for speed; the
images are noise.
Parameters: 428,111 over the stages.
Paper: none.
Ours: not a result.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.name = 'smoke_cascade'
  c.seed = 0
  c.stages = (
    dict(
      name='base',
      config='smoke',
      level=0.0,
      truncated=False,
      sampler=None,
    ),
    dict(
      name='sr',
      config='smoke_sr',
      level=0.1,
      truncated=False,
      sampler=None,
    ),
  )

  c.paper = dict(
    source='none: for tests',
  )

  # For sampling: the images are divided over the axes data and fsdp.
  c.mesh = dict(data=-1, fsdp=1, tensor=1, split='all', rules=())
  return c
